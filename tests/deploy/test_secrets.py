"""What the operator keeps secret is told to nobody: neither in the log nor in an answer, whatever goes wrong.

OWASP ASVS 16.2.5 and 16.5.1. The service as it is shipped, as talkative as it can be set, with a canary in each setting
that holds a secret; what a setting is refused with is in `test_config.py`, what requests leave in the log in
`test_logs.py`.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from tests.conftest import token
from tests.support.live import Service
from tests.support.servers import dsn_url, free_port
from tests.support.wire import Wire
from todo_service.config import ROOT

SECRET = "canary-secret-" + "s" * 32
SECRETS = {
    "BETTER_AUTH_SECRETS": f"2:canary-new-{'n' * 32},1:canary-old-{'o' * 32}",
    "METRICS_TOKEN": "canary-metrics-" + "m" * 16,
    "PGPASSWORD": "canary-pgpassword",
}
BROKEN_TOKEN = token("alice", SECRET)[:-4] + "AAAA"


@contextmanager
def failing(url: str) -> Iterator[str]:
    """The address of a database whose statements fail in a way that nobody foresaw."""
    with Wire(url, lambda sql: sql.replace("FROM tasks", "FROM no_such_table")) as wire:
        yield dsn_url(parse_dsn(wire.dsn()) | {"password": parse_dsn(url).get("password", "canary-password")})


@contextmanager
def refusing(url: str) -> Iterator[str]:
    """The address of a database that refuses user and password."""
    yield dsn_url(parse_dsn(url) | {"user": "nobody-here", "password": "canary-password"})


def environment() -> dict[str, str]:
    redis = {"RATELIMIT_STORAGE_URI": f"redis://:canary-redis@127.0.0.1:{free_port()}"}
    return SECRETS | redis | {"LOG_LEVEL": "DEBUG", "WEB_CONCURRENCY": "1"}


def canaries(database_url: str) -> list[str]:
    """What must not be found anywhere: the secrets, and tokens made with them."""
    password = parse_dsn(database_url).get("password")
    return ["canary", "s" * 32, "n" * 32, "o" * 32, "m" * 16, BROKEN_TOKEN] + ([password] if password else [])


def answers(port: int) -> Iterator[str]:
    """Status, headers and bodies of requests that go well, and of all the ways in which they don't."""
    bearer = {"Authorization": f"Bearer {token('alice', SECRET)}"}
    metrics = {"Authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
    requests: list[tuple[str, str, dict[str, str], Any]] = [
        ("GET", "/health/live", {}, None),
        ("GET", "/health/ready", {}, None),
        ("GET", "/metrics", {}, None),
        ("GET", "/metrics", metrics, None),
        ("GET", "/api/openapi.json", {}, None),
        ("GET", "/api/tasks", {"Authorization": f"Bearer {BROKEN_TOKEN}"}, None),
        ("GET", "/api/tasks", bearer, None),
        ("GET", "/api/tasks?sort=x", bearer, None),
        ("POST", "/api/tasks", bearer | {"Idempotency-Key": "1"}, {"title": "x"}),
        ("POST", "/api/tasks/batch", bearer, {"operations": [{"op": "create", "task": {"title": "x"}}]}),
        ("GET", "/api/tasks/export", bearer, None),
    ]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for method, path, headers, body in requests:
        connection.request(method, path, json.dumps(body), headers | {"Content-Type": "application/json"})
        response = connection.getresponse()
        yield f"{response.status} {response.headers}\n{response.read().decode()}"
    connection.close()


@pytest.mark.parametrize(
    ("database", "said", "status"),
    [
        (failing, "no_such_table", "500 "),
        (refusing, "the database cannot be reached: ", "503 "),
    ],
)
def test_a_service_tells_no_secret(database_url: str, database: Any, said: str, status: str) -> None:
    with (
        database(database_url) as url,
        Service(url, SECRET, None, "/health/live", **environment()) as service,
    ):
        told = list(answers(service.port))
        service.stop()
        log = service.log
    # It did go wrong, and the log does tell of it.
    assert said in log
    assert "Redis fails" in log
    assert any(answer.startswith(status) for answer in told)
    for canary in canaries(url):
        assert canary not in log
        assert not any(canary in answer for answer in told)


@pytest.mark.parametrize(
    ("program", "changes"),
    [("flask --app wsgi migrate", {}), ("gunicorn -c gunicorn.conf.py", {"LOG_FORMAT": "xml", "HOST": "canary"})],
)
def test_a_start_that_fails_tells_no_secret(database_url: str, program: str, changes: dict[str, str]) -> None:
    with refusing(database_url) as url:
        given = {"PATH": "/usr/bin:/bin", "BETTER_AUTH_SECRET": SECRET, "DATABASE_URL": url, "PORT": str(free_port())}
        done = subprocess.run(
            [sys.executable, "-m", *program.split()],
            cwd=ROOT, env=given | environment() | changes, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr
    for canary in canaries(url):
        assert canary not in done.stdout + done.stderr
