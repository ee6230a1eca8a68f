"""What tests share: a database of their own, the app on it, and users who speak HTTP to it.

The database is made afresh for each run, and for each of its processes (pytest-xdist): on the server that
TEST_DATABASE_URL names, else on the bundled PostgreSQL.
Tests don't clean up after themselves: each has users of its own, and users see nothing of each other.
"""

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import jwt
import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg2.extensions import parse_dsn

from tests.support.issuer import Issuer, NodeMissingError
from tests.support.servers import dsn_url
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.config import Settings, processor_count
from todo_service.db import embedded
from todo_service.dialect import Dialect

# These start what they need by themselves, are about nothing that a database could make different, or about what a
# connection of one's own keeps: they run on the bundled PostgreSQL only, and not once more for each other one.
ONCE = (
    *("cli", "deploy", "frontends", "schemas", "api/test_large_files.py", "api/test_openapi.py"),
    *("api/test_schemathesis.py", "api/test_two_users.py", "db/test_distributed.py", "db/test_full_disk.py"),
    *("db/test_replica.py", "db/test_upgrading.py", "db/test_wire.py", "http/test_auth.py", "http/test_better_auth.py"),
    *("http/test_cookie.py", "http/test_gate.py", "http/test_jwks.py", "http/test_limits.py", "http/test_logs.py"),
    *("http/test_metrics.py", "http/test_raw_http.py", "http/test_session_tokens.py", "tasks/test_recurrence.py"),
    *("tasks/test_statements.py", "test_config.py", "test_docs.py", "test_errors.py"),
)
# On another than the bundled one.
ELSEWHERE = "TEST_DATABASE_URL" in os.environ
collect_ignore = list(ONCE) if ELSEWHERE else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, too, what is marked as `once` in a module that has more."""
    once = [item for item in items if ELSEWHERE and item.get_closest_marker("once")]
    if once:
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in once]


SECRET = secrets.token_urlsafe(32)
ORIGIN = "http://frontend.test:3000"
# Set by `make fuzz`: tests with random input take longer, and something new each time.
FUZZ = "FUZZ" in os.environ


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """With `-n auto`: two for each processor, as some tests wait; none for the few that somebody has asked for."""
    few = config.option.keyword or config.option.file_or_dir
    each = 1 if config.option.markexpr == "timed" else 2
    return 0 if few else each * processor_count()


def settings_for(database_url: str | None, **changes: Any) -> Settings:
    """Settings as a deployment with a shared secret would have them, with `changes`."""
    settings = Settings(
        secrets=(SECRET,),
        jwks_url=None,
        session_url=None,
        issuers=(),
        audience=(),
        user_id_claims=("sub", "user_id", "id"),
        leeway=5,
        database_url=database_url,
        read_url=None,
        pool_size=4,
        prepare_statements=True,
        cors_origins=(ORIGIN,),
        dialect=Dialect(),
        rate_limit="100000/minute",
        rate_limit_storage="memory://",
        metrics_token=None,
        log_level="INFO",
        log_format="text",
        workers=1,
        threads=64,
        affinity=True,
        host="127.0.0.1",
        port=8000,
        trusted_hosts=(),
        forwarded_allow_ips="127.0.0.1",
    )
    return replace(settings, **changes)


def token(subject: str | None = None, secret: str = SECRET, **claims: Any) -> str:
    """An HS256 token for an hour; `claims` add to it, or take away where they are None."""
    now = int(time.time())
    payload = {"sub": subject, "iat": now, "exp": now + 3600} | claims
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, "HS256")


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """Where the tests may make databases."""
    configured = os.environ.get("TEST_DATABASE_URL")
    if configured:
        yield configured
        return
    folder = Path(tempfile.mkdtemp(prefix="todo-test-"))
    folder.chmod(0o755)
    server = embedded.start(folder)
    # The data is thrown away: no test waits until it is on the disk, or writes what would mend it after a crash.
    run_sql(server.url, "ALTER SYSTEM SET fsync = off")
    run_sql(server.url, "ALTER SYSTEM SET full_page_writes = off")
    run_sql(server.url, "SELECT pg_reload_conf()")
    yield server.url
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def make_database(database_server: str) -> Iterator[Callable[[], str]]:
    """Makes an empty database, and drops it at the end of the run."""
    made = []

    def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        run_sql(database_server, f"CREATE DATABASE {name}")
        made.append(name)
        return urlunsplit(urlsplit(database_server)._replace(path=f"/{name}"))

    yield make
    for name in made:
        run_sql(database_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def database_url(make_database: Callable[[], str]) -> str:
    """A database with the current schema."""
    url = make_database()
    cli.upgrade(url)
    return url


@pytest.fixture
def wire(database_url: str) -> Iterator[Wire]:
    """Between an app and its database: sees and rewrites every message."""
    with Wire(database_url) as running:
        yield running


def run_sql(url: str, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run a statement as the database's own superuser, past both walls."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def stranger(url: str) -> str:
    """The address of the same database for a role that has no rights there."""
    name, password = f"stranger_{secrets.token_hex(6)}", secrets.token_hex(8)
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    return dsn_url(parse_dsn(url) | {"user": name, "password": password})


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Return when `condition` holds; fail with `what` is the case instead if it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def waiting_for_locks(url: str) -> int:
    """How many statements wait in this database for a lock that somebody else has; no other test uses it meanwhile.

    Whose they are can't be told: PostgreSQL shows the first 1,024 characters of a message, and one that prepares its
    statement names the user behind them.
    """
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return len(run_sql(url, waiting))


def await_locks(url: str, number: int = 1) -> None:
    """Return when so many statements wait for a lock that somebody else has, and no more."""
    wait_for(lambda: waiting_for_locks(url) == number, f"{number} should wait for a lock")


@pytest.fixture(scope="session")
def app(database_url: str) -> Flask:
    return create_app(settings_for(database_url))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Somebody without a token."""
    return app.test_client()


@dataclass
class User:
    """Somebody with a token: `alice.get("/api/tasks")`.

    `patient`: who is told that others of the user's changes are under way tries again when that says, as clients do.
    """

    id: str
    client: FlaskClient
    token: str
    patient: bool = False

    def request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        while True:
            # As a server has it: the answer is read to its end, and closed.
            answer: Any = self.client.open(path, method=method, headers=headers, **{"buffered": True} | options)
            if not (self.patient and answer.status_code == 429 and answer.json["code"] == "too-many-at-once"):
                return answer
            time.sleep(int(answer.headers["Retry-After"]))

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Any:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Any:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Any:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Any:
        return self.request("DELETE", path, **options)

    def create(self, title: str = "Buy milk", **fields: Any) -> dict[str, Any]:
        response = self.post("/api/tasks", json={"title": title} | fields)
        assert response.status_code == 201, response.text
        task: dict[str, Any] = response.json
        return task

    def titles(self, query: str = "") -> list[str]:
        response = self.get(f"/api/tasks{query}")
        assert response.status_code == 200, response.text
        return [task["title"] for task in response.json]


def revision(response: Any) -> int:
    """How many changes of the user's there were, as the ETag of a list tells; without any there is none."""
    return int(response.headers.get("ETag", '"0"').strip('"').partition("-")[0])


def assert_tagged(response: Any) -> None:
    """The ETag of a task is its version, and what is its owner's."""
    assert re.fullmatch(f'"{response.json["version"]}-[0-9a-f]{{12}}"', response.headers["ETag"])


def user_of(app: Flask, name: str) -> User:
    """A user of `app` whom no other test has met."""
    id = f"{name}-{secrets.token_hex(6)}"
    return User(id, app.test_client(), token(id))


def again(user: User) -> User:
    """The same user in another thread, which needs a client of its own; patient, as there are others."""
    return User(user.id, user.client.application.test_client(), user.token, patient=True)


@pytest.fixture
def alice(app: Flask) -> User:
    return user_of(app, "alice")


@pytest.fixture
def bob(app: Flask) -> User:
    return user_of(app, "bob")


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    """A real Better Auth, with the tests' secret."""
    try:
        issuer = Issuer.start(SECRET)
    except NodeMissingError as missing:
        pytest.skip(str(missing))
    yield issuer
    issuer.stop()


def assert_problem(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """`response` is an error as every error should be; its body."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = response.get_json(force=True)
    assert problem["status"] == status
    assert problem["detail"] == problem["message"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert code is None or problem["code"] == code
    return problem
