"""One user's changes that meet: made together, in a transaction of their own, each with its own answer.

Another session holds the user's row, so that the first change waits for it and the others for the first.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest

from tests.conftest import (
    User,
    again,
    assert_problem,
    assert_tagged,
    await_lock,
    run_sql,
    settings_for,
    user_of,
    wait_for,
)
from tests.wire import Wire
from todo_service import create_app, turns
from todo_service.db import Database
from todo_service.models import QUOTA
from todo_service.statements import SENT_BEFORE

Send = Callable[[User], Any]

KILL = "RESET ROLE; SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def user(wire: Wire) -> User:
    return user_of(create_app(settings_for(wire.dsn(), pool_size=2)), "carol")


class Meeting:
    """Sends the first request, which waits in the database, then the others, which wait for their turn."""

    def __init__(self, url: str, user: User, wire: Wire) -> None:
        self.url, self.user, self.wire = url, user, wire
        database: Database = user.client.application.extensions["database"]
        self.turns = database.turns

    def __call__(self, first: Send, *others: Send, before: Callable[[], None] = lambda: None) -> list[Any]:
        """The answers. `before` is called when all wait."""
        with psycopg2.connect(self.url) as holder, ThreadPoolExecutor(len(others) + 1) as pool:
            with holder.cursor() as cursor:
                cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", [self.user.id])
            sent = [pool.submit(first, again(self.user))]
            await_lock(self.url, self.user.id)
            self.wire.reset()
            for number, other in enumerate(others, 1):
                sent.append(pool.submit(other, again(self.user)))
                wait_for(lambda n=number: self.waiting() == n, "not all of them wait")  # type: ignore[misc]
            before()
            holder.rollback()
            answers = [answer.result(20) for answer in sent]
        holder.close()
        return answers

    def waiting(self) -> int:
        return len(self.turns._waiting.get(self.user.id, []))


@pytest.fixture
def meet(database_url: str, user: User, wire: Wire) -> Meeting:
    user.create("the user's row")
    return Meeting(database_url, user, wire)


def create(**fields: Any) -> Send:
    return lambda user: user.post("/api/tasks", json={"title": "Buy milk"} | fields)


def patch(id: str, headers: dict[str, str] | None = None, **fields: Any) -> Send:
    return lambda user: user.patch(f"/api/tasks/{id}", json=fields, headers=headers or {})


def statuses(answers: list[Any]) -> list[int]:
    return [answer.status_code for answer in answers]


def test_new_tasks_that_meet_take_one_message(meet: Meeting, user: User, wire: Wire) -> None:
    tags = ["a,b", 'c"d', "{e}"]
    due, moment = "2026-03-01", "2026-03-01T12:30:00.25+02:00"
    fields: list[dict[str, Any]] = [
        {"title": "100 % \\ ' \" ☂", "description": "two\nlines", "tags": tags, "due_date": due, "priority": "high"},
        {"title": "timed", "due_date": moment, "completed": True, "recurrence": "weekly", "repeat_from": "completion"},
        {"title": "placed", "position": 40.5},
        {"title": "plain"},
    ]
    # No two tasks have one position.
    alone = [user.create(**given | ({"position": 40.25} if "position" in given else {})) for given in fields]
    answers = meet(create(), *(create(**given) for given in fields))
    assert statuses(answers) == [201] * 5
    assert len(wire.queries) == 1
    told = [answer.json for answer in answers]
    # As if they had come one after the other: the next versions, and the next places behind the last one.
    assert sorted(task["version"] for task in told) == list(range(6, 11))
    assert [task["position"] for task in told] == [42, 43, 44, 40.5, 45]
    differing = {"id", "position", "version", "created_at", "updated_at", "completed_at"}
    for task, one in zip(told[1:], alone, strict=True):
        assert {name: task[name] for name in task.keys() - differing} == {n: one[n] for n in one.keys() - differing}
        assert (task["completed_at"] is None) == (one["completed_at"] is None)
        assert user.get(f"/api/tasks/{task['id']}").json == task
    for answer, task in zip(answers, told, strict=True):
        assert answer.headers["Location"] == f"/api/tasks/{task['id']}"
        assert_tagged(answer)
    assert user.create()["position"] == 46


def test_new_tasks_that_all_have_a_place(meet: Meeting, user: User) -> None:
    answers = meet(create(), create(position=7), create(position=9.5))
    assert [answer.json["position"] for answer in answers] == [2, 7, 9.5]
    assert user.create()["position"] == 10


def test_changes_that_meet_take_one_transaction(meet: Meeting, user: User, wire: Wire) -> None:
    one, two, three, four = (user.create(f"{number}")["id"] for number in range(4))
    answers = meet(
        patch(one, title="first"),
        patch(one, description="second"),
        patch(one, title="third"),
        lambda user: user.patch(f"/api/tasks/{two}/complete"),
        lambda user: user.delete(f"/api/tasks/{three}"),
        lambda user: user.delete(f"/api/tasks/{four}?permanent=true"),
    )
    assert statuses(answers) == [200] * 6
    assert len(wire.queries) == 6
    assert [sql.startswith("BEGIN; ") for sql in wire.queries] == [True] + [False] * 5
    assert wire.queries[-1] == "COMMIT"
    told = [answer.json for answer in answers]
    assert [task["version"] for task in told] == list(range(6, 12))
    # Each tells the task as it left it.
    assert [(task["title"], task["description"]) for task in told[:3]] == [
        ("first", None),
        ("first", "second"),
        ("third", "second"),
    ]
    assert user.get(f"/api/tasks/{one}").json == told[2]
    assert [user.get(f"/api/tasks/{id}").status_code for id in (two, three, four)] == [200, 404, 404]
    assert user.get(f"/api/tasks/{two}").json["completed"]


def test_what_is_wrong_with_one_concerns_no_other(meet: Meeting, user: User, alice: User) -> None:
    one, repeating = user.create()["id"], user.create(due_date="2099-03-01", recurrence="daily")["id"]
    foreign = alice.create()["id"]
    answers = meet(
        patch(one, title="first"),
        patch(one, {"If-Match": '"1"'}, title="stale"),
        patch(foreign, title="foreign"),
        patch("0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10", title="missing"),
        patch(one, title="last"),
        lambda user: user.patch(f"/api/tasks/{repeating}/complete"),
    )
    assert statuses(answers) == [200, 412, 403, 404, 200, 200]
    assert user.get(f"/api/tasks/{one}").json["title"] == "last"
    assert user.get("/api/tasks?sort=position").json[-1]["due_date"] == "2099-03-02"
    assert alice.get(f"/api/tasks/{foreign}").json["title"] == "Buy milk"


def test_what_the_database_refuses_concerns_no_other(meet: Meeting, user: User) -> None:
    one, two = (user.create(due_date="2026-03-01", recurrence="daily")["id"] for _ in range(2))
    answers = meet(
        patch(one, title="first"), patch(two, title="second"), patch(one, due_date=None), patch(two, description="last")
    )
    assert statuses(answers) == [200, 200, 422, 200]
    assert answers[2].get_json(force=True)["errors"] == [{"field": "recurrence", "message": "Needs a due_date."}]
    assert user.get(f"/api/tasks/{one}").json["due_date"] == "2026-03-01"
    assert (user.get(f"/api/tasks/{two}").json["title"], answers[3].json["description"]) == ("second", "last")


@pytest.mark.parametrize("kind", ["create", "update"])
def test_what_nobody_expects_concerns_no_other(
    meet: Meeting, user: User, wire: Wire, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [user.create()["id"] for _ in range(4)]

    def send(number: int, title: str) -> Send:
        return create(title=title) if kind == "create" else patch(ids[number], title=title)

    def poison() -> None:
        wire.rewrite = lambda sql: f"{sql}; SELECT 1/0" if "poison" in sql else sql

    titles = ["first", "second", "poison", "last"]
    answers = meet(*(send(number, title) for number, title in enumerate(titles)), before=poison)
    wire.rewrite = None
    assert statuses(answers) == [201 if kind == "create" else 200] * 2 + [500, answers[0].status_code]
    assert [title for title in user.titles("?sort=created_at&order=asc") if title in titles] == [
        "first",
        "second",
        "last",
    ]
    assert caplog.text.count("unhandled exception") == 1


def test_room_for_some(meet: Meeting, user: User, database_url: str) -> None:
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT %(user)s, gen_random_uuid(), 't', 't', n, n + 1 FROM generate_series(1, %(number)s) AS n;
        UPDATE owners SET revision = %(number)s + 1, room_until = 0 WHERE user_id = %(user)s
    """
    run_sql(database_url, fill, {"user": user.id, "number": QUOTA - 4})
    answers = meet(*[create()] * 5)
    assert sorted(statuses(answers)) == [201, 201, 201, 403, 403]
    assert_problem(next(answer for answer in answers if answer.status_code == 403), 403, "quota-exceeded")
    run_sql(database_url, "DELETE FROM tasks WHERE user_id = %(user)s", {"user": user.id})


def test_a_lost_connection_is_told_to_all_and_nothing_is_made(meet: Meeting, user: User, wire: Wire) -> None:
    ids = [user.create()["id"] for _ in range(3)]

    def kill_with_the_second() -> None:
        wire.rewrite = lambda sql: KILL if len(wire.queries) == 2 else sql

    answers = meet(*(patch(id, title="changed") for id in ids), before=kill_with_the_second)
    wire.rewrite = None
    assert statuses(answers) == [200, 503, 503]
    assert [user.get(f"/api/tasks/{id}").json["title"] for id in ids] == ["changed", "Buy milk", "Buy milk"]


def test_names_that_the_server_does_not_know(meet: Meeting, user: User, wire: Wire) -> None:
    """Each change is made once all the same."""
    ids = [user.create()["id"] for _ in range(3)]
    for _ in range(2 * (SENT_BEFORE + 1)):
        user.patch(f"/api/tasks/{ids[0]}", json={"title": "prepared"})

    def forget() -> None:
        wire.rewrite = lambda sql: f"DEALLOCATE ALL; {sql}" if "EXECUTE" in sql else sql

    version = user.get(f"/api/tasks/{ids[0]}").json["version"]
    answers = meet(*(patch(id, title="changed") for id in ids), before=forget)
    wire.rewrite = None
    assert statuses(answers) == [200] * 3
    assert sorted(answer.json["version"] for answer in answers) == [version + n for n in (1, 2, 3)]
    assert user.titles("?sort=position")[1:] == ["changed"] * 3


def test_those_who_wait_in_vain_are_sent_away(database_url: str, user: User) -> None:
    """With the one that they wait for, when that is given up; and what they wanted is not done later."""
    id = user.create()["id"]
    with psycopg2.connect(database_url) as holder, ThreadPoolExecutor(3) as pool:
        with holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", [user.id])
        sent = [pool.submit(patch(id, title="first"), again(user))]
        await_lock(database_url, user.id)
        sent += [pool.submit(create(), again(user)), pool.submit(patch(id, title="late"), again(user))]
        first, *others = [answer.result(10) for answer in sent]
        assert_problem(first, 503, "unavailable")
        for other in others:
            problem = assert_problem(other, 503, "unavailable")
            assert problem["detail"] == "The service is busy; please try again."
        holder.rollback()
    holder.close()
    assert user.titles() == ["Buy milk"]
    assert user.create()["version"] == 2


def test_those_who_wait_for_too_long_are_sent_away(meet: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0)
    answers = meet(create(), create(), create())
    assert statuses(answers) == [201, 503, 503]
    assert meet.user.create()["version"] == 3


def test_only_so_many_go_together(meet: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_TOGETHER", 2)
    answers = meet(create(), *[create(title=f"{number}") for number in range(5)])
    assert statuses(answers) == [201] * 6
    assert [answer.json["version"] for answer in answers] == [2, 3, 4, 5, 6, 7]
    # What is made together, is made at the same time.
    times = Counter(answer.json["created_at"] for answer in answers)
    assert list(times.values()) == [1, 2, 2, 1]


def test_other_users_wait_for_nobody(meet: Meeting, user: User) -> None:
    other = user_of(user.client.application, "dave")
    made: list[Any] = []
    answers = meet(create(), create(), before=lambda: made.append(other.create()))
    assert (len(made), statuses(answers)) == (1, [201, 201])
