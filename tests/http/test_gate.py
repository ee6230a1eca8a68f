"""One user's changes don't hold up the others', whatever they are, however many, and whatever keeps them waiting."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import psycopg2
import pytest
from flask import Flask

from tests.api.test_isolation import CASES, ask
from tests.conftest import (
    SECRET,
    User,
    assert_problem,
    await_locks,
    settings_for,
    user_of,
    wait_for,
    waiting_for_locks,
)
from tests.support.crowd import UNIQUE, crowd
from tests.support.live import Connection, Service
from tests.support.proxy import Proxy
from tests.support.raw import Connection as Raw
from tests.support.raw import request
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.http.gate import PATIENCE, gate_for

pytestmark = pytest.mark.timed

# Of the app below: three quarters of its eight threads, of which two are at work.
AT_WORK, WAITING = 2, 4
CODE = "too-many-at-once"


def again(user: User) -> User:
    """The same user in another thread, who takes a 429 for an answer."""
    return User(user.id, user.client.application.test_client(), user.token)


@contextmanager
def locked(database_url: str, user: User) -> Iterator[None]:
    """Somebody else's transaction holds the user's row: every change of theirs waits for it, in the database."""
    holder = psycopg2.connect(database_url)
    try:
        with holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", [user.id])
        yield
    finally:
        holder.close()


@pytest.fixture
def app(database_url: str) -> Flask:
    """With connections that are there already: to make one may take longer than a change waits for a lock."""
    app = create_app(settings_for(database_url, threads=8, pool_size=4))
    with ExitStack() as held:
        for _ in range(AT_WORK + 1):
            held.enter_context(app.extensions["engine"].connect())
    return app


def create(user: User) -> tuple[Any, float]:
    """The answer, and after how many seconds it came."""
    began = time.monotonic()
    answer = again(user).post("/api/tasks", json={"title": "Buy milk"})
    return answer, time.monotonic() - began


def assert_refused(answer: Any) -> None:
    assert_problem(answer, 429, CODE)
    assert answer.headers["Retry-After"] == "1"


def test_few_are_at_work_and_few_wait_for_a_moment(database_url: str, alice: User, bob: User) -> None:
    alice.create("one")
    with locked(database_url, alice), ThreadPoolExecutor(AT_WORK + WAITING + 3) as pool:
        first = [pool.submit(create, alice) for _ in range(AT_WORK)]
        await_locks(database_url, AT_WORK)
        others = [pool.submit(create, alice) for _ in range(WAITING + 3)]
        # Meanwhile nobody else notices, nor does who only reads.
        assert create(bob)[0].status_code == 201
        assert alice.titles() == ["one"]
        assert waiting_for_locks(database_url) == AT_WORK
        refused = sorted((other.result() for other in others), key=lambda told: told[1])
        for answer, _ in refused:
            assert_refused(answer)
        assert [seconds >= PATIENCE for _, seconds in refused] == [False] * 3 + [True] * WAITING
        for one in first:
            assert_problem(one.result()[0], 503, "unavailable")
    assert alice.titles() == ["one"]
    # All places are free again.
    with locked(database_url, alice), ThreadPoolExecutor(AT_WORK) as pool:
        first = [pool.submit(create, alice) for _ in range(AT_WORK)]
        await_locks(database_url, AT_WORK)


def test_who_waits_is_let_in(database_url: str, alice: User) -> None:
    alice.create("one")
    with ThreadPoolExecutor(AT_WORK + WAITING) as pool:
        with locked(database_url, alice):
            sent = [pool.submit(create, alice) for _ in range(AT_WORK + WAITING)]
            await_locks(database_url, AT_WORK)
            time.sleep(PATIENCE / 4)
        assert [one.result()[0].status_code for one in sent] == [201] * (AT_WORK + WAITING)


def test_every_change_is_held_back_and_no_read(database_url: str, alice: User) -> None:
    """Whatever operation the document has."""
    id = alice.create("one")["id"]
    with locked(database_url, alice), ThreadPoolExecutor(AT_WORK + len(CASES)) as pool:
        first = [pool.submit(create, alice) for _ in range(AT_WORK)]
        await_locks(database_url, AT_WORK)
        answers = {case: pool.submit(ask, again(alice), case, id) for case in CASES}
        for (method, path), answer in answers.items():
            if method == "get":
                assert answer.result().status_code == 200, path
            else:
                assert_refused(answer.result())
        assert [one.result()[0].status_code for one in first] == [503] * AT_WORK
    assert [task["id"] for task in alice.get("/api/tasks").json] == [id]


@pytest.mark.parametrize("what", ["invalid", "too large", "absent", "a bug", "a lost connection"])
def test_errors_keep_no_places(wire: Wire, alice: User, what: str) -> None:
    user = user_of(create_app(settings_for(wire.dsn(), threads=8, pool_size=4)), "carol")
    id = user.create("one")["id"]
    wire.rewrite = {
        "a bug": lambda sql: sql.replace("UPDATE tasks", "UPDATE no_such_table"),
        "a lost connection": lambda sql: "RESET ROLE; SELECT pg_terminate_backend(pg_backend_pid())",
    }.get(what)
    path = f"/api/tasks/{'0197c9a4-6d2f-7c3e-9b41-404404404404' if what == 'absent' else id}"
    title = "x" * (2_000_000 if what == "too large" else 2000 if what == "invalid" else 1)
    statuses = {user.patch(path, json={"title": title}).status_code for _ in range(AT_WORK + WAITING + 1)}
    assert statuses == {{"invalid": 422, "too large": 413, "absent": 404, "a bug": 500}.get(what, 503)}
    wire.rewrite = None
    assert user.patch(f"/api/tasks/{id}", json={"title": "two"}).status_code == 200


@pytest.mark.parametrize("threads", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("connections", [1, 2, 3, 8])
def test_a_gate_leaves_room_where_there_is_any(threads: int, connections: int) -> None:
    made = gate_for(threads, connections)
    assert made.at_work >= 1
    assert made.at_work < connections or connections == 1
    assert made.at_work + made.waiting < threads or threads <= 2


# Measured as it is shipped

# The row is held for as long as that, past every deadline; where it isn't, half of it shows the same.
HELD_SECONDS, FREE_SECONDS = 8, 4
CLIENTS = 100
TASKS = {"tasks": [{"title": f"Task {number}", "description": "What it is about"} for number in range(3000)]}


def sent(user: User, line: str, body: Any = None, *headers: str) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = [f"Authorization: Bearer {user.token}", f"Content-Length: {len(data)}", *headers]
    return request(line, *head, *["Content-Type: application/json"] * (body is not None), body=data)


TASK = {"title": "Buy milk"}
KINDS: dict[str, Callable[[User], list[bytes]]] = {
    "plain": lambda user: [sent(user, "POST /api/tasks", TASK)],
    "batch of one": lambda user: [
        sent(user, "POST /api/tasks/batch", {"operations": [{"op": "create", "task": TASK}]})
    ],
    "keyed": lambda user: [sent(user, "POST /api/tasks", TASK, f"Idempotency-Key: {UNIQUE}")],
    "import": lambda user: [sent(user, "POST /api/tasks/import", TASKS)],
    # Toggled: its next occurrence is made, or removed.
    "recurring": lambda user: [
        sent(user, f"PATCH /api/tasks/{user.create(due_date='2030-01-01', recurrence='daily')['id']}/complete")
        for _ in range(10)
    ],
}


@pytest.fixture(scope="module")
def shipped(database_url: str) -> Iterator[Proxy]:
    """Two processes with the threads and connections that they have by default, behind nginx."""
    with Service(database_url, SECRET, RATELIMIT_DEFAULT="1000000/minute") as service, Proxy(service) as proxy:
        yield proxy


@pytest.mark.parametrize("busy", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_user_with_a_hundred_clients_does_not_slow_the_others(
    shipped: Proxy, database_url: str, alice: User, bob: User, kind: str, busy: bool
) -> None:
    """What another user's page takes meanwhile, from their click to the whole of the answer."""
    alice.create()
    for number in range(20):
        bob.create(f"{number}")
    requests, seconds = KINDS[kind](alice), HELD_SECONDS if busy else FREE_SECONDS
    reads: list[float] = []
    changes: list[float] = []
    hold = locked(database_url, alice) if busy else nullcontext()
    with hold, crowd(shipped.port, requests, seconds, CLIENTS) as hers:
        until = time.monotonic() + seconds
        with Connection(shipped.url, bob.token) as client:
            while time.monotonic() < until:
                reads += [timed(client, 200, "GET", "/api/tasks?limit=20") for _ in range(10)]
                changes.append(timed(client, 201, "POST", "/api/tasks", TASK))
    assert quantile(reads, 0.95) < 0.5
    assert max(reads + changes) < 2
    # What she is told: done; busy, with when to try again; or that the database has kept her waiting.
    told = Counter[str]()
    for answer, count in hers.answers.items():
        told[answer[:1] if answer.startswith("20") else answer] += count
    assert told.keys() <= {"2", f"429 {CODE} 1", "503 unavailable 2"}
    assert (told["2"] > 0) != busy


def timed(client: Connection, status: int, method: str, path: str, body: Any = None) -> float:
    """How many seconds the answer takes. A little later, so that it is no crowd of its own."""
    time.sleep(0.04)
    began = time.monotonic()
    assert client.request(method, path, body).status == status
    return time.monotonic() - began


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def test_clients_that_leave_keep_no_places(database_url: str, alice: User) -> None:
    """Neither at work nor waiting, nor in the middle of what they send."""
    alice.create("one")
    message = sent(alice, "POST /api/tasks", TASK)
    with (
        Service(database_url, SECRET, RATELIMIT_DEFAULT="100000/minute", WEB_CONCURRENCY="1") as service,
        ExitStack() as connections,
    ):
        with locked(database_url, alice), ExitStack() as leaving:
            for number in range(12):
                connection = leaving.enter_context(Raw(service.port))
                connection.send(message[:-5] if number % 3 == 0 else message)
            wait_for(lambda: waiting_for_locks(database_url), "none gets to the database")
        # What had come in full is done, or refused, with nobody there to hear of it.
        wait_for(lambda: service.log.count(f"user={alice.id}") == 12, "some are under way")
        with locked(database_url, alice):
            staying = [connections.enter_context(Raw(service.port)) for _ in range(AT_WORK)]
            for connection in staying:
                connection.send(message)
            await_locks(database_url, AT_WORK)
        assert [connection.answer().status_code for connection in staying] == [201] * AT_WORK
        done = service.log.count("POST /api/tasks 201")
        assert len(alice.titles()) == 1 + done
