"""/metrics: off by default, for its token alone, the same numbers whichever worker answers."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import SECRET, assert_problem, run_sql, settings_for, token, user_of
from tests.live import Service
from todo_service import create_app
from todo_service.config import ROOT

TOKEN = secrets.token_urlsafe(24)
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def measured(database_url: str) -> Flask:
    return create_app(settings_for(database_url, metrics_token=TOKEN))


def scrape(app: Flask) -> str:
    response = app.test_client().get("/metrics", headers=AUTHORIZED)
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=")
    return response.text


def value(page: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels."""
    samples = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", page, flags=re.MULTILINE)
    wanted = [f'{label}="{text}"' for label, text in labels.items()]
    return sum(float(number) for found, number in samples if all(pair in found for pair in wanted))


def test_off_without_a_token(client: FlaskClient) -> None:
    assert_problem(client.get("/metrics"), 404)
    assert_problem(client.get("/metrics", headers=AUTHORIZED), 404)


def test_off_costs_nothing() -> None:
    code = (
        "import sys; from tests.conftest import settings_for; from todo_service import create_app;"
        "create_app(settings_for('postgresql://127.0.0.1:1/none'));"
        "print({'prometheus_client', 'redis'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Basic YTpi", 401),
        ("Bearer", 400),
        ("Bearer wrong", 401),
        ("Bearer \u00e9", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {token('alice')}", 401),
    ],
    ids=["none", "other scheme", "no token", "wrong", "not ASCII", "too long", "a user's"],
)
def test_wants_its_token(measured: Flask, authorization: str | None, status: int) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = measured.test_client().get("/metrics", headers=headers)
    assert_problem(response, status)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_tokens_cannot_be_tried_without_end(database_url: str) -> None:
    app = create_app(settings_for(database_url, metrics_token=TOKEN, rate_limit="2/minute"))
    client = app.test_client()
    assert [client.get("/metrics").status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/metrics", headers=AUTHORIZED).status_code == 200


def test_requests_and_problems_are_counted(measured: Flask) -> None:
    alice = user_of(measured, "alice")
    for title in ("one", "two", "three"):
        alice.create(title)
    alice.get(f"/api/{alice.id}/tasks")
    alice.post("/api/tasks", json={})
    measured.test_client().get("/api/tasks")
    measured.test_client().get("/no/such/path")
    measured.test_client().open("/api/tasks", method="BREW")
    page = scrape(measured)
    assert value(page, "todo_requests_total", method="POST", route="/api/tasks", status="201") == 3
    assert value(page, "todo_requests_total", method="GET", route="/api/<user_id>/tasks", status="200") == 1
    assert value(page, "todo_requests_total", method="GET", route="none", status="404") == 1
    assert value(page, "todo_requests_total", method="other", status="405") == 1
    assert value(page, "todo_request_seconds_count", method="POST", route="/api/tasks") == 4
    assert 0 < value(page, "todo_request_seconds_sum", method="POST", route="/api/tasks") < 60
    assert value(page, "todo_problems_total", code="invalid") == 1
    assert value(page, "todo_problems_total", code="unauthorized") == 1
    for private in (alice.id, "no/such/path", "BREW"):
        assert private not in page


def test_connections_are_counted(measured: Flask, database_url: str) -> None:
    alice = user_of(measured, "alice")
    alice.get("/api/tasks")
    page = scrape(measured)
    assert value(page, "todo_database_connections_max") == 4
    assert value(page, "todo_database_connections_in_use") == 0
    with measured.extensions["engine"].pool.connect() as connection:
        assert value(scrape(measured), "todo_database_connections_in_use") == 1
        pid = connection.get_backend_pid()
    # One that dies is not in use any more, either.
    run_sql(database_url, "SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})
    assert alice.get("/api/tasks").status_code == 200
    assert value(scrape(measured), "todo_database_connections_in_use") == 0


def test_workers_are_counted_together(database_url: str) -> None:
    with Service(database_url, SECRET, METRICS_TOKEN=TOKEN, DB_POOL_SIZE="3") as service:
        connections_max(service, 6)
        bearer = token("alice")
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda _: fetch(f"{service.url}/api/tasks", bearer), range(60)))
        pages = [fetch(f"{service.url}/metrics", TOKEN) for _ in range(10)]
        for page in pages:
            assert value(page, "todo_requests_total", route="/api/tasks", status="200") == 60
            assert value(page, "todo_request_seconds_count", route="/api/tasks") == 60
            assert value(page, "todo_database_connections_in_use") == 0
        # The counts of a worker that is gone stay, its connections don't.
        for worker in service.workers():
            os.kill(worker, signal.SIGKILL)
        time.sleep(1)
        service.wait_until_ready()
        page = connections_max(service, 6)
        assert value(page, "todo_requests_total", route="/api/tasks", status="200") == 60


def connections_max(service: Service, expected: int) -> str:
    """The page, once it says so: a worker may still be starting."""
    deadline = time.monotonic() + 20
    while value(page := fetch(f"{service.url}/metrics", TOKEN), "todo_database_connections_max") != expected:
        assert time.monotonic() < deadline, page
        time.sleep(0.1)
    return page


def fetch(url: str, bearer: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        text: str = response.read().decode()
        return text
