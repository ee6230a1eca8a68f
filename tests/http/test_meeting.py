"""One user's changes that meet: each has its own answer, and what is wrong with one concerns no other.

Another session holds the user's row until all of them are there: two in the database, the others before the gate.
"""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import SECRET, User, again, assert_problem, await_locks, run_sql, settings_for, user_of, wait_for
from tests.http.test_gate import AT_WORK, locked
from tests.support.live import Service
from tests.support.raw import Connection, request
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.db.models import QUOTA

Send = Callable[[User], Any]
Meet = Callable[..., list[Any]]

KILL = "RESET ROLE; SELECT pg_terminate_backend(pg_backend_pid())"
MISSING = "0197c9a4-6d2f-7c3e-9b41-404404404404"


@pytest.fixture
def user(wire: Wire) -> User:
    carol = user_of(create_app(settings_for(wire.dsn())), "carol")
    carol.create("the user's row")
    return carol


@pytest.fixture
def meet(database_url: str, user: User) -> Meet:
    """Sends the requests, and gives their answers in the same order."""

    def send(*requests: Send) -> list[Any]:
        with ThreadPoolExecutor(len(requests)) as pool:
            with locked(database_url, user):
                sent = [pool.submit(one, again(user)) for one in requests]
                await_locks(database_url, AT_WORK)
                time.sleep(0.1)
            return [answer.result(20) for answer in sent]

    return send


def create(**fields: Any) -> Send:
    return lambda user: user.post("/api/tasks", json={"title": "Buy milk"} | fields)


def patch(id: str, headers: dict[str, str] | None = None, **fields: Any) -> Send:
    return lambda user: user.patch(f"/api/tasks/{id}", json=fields, headers=headers or {})


def statuses(answers: list[Any]) -> list[int]:
    return [answer.status_code for answer in answers]


def test_all_are_done_one_after_the_other(meet: Meet, user: User) -> None:
    """No version twice, no place twice, and each answer shows the task as that change left it."""
    id = user.create()["id"]
    answers = meet(*(create(title=f"{number}") for number in range(4)), *(patch(id, title=name) for name in "abcd"))
    assert statuses(answers) == [201] * 4 + [200] * 4
    told = [answer.json for answer in answers]
    assert sorted(task["version"] for task in told) == list(range(3, 11))
    assert sorted(task["position"] for task in told[:4]) == [3, 4, 5, 6]
    assert [task["title"] for task in told] == [*"0123", *"abcd"]
    last = max(told[4:], key=lambda task: task["version"])
    assert user.get(f"/api/tasks/{id}").json == last


def test_what_is_wrong_with_one_concerns_no_other(meet: Meet, user: User, alice: User) -> None:
    one, two = user.create()["id"], user.create()["id"]
    repeating = user.create(due_date="2099-03-01", recurrence="daily")["id"]
    foreign = alice.create()["id"]
    answers = meet(
        patch(one, title="changed"),
        patch(two, {"If-Match": '"1"'}, title="stale"),
        patch(foreign, title="foreign"),
        patch(MISSING, title="missing"),
        patch(repeating, due_date=None),
        patch(two, description="changed, too"),
        lambda user: user.patch(f"/api/tasks/{repeating}/complete"),
    )
    assert statuses(answers) == [200, 412, 403, 404, 422, 200, 200]
    assert answers[4].get_json(force=True)["errors"] == [{"field": "recurrence", "message": "Needs a due_date."}]
    assert [user.get(f"/api/tasks/{id}").json["title"] for id in (one, two)] == ["changed", "Buy milk"]
    assert user.get("/api/tasks?sort=position").json[-1]["due_date"] == "2099-03-02"
    assert alice.get(f"/api/tasks/{foreign}").json["title"] == "Buy milk"


@pytest.mark.parametrize("kind", ["create", "update", "batch"])
@pytest.mark.parametrize(("instead", "status"), [("{sql}; SELECT 1/0", 500), (KILL, 503)], ids=["bug", "lost"])
def test_what_nobody_expects_concerns_no_other(
    meet: Meet, user: User, wire: Wire, kind: str, instead: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And is half of nothing."""
    ids = [user.create()["id"] for _ in range(4)]

    def send(id: str, title: str) -> Send:
        match kind:
            case "create":
                return create(title=title)
            case "update":
                return patch(id, title=title)
            case _:
                operation = {"op": "update", "id": id, "task": {"title": title}}
                return lambda user: user.post("/api/tasks/batch", json={"operations": [operation]})

    wire.rewrite = lambda sql: instead.format(sql=sql) if "poison" in sql else sql
    titles = ["first", "second", "poison", "last"]
    answers = meet(*(send(id, title) for id, title in zip(ids, titles, strict=True)))
    wire.rewrite = None
    done = 201 if kind == "create" else 200
    assert statuses(answers) == [done, done, status, done]
    assert {title for title in user.titles() if title in titles} == {"first", "second", "last"}
    assert caplog.text.count("unhandled exception") == (status == 500)


def test_room_for_some(meet: Meet, user: User, database_url: str) -> None:
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT %(user)s, gen_random_uuid(), 't', 't', n, n + 1 FROM generate_series(1, %(number)s) AS n;
        UPDATE owners SET revision = %(number)s + 1, room_until = 0 WHERE user_id = %(user)s
    """
    run_sql(database_url, fill, {"user": user.id, "number": QUOTA - 4})
    answers = meet(*[create()] * 5)
    assert Counter(statuses(answers)) == {201: 3, 403: 2}
    assert_problem(next(answer for answer in answers if answer.status_code == 403), 403, "quota-exceeded")
    run_sql(database_url, "DELETE FROM tasks WHERE user_id = %(user)s", {"user": user.id})


# As it is shipped


@pytest.fixture
def sent(alice: User) -> bytes:
    body = json.dumps({"title": "Buy milk"}).encode()
    head = [f"Authorization: Bearer {alice.token}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return request("POST /api/tasks", *head, body=body)


def test_a_service_that_stops_answers_who_waits(database_url: str, alice: User, sent: bytes) -> None:
    """For the lock, or before the gate; what comes behind it on the same connection, too."""
    alice.create("the user's row")
    crowd = 2 * AT_WORK
    with (
        Service(database_url, SECRET, WEB_CONCURRENCY="1") as service,
        ExitStack() as connections,
    ):
        many = [connections.enter_context(Connection(service.port)) for _ in range(crowd)]
        with locked(database_url, alice):
            for connection in many:
                connection.send(sent * 2)
            await_locks(database_url, AT_WORK)
            service.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "Handling signal: term" in service.log, "no signal has come")
        answers = [connection.answer() for connection in many for _ in range(2)]
        assert statuses(answers) == [201] * 2 * crowd
        assert [connection.rest() for connection in many] == [b""] * crowd
        assert service.process.wait(20) == 0
    assert len(alice.titles()) == 1 + 2 * crowd


def test_who_hangs_up_while_it_waits(database_url: str, alice: User, sent: bytes) -> None:
    alice.create("the user's row")
    with Service(database_url, SECRET, WEB_CONCURRENCY="1") as service, ExitStack() as connections:
        first, gone, said_goodbye, patient = (connections.enter_context(Connection(service.port)) for _ in range(4))
        with locked(database_url, alice):
            for connection in (first, gone, said_goodbye, patient):
                connection.send(sent)
            await_locks(database_url, AT_WORK)
            gone.close()
            said_goodbye.say_goodbye()
        assert [connection.answer().status_code for connection in (first, said_goodbye, patient)] == [201] * 3
        assert said_goodbye.rest() == b""
        # What had come of it was done; that nobody hears of it is nobody's fault.
        wait_for(lambda: len(alice.titles()) == 5, "one is missing")
