"""/metrics: off by default, for its token alone, the same numbers whichever worker answers."""

import operator
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Thread
from typing import Any

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import SECRET, assert_problem, run_sql, settings_for, token, user_of, wait_for
from tests.support.keyserver import Key, KeyServer
from tests.support.live import Service
from tests.support.servers import free_port
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.cli import upgrade
from todo_service.config import ROOT, VERSION
from todo_service.db.models import REVISION
from todo_service.http import metrics
from todo_service.http.tokens import keys

TOKEN = secrets.token_urlsafe(24)
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def ask_at_once() -> None:
    """Have the next page ask the database, however long ago that was done for another test."""
    metrics.ask_again_in(-1)


@pytest.fixture
def measured(database_url: str, ask_at_once: None) -> Flask:
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


def test_waiting_for_a_connection_is_timed(database_url: str, ask_at_once: None) -> None:
    app = create_app(settings_for(database_url, metrics_token=TOKEN, pool_size=1))
    alice = user_of(app, "alice")
    alice.get("/api/tasks")
    before = scrape(app)
    with app.extensions["engine"].pool.connect():
        waiting = Thread(target=alice.get, args=("/api/tasks",))
        waiting.start()
        time.sleep(0.3)
    waiting.join()
    page = scrape(app)
    assert value(page, "todo_database_wait_seconds_count") - value(before, "todo_database_wait_seconds_count") == 2
    waited = value(page, "todo_database_wait_seconds_sum") - value(before, "todo_database_wait_seconds_sum")
    assert 0.2 < waited < 4
    # And of who waited in vain.
    with app.extensions["engine"].pool.connect():
        assert_problem(alice.get("/api/tasks"), 503)
    assert value(scrape(app), "todo_database_failures_total", reason="no_connection_free") == 1


def test_statements_are_timed_by_the_function_that_sends_them(measured: Flask) -> None:
    alice = user_of(measured, "alice")
    id = alice.create("one")["id"]
    for _ in range(6):
        # By their name, too (db/prepared.py).
        assert alice.get(f"/api/tasks/{id}").status_code == 200
    alice.patch(f"/api/tasks/{id}", json={"title": "two"})
    alice.get("/api/tasks/stats")
    alice.post("/api/tasks", json={"title": "three"}, headers={"Idempotency-Key": "x"})
    alice.post("/api/tasks/batch", json={"operations": [{"op": "delete", "id": id}]})
    alice.get("/api/tasks/export?format=json")
    alice.get("/api/tasks/changes")
    page = scrape(measured)
    assert value(page, "todo_statement_seconds_count", statement="queries.get_task") == 6
    assert value(page, "todo_statement_seconds_count", statement="statements.change_task") == 1
    assert 0 < value(page, "todo_statement_seconds_sum", statement="queries.get_task") < 30
    names = set(re.findall(r'todo_statement_seconds_count{statement="([^"]+)"}', page))
    assert len(names) > 7
    modules = {name.rpartition(".")[2]: module for name, module in sys.modules.items() if "todo_service." in name}
    for name in names:
        module, _, function = name.partition(".")
        assert callable(operator.attrgetter(function)(modules[module])), name


def test_failures_of_the_database_are_counted_by_reason(database_url: str, ask_at_once: None, wire: Wire) -> None:
    app = create_app(settings_for(wire.dsn(), metrics_token=TOKEN))
    alice = user_of(app, "alice")
    id = alice.create("one")["id"]
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        assert_problem(alice.patch(f"/api/tasks/{id}", json={"title": "two"}), 503)
    page = scrape(app)
    assert value(page, "todo_database_failures_total", reason="lock_not_available") == 1
    # A statement that failed took its time as well.
    assert value(page, "todo_statement_seconds_sum", statement="statements.change_task") > 1.5
    # What the client did wrong is none.
    assert_problem(alice.patch(f"/api/tasks/{id}", json={"recurrence": "FREQ=DAILY"}), 422)
    assert value(scrape(app), "todo_database_failures_total") == 1
    wire.hold()
    assert_problem(alice.get("/api/tasks"), 503)
    wire.cut()
    wire.release()
    alice.get("/api/tasks")
    assert value(scrape(app), "todo_database_failures_total", reason="unanswered") == 1


def test_a_page_is_served_without_the_database(ask_at_once: None) -> None:
    app = create_app(settings_for(f"postgresql://nobody@127.0.0.1:{free_port()}/none", metrics_token=TOKEN))
    page = scrape(app)
    assert value(page, "todo_database_failures_total", reason="unreachable") == 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        metrics.ask_again_in(-1)
        address = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        app = create_app(settings_for(address, metrics_token=TOKEN))
        began = time.monotonic()
        scrape(app)
        assert time.monotonic() - began < 5


def test_refused_tokens_are_counted_by_reason(measured: Flask) -> None:
    client = measured.test_client()
    client.get("/api/tasks")
    for bearer in (token("alice", exp=1), token("alice", exp=2), token("alice", secret="x" * 32)):
        response = client.get("/api/tasks", headers={"Authorization": f"Bearer {bearer}"})
        said = assert_problem(response, 401)["detail"].removeprefix("Unauthorized: ")
        assert value(scrape(measured), "todo_refused_tokens_total", reason=said) > 0
    assert value(scrape(measured), "todo_refused_tokens_total") == 4


def test_what_there_is_too_much_of_is_counted(database_url: str, ask_at_once: None) -> None:
    app = create_app(settings_for(database_url, metrics_token=TOKEN, rate_limit="3/minute"))
    alice, bob = user_of(app, "alice"), user_of(app, "bob")
    assert [alice.get("/api/tasks").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert [app.test_client().get("/api/tasks").status_code for _ in range(4)] == [401, 401, 401, 429]
    gate = app.extensions["gate"]
    with gate.enter(bob.id), gate.enter(bob.id):
        waiting = Thread(target=bob.post, args=("/api/tasks",), kwargs={"json": {"title": "one too many"}})
        waiting.start()
        wait_for(lambda: value(scrape(app), "todo_gate_waiting") == 1, "nobody waits at the gate")
        waiting.join()
    page = scrape(app)
    assert value(page, "todo_gate_waiting") == 0
    counts = {
        limit: value(page, "todo_too_many_requests_total", limit=limit) for limit in ("user", "address", "at-once")
    }
    assert counts == {"user": 2, "address": 1, "at-once": 1}


def test_questions_to_better_auth_are_counted(database_url: str, ask_at_once: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(keys, "COOL_DOWN_SECONDS", 0)
    with KeyServer() as server:
        key = server.add("EdDSA")
        app = create_app(
            settings_for(
                database_url,
                metrics_token=TOKEN,
                jwks_url=server.url,
                issuers=("https://app.example.com",),
                audience=("https://app.example.com",),
                session_url=server.url.replace("jwks", "get-session"),
            )
        )
        party = {"iss": "https://app.example.com", "aud": "https://app.example.com"}
        signed = key.sign({"sub": "alice", "exp": int(time.time()) + 60} | party)
        client = app.test_client()
        assert client.get("/api/tasks", headers={"Authorization": f"Bearer {signed}"}).status_code == 200
        server.answer = "500"
        other = Key("another", key.alg, key.private).sign({"sub": "alice"})
        assert client.get("/api/tasks", headers={"Authorization": f"Bearer {other}"}).status_code == 401
        # What it answers is no session.
        assert client.get("/api/tasks", headers={"Authorization": f"Bearer {'x' * 32}"}).status_code == 503
    page = scrape(app)
    assert value(page, "todo_key_fetches_total", outcome="answered") == 1
    assert value(page, "todo_key_fetches_total", outcome="failed") == 1
    assert value(page, "todo_session_questions_total", outcome="failed") == 1


def test_overdue_rows_and_schema(make_database: Callable[[], str], ask_at_once: None) -> None:
    url = make_database()
    upgrade(url)
    app = create_app(settings_for(url, metrics_token=TOKEN))
    alice = user_of(app, "alice")
    old, new = alice.create("old")["id"], alice.create("new")["id"]
    alice.delete(f"/api/tasks/{old}")
    alice.delete(f"/api/tasks/{new}")
    alice.delete(f"/api/tasks/{alice.create('gone')['id']}?permanent=true")
    page = scrape(app)
    assert value(page, "todo_purge_overdue_seconds") == 0
    assert value(page, "todo_schema_revision") == value(page, "todo_schema_revision_needed") == int(REVISION)
    assert value(page, "todo_info", version=VERSION) == 1
    run_sql(url, f"UPDATE tasks SET deleted_at = now() - interval '30 days 1 hour' WHERE id = '{old}'")
    run_sql(url, "UPDATE tombstones SET purged_at = now() - interval '91 days'")
    # It was asked less than a minute ago.
    assert value(scrape(app), "todo_purge_overdue_seconds") == 0
    asked = value(scrape(app), "todo_statement_seconds_count", statement="retention.overdue")
    assert asked == 1
    metrics.ask_again_in(-1)
    page = scrape(app)
    assert value(page, "todo_purge_overdue_seconds", kind="tasks") == pytest.approx(3600, abs=60)
    assert value(page, "todo_purge_overdue_seconds", kind="tombstones") == pytest.approx(86400, abs=60)
    assert value(page, "todo_purge_overdue_seconds", kind="answers") == 0
    app.test_cli_runner().invoke(args=["purge"])
    run_sql(url, "UPDATE alembic_version SET version_num = '0001'")
    metrics.ask_again_in(-1)
    page = scrape(app)
    assert value(page, "todo_purge_overdue_seconds") == 0
    assert value(page, "todo_schema_revision") == 1


def test_the_page_lists_what_is_served(measured: Flask) -> None:
    """docs/metrics.md, line by line: name, type, labels, meaning."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*)\| (.*) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    listed = {name: (kind, re.findall(r"\w+", labels), meaning) for name, kind, labels, meaning in rows}
    served = {}
    for family in text_string_to_metric_families(scrape(measured)):
        name = family.name + ("_total" if family.type == "counter" else "")
        # Processes that share their numbers have none of these.
        if not name.endswith("_created"):
            served[name] = (family.type, family.documentation)
    assert served == {name: (kind, meaning) for name, (kind, _, meaning) in listed.items()}
    for instrument in instruments(measured):
        [family] = instrument.collect()
        labels = listed[family.name + ("_total" if family.type == "counter" else "")][1]
        # Other labels than those that it has are refused.
        assert instrument.labels(**dict.fromkeys(labels, "x")) if labels else not instrument._labelnames


def instruments(app: Flask) -> list[Any]:
    made = app.extensions["metrics"].instruments
    return [value for name, value in vars(made).items() if name != "registry"]


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
            # Whichever worker is asked: the database was asked once.
            assert value(page, "todo_statement_seconds_count", statement="retention.overdue") == 1
            assert value(page, "todo_schema_revision") == value(page, "todo_schema_revision_needed") == int(REVISION)
            assert value(page, "todo_info", version=VERSION) == 1
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
