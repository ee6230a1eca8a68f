"""Changes of one user that meet in a worker: they wait without a thread, and whichever is free goes on with them.

Another session holds the user's row, so that the first change waits for it and the others for the first. What becomes
of changes that meet is checked by `test_turns.py`; here it's how the server waits for that.
"""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg2
import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.conftest import SECRET, User, await_lock, run_sql, wait_for
from tests.live import Connection, Service
from tests.raw import Connection as Raw
from tests.raw import request
from tests.wire import Wire
from todo_service.service import LATER, Pending
from todo_service.serving import HEAVY, MAX_HEAVY_PENDING

THREADS = 3


@pytest.fixture(scope="module")
def wire(database_url: str) -> Iterator[Wire]:
    with Wire(database_url) as running:
        yield running


def with_threads(wire: Wire, threads: int) -> Service:
    """One process of the service."""
    limit = "100000/minute"
    return Service(wire.dsn(), SECRET, WEB_CONCURRENCY="1", WEB_THREADS=str(threads), RATELIMIT_DEFAULT=limit)


@pytest.fixture(scope="module")
def service(wire: Wire) -> Iterator[Service]:
    with with_threads(wire, THREADS) as running:
        yield running


class Crowd:
    """Requests of one user, each on a connection of its own, of which the first waits in the database."""

    def __init__(self, service: Service, user: User, stack: ExitStack) -> None:
        self.service, self.user, self.stack = service, user, stack
        self.connections: list[Raw] = []
        self.probe = stack.enter_context(Connection(service.url))

    def send(self, method: str, path: str, padding: int = 0, **fields: Any) -> Raw:
        """Send a request. It has met the others, or is on its way, when this returns."""
        connection = self.stack.enter_context(Raw(self.service.port))
        connection.send(self.bytes(method, path, padding, **fields))
        self.connections.append(connection)
        assert self.probe.request("GET", "/health/live").status == 200
        return connection

    def bytes(self, method: str, path: str, padding: int = 0, **fields: Any) -> bytes:
        body = json.dumps(fields).encode() + b" " * padding
        headers = [f"Authorization: Bearer {self.user.token}", "Content-Type: application/json"]
        return request(f"{method} {path}", *headers, f"Content-Length: {len(body)}", body=body)

    def create(self, padding: int = 0, **fields: Any) -> Raw:
        return self.send("POST", "/api/tasks", padding, **{"title": "Buy milk"} | fields)

    def answers(self) -> list[Any]:
        return [connection.answer() for connection in self.connections]

    def statuses(self) -> list[int]:
        return [answer.status_code for answer in self.answers()]


@pytest.fixture
def crowd(service: Service, alice: User) -> Iterator[Crowd]:
    alice.create("the user's row")
    with ExitStack() as stack:
        yield Crowd(service, alice, stack)


@pytest.fixture
def held(database_url: str, alice: User, crowd: Crowd) -> Callable[[], Any]:
    @contextmanager
    def hold() -> Iterator[None]:
        """A first change waits inside, for this to end."""
        holder = psycopg2.connect(database_url)
        with holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", [alice.id])
        try:
            crowd.create(title="first")
            await_lock(database_url, alice.id)
            yield
        finally:
            holder.close()

    return hold


def count(url: str, user: User) -> int:
    [(number,)] = run_sql(url, "SELECT count(*) FROM tasks WHERE user_id = %(user)s", {"user": user.id})
    return int(number)


def test_more_of_them_than_there_are_threads(
    crowd: Crowd, held: Callable[[], Any], alice: User, bob: User, service: Service
) -> None:
    """Others don't notice; and all that waited is made together, and so at the same time."""
    with held():
        for number in range(4 * THREADS):
            crowd.create(title=f"{number}")
        with Connection(service.url, bob.token) as other:
            assert other.request("POST", "/api/tasks", {"title": "Bob's"}).status == 201
    answers = crowd.answers()
    assert [answer.status_code for answer in answers] == [201] * (4 * THREADS + 1)
    assert len({answer.json["created_at"] for answer in answers[1:]}) == 1
    assert [answer.json["title"] for answer in answers] == ["first", *map(str, range(4 * THREADS))]
    assert sorted(answer.json["version"] for answer in answers) == list(range(2, 4 * THREADS + 3))
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)
    assert sorted(alice.titles()) == sorted(["the user's row", "first", *map(str, range(4 * THREADS))])


def test_each_gets_its_own_answer(crowd: Crowd, held: Callable[[], Any], alice: User, bob: User) -> None:
    one, repeating = alice.create()["id"], alice.create(due_date="2099-03-01", recurrence="daily")["id"]
    foreign = bob.create()["id"]
    with held():
        crowd.send("PATCH", f"/api/tasks/{one}", title="changed")
        crowd.send("PATCH", f"/api/tasks/{foreign}", title="foreign")
        crowd.send("PATCH", "/api/tasks/0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10", title="missing")
        crowd.create(title="second")
        crowd.send("PATCH", f"/api/tasks/{repeating}/complete")
        crowd.send("PATCH", f"/api/tasks/{repeating}", due_date=None)
        crowd.send("DELETE", f"/api/tasks/{one}")
        crowd.send("GET", f"/api/tasks/{foreign}")
        crowd.send("POST", "/api/tasks", title="")
    assert crowd.statuses() == [201, 200, 403, 404, 201, 200, 422, 200, 403, 422]
    assert sorted(alice.titles()) == ["Buy milk", "Buy milk", "first", "second", "the user's row"]


def test_who_waits_in_vain_is_sent_away(database_url: str, crowd: Crowd, held: Callable[[], Any]) -> None:
    """And what they wanted is not done later."""
    with held():
        for _ in range(2 * THREADS):
            crowd.create()
        answers = crowd.answers()
        assert [answer.status_code for answer in answers] == [503] * (2 * THREADS + 1)
        assert {answer.json["detail"] for answer in answers[1:]} == {"The service is busy; please try again."}
        assert count(database_url, crowd.user) == 1
    assert [answer.status_code for answer in [crowd.create().answer()]] == [201]


def test_who_waits_may_have_sent_more_already(crowd: Crowd, held: Callable[[], Any], alice: User) -> None:
    """What comes on one connection is answered in its order, half a request too when its rest has come."""
    with held():
        pipelined = crowd.create(title="1")
        rest = crowd.bytes("POST", "/api/tasks", title="3")
        pipelined.send(crowd.bytes("POST", "/api/tasks", title="2") + rest[:-5])
        crowd.create(title="another")
    told: list[Any] = [pipelined.answer(), pipelined.answer()]
    pipelined.send(rest[-5:] + crowd.bytes("GET", "/api/tasks?limit=1"))
    told.append(pipelined.answer())
    assert [answer.json["title"] for answer in told] == ["1", "2", "3"]
    assert [task["title"] for task in pipelined.answer().get_json()] == ["3"]
    assert sorted(alice.titles()) == ["1", "2", "3", "another", "first", "the user's row"]


def test_who_hangs_up_while_it_waits(crowd: Crowd, held: Callable[[], Any], alice: User) -> None:
    with held():
        crowd.create(title="gone").close()
        crowd.create(title="said goodbye").say_goodbye()
        crowd.create(title="patient")
    assert [crowd.connections[number].answer().status_code for number in (0, 2, 3)] == [201] * 3
    assert crowd.connections[2].rest() == b""
    # What had come of it was done; that nobody hears of it is nobody's fault.
    assert sorted(alice.titles()) == ["first", "gone", "patient", "said goodbye", "the user's row"]


def test_only_so_many_heavy_ones_wait(database_url: str, crowd: Crowd, held: Callable[[], Any]) -> None:
    with held():
        for number in range(MAX_HEAVY_PENDING + 3):
            crowd.create(title=f"{number}", padding=HEAVY)
        crowd.create(title="a small one")
    answers = crowd.answers()
    assert [answer.status_code for answer in answers] == [201, *[201] * MAX_HEAVY_PENDING, *[503] * 3, 201]
    assert answers[-2].json["detail"] == "The service is busy; please try again."
    assert count(database_url, crowd.user) == MAX_HEAVY_PENDING + 3


def test_hundreds_wait(database_url: str, crowd: Crowd, held: Callable[[], Any]) -> None:
    with held():
        sent = crowd.bytes("POST", "/api/tasks", title="one of many")
        many = [crowd.stack.enter_context(Raw(crowd.service.port)) for _ in range(300)]
        for connection in many:
            connection.send(sent)
        assert crowd.probe.request("GET", "/health/live").status == 200
    statuses = [connection.answer().status_code for connection in [*crowd.connections, *many]]
    # On a slow machine the first of them has given up meanwhile, and so have those that it let wait.
    assert set(statuses) <= {201, 503}
    assert statuses.count(201) == count(database_url, crowd.user) - 1
    assert statuses.count(201) > THREADS


def test_a_service_that_stops_answers_who_waits(
    database_url: str, wire: Wire, alice: User, crowd: Crowd, held: Callable[[], Any]
) -> None:
    with with_threads(wire, THREADS) as stopping:
        crowd.service = stopping
        crowd.probe = crowd.stack.enter_context(Connection(stopping.url))
        with held():
            for number in range(2 * THREADS):
                crowd.create(title=f"{number}")
            stopping.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "Handling signal: term" in stopping.log, "no signal has come")
        answers = crowd.answers()
        assert [answer.status_code for answer in answers] == [201] * (2 * THREADS + 1)
        assert [connection.rest() for connection in crowd.connections] == [b""] * (2 * THREADS + 1)
        assert stopping.process.wait(20) == 0
    assert count(database_url, alice) == 2 * THREADS + 2


def test_a_middleware_that_does_not_know_of_waiting(app: Flask, alice: User) -> None:
    """It gets an answer that comes a little later than others."""

    def middleware(environ: Any, start_response: Any) -> Any:
        answer = app(environ, start_response)
        assert isinstance(answer, Pending)
        return answer

    environ = EnvironBuilder("/api/tasks", method="POST", json={"title": "Buy milk"}).get_environ()
    environ |= {"HTTP_AUTHORIZATION": f"Bearer {alice.token}", LATER: True}
    body, status, _ = run_wsgi_app(middleware, environ)
    assert status == "201 CREATED"
    task = json.loads(b"".join(body))
    assert alice.get(f"/api/tasks/{task['id']}").json == task


def test_one_thread_is_enough(wire: Wire, alice: User) -> None:
    with with_threads(wire, 1) as service, ThreadPoolExecutor(8) as pool:

        def create(number: int) -> list[int]:
            with Connection(service.url, alice.token) as connection:
                return [
                    connection.request("POST", "/api/tasks", {"title": f"{number}", "description": "x" * 100}).status
                    for _ in range(10)
                ]

        assert list(pool.map(create, range(8))) == [[201] * 10] * 8
    assert len(alice.titles("?limit=100")) == 80


@pytest.mark.parametrize("delay", [0, 0.003])
def test_users_who_each_sort_their_tasks_anew(
    database_url: str,
    service: Service,
    wire: Wire,
    alice: User,
    bob: User,
    delay: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever reads meanwhile is answered between two changes, also where the database is so far that nobody leads."""
    monkeypatch.setattr(wire, "delay", delay)
    users = [alice, bob]
    ids = {user.id: [user.create(f"{number}")["id"] for number in range(4)] for user in users}

    def sort_anew(user: User, id: str) -> list[int]:
        with Connection(service.url, user.token) as connection:
            return [
                connection.request("PATCH", f"/api/tasks/{id}", {"position": number}).status for number in range(25)
            ]

    with ThreadPoolExecutor(8) as pool, Connection(service.url, alice.token) as reader:
        sorting = [pool.submit(sort_anew, user, id) for user in users for id in ids[user.id]]
        reads = 0
        while not all(one.done() for one in sorting):
            assert reader.request("GET", "/api/tasks").status == 200
            reads += 1
        assert [one.result() for one in sorting] == [[200] * 25] * 8
    assert reads > 8
    for user in users:
        [(revision,)] = run_sql(database_url, "SELECT revision FROM owners WHERE user_id = %(u)s", {"u": user.id})
        assert revision == 4 + 4 * 25
