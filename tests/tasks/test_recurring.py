"""Tasks that repeat: completing one makes its next occurrence, once; opening it again takes that back."""

import json
import threading
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.api.test_sync import Client, changes, of_server
from tests.api.test_transfer import export, imported
from tests.conftest import User, again, assert_problem, assert_tagged, revision, settings_for, user_of
from tests.http.test_conditions import at_once
from tests.http.test_idempotency import KILL
from tests.support.wire import Wire
from tests.tasks.test_recurrence import HOSTILE
from todo_service import create_app
from todo_service.db.models import MAX_BATCH, MAX_OCCURRENCE
from todo_service.tasks.recurrence.rules import MAX_LENGTH

Task = dict[str, Any]

FAR = "2090-01-02"  # a Monday
NEXT = "2090-01-03"


def repeating(user: User, title: str = "Water", due_date: str = FAR, recurrence: str = "daily", **fields: Any) -> Task:
    return user.create(title, due_date=due_date, recurrence=recurrence, **fields)


def path_of(task: Task) -> str:
    return f"/api/tasks/{task['id']}"


def batch(user: User, *operations: Any) -> Any:
    return user.post("/api/tasks/batch", json={"operations": operations})


def others(user: User, *known: Task) -> list[Task]:
    """The live tasks that are not among `known`, oldest first."""
    ids = {task["id"] for task in known}
    return [task for task in user.get("/api/tasks?sort=oldest").json if task["id"] not in ids]


# Every way to complete a task and to open it again: as the answer, the task.
COMPLETE = {
    "toggle": lambda user, task: user.patch(f"{path_of(task)}/complete").json,
    "set": lambda user, task: user.patch(f"{path_of(task)}/complete", json={"completed": True}).json,
    "PUT": lambda user, task: user.put(path_of(task), json={"completed": True}).json,
    "PATCH": lambda user, task: user.patch(path_of(task), json={"completed": True}).json,
    "PUT all of it": lambda user, task: user.put(path_of(task), json=task | {"completed": True}).json,
    "batch complete": lambda user, task: batch(user, {"op": "complete", "id": task["id"]}).json["results"][0]["task"],
    "batch update": lambda user, task: batch(
        user, {"op": "update", "id": task["id"], "task": {"completed": True}}
    ).json["results"][0]["task"],
}
REOPEN = {
    "toggle": lambda user, task: user.patch(f"{path_of(task)}/complete").json,
    "set": lambda user, task: user.patch(f"{path_of(task)}/complete", json={"completed": False}).json,
    "PUT": lambda user, task: user.put(path_of(task), json={"completed": False}).json,
    "batch": lambda user, task: batch(user, {"op": "complete", "id": task["id"], "completed": False}).json["results"][
        0
    ]["task"],
}


@pytest.mark.parametrize("way", COMPLETE)
def test_completing_makes_one_successor(alice: User, way: str) -> None:
    task = repeating(
        alice,
        description="the ferns",
        priority="high",
        category="Garden",
        checklist=[{"title": "fill the can", "completed": True}, {"title": "water"}],
        tags=["home"],
        repeat_from="due",
        position=7.5,
    )
    done = COMPLETE[way](alice, task)
    assert done["completed"] is True
    assert done["completed_at"]
    stamps = {name: done[name] for name in ("completed", "completed_at", "updated_at", "version")}
    assert done == task | stamps
    assert alice.get(path_of(task)).json == done
    [successor] = others(alice, task)
    kept = {
        name: task[name] for name in ("user_id", "title", "description", "priority", "category", "tags", "repeat_from")
    }
    assert [tuple(item.values()) for item in successor["checklist"]] == [("fill the can", False), ("water", False)]
    assert (successor["checklist_done"], successor["checklist_total"]) == (0, 2)
    assert successor == successor | kept | {"recurrence": "daily", "due_date": NEXT, "completed": False}
    assert successor["completed_at"] is successor["deleted_at"] is None
    assert successor["created_at"] == successor["updated_at"]
    assert (successor["position"], {successor["version"], done["version"]}) == (8, {2, 3})
    assert revision(alice.get("/api/tasks")) == 3


@pytest.mark.parametrize("way", [way for way in COMPLETE if way not in ("toggle", "batch complete")])
def test_completing_again_makes_no_second(alice: User, way: str) -> None:
    task = repeating(alice)
    for _ in range(3):
        COMPLETE[way](alice, task)
    assert [other["due_date"] for other in others(alice, task)] == [NEXT]


@pytest.mark.parametrize("way", REOPEN)
def test_opening_again_takes_an_untouched_successor_back(alice: User, way: str) -> None:
    task = repeating(alice)
    alice.patch(f"{path_of(task)}/complete")
    [successor] = others(alice, task)
    opened = REOPEN[way](alice, task)
    assert opened == task | {name: opened[name] for name in ("updated_at", "version")}
    assert alice.get("/api/tasks").json == [opened]
    assert_problem(alice.get(path_of(successor)), 404)
    assert alice.titles("?deleted=true") == []
    alice.patch(f"{path_of(task)}/complete")
    [new] = others(alice, task)
    assert (new["due_date"], new["id"] == successor["id"]) == (NEXT, False)


TOUCHES: dict[str, Any] = {
    "changed": lambda user, path: user.patch(path, json={"title": "Mine now"}),
    "completed": lambda user, path: user.patch(f"{path}/complete"),
    "trashed": lambda user, path: user.delete(path),
    "trashed and restored": lambda user, path: user.delete(path) and user.post(f"{path}/restore"),
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_opening_again_keeps_a_touched_successor(alice: User, touch: str) -> None:
    """And completing again makes no second one."""
    task = repeating(alice)
    alice.patch(f"{path_of(task)}/complete")
    [successor] = others(alice, task)
    assert TOUCHES[touch](alice, path_of(successor)).status_code == 200
    before = of_server(alice)
    for completed in (False, True, False, True):
        assert alice.patch(f"{path_of(task)}/complete").json["completed"] is completed
        after = of_server(alice)
        assert {id: after[id] for id in after if id != task["id"]} == {
            id: before[id] for id in before if id != task["id"]
        }


def test_a_successor_that_was_deleted_for_good_is_made_anew(alice: User) -> None:
    task = repeating(alice)
    alice.patch(f"{path_of(task)}/complete")
    [successor] = others(alice, task)
    alice.delete(f"{path_of(successor)}?permanent=true")
    assert others(alice, task) == []
    for _ in range(2):
        alice.patch(f"{path_of(task)}/complete")
    assert [other["due_date"] for other in others(alice, task)] == [NEXT]


def test_a_series_goes_on(alice: User) -> None:
    tasks = [repeating(alice)]
    for number in range(1, 6):
        alice.patch(f"{path_of(tasks[-1])}/complete")
        tasks += others(alice, *tasks)
        assert [task["due_date"] for task in tasks] == [f"2090-01-{n:02}" for n in range(2, 3 + number)]
    # In the middle of it nothing is taken back: what follows was completed.
    alice.patch(f"{path_of(tasks[2])}/complete")
    alice.patch(f"{path_of(tasks[2])}/complete")
    assert others(alice, *tasks) == []
    assert len(alice.titles("?status=pending")) == 1


def test_of_a_batch_each_operation_sees_what_the_one_before_made(alice: User) -> None:
    task = repeating(alice)
    operations = [{"op": "complete", "id": task["id"]}] * 5
    states = [result["task"]["completed"] for result in batch(alice, *operations).json["results"]]
    assert states == [True, False, True, False, True]
    assert [other["due_date"] for other in others(alice, task)] == [NEXT]
    created = {"op": "create", "task": {"title": "new", "due_date": FAR, "recurrence": "weekly"}}
    [made] = batch(alice, created).json["results"]
    complete = {"op": "complete", "id": made["task"]["id"]}
    rest = {"op": "update", "id": made["task"]["id"], "task": {"title": "renamed", "recurrence": "monthly"}}
    assert batch(alice, rest, complete).status_code == 200
    assert alice.get("/api/tasks?search=renamed&status=pending").json[0]["due_date"] == "2090-02-02"


def test_a_change_counts_before_the_completion_that_comes_with_it(alice: User) -> None:
    once = alice.create(due_date=FAR)
    alice.put(path_of(once), json={"completed": True, "recurrence": "weekly"})
    assert [other["due_date"] for other in others(alice, once)] == ["2090-01-09"]
    daily = repeating(alice, "daily")
    alice.put(path_of(daily), json={"completed": True, "due_date": "2090-05-01", "title": "moved"})
    assert [task["due_date"] for task in others(alice, once, daily) if task["title"] == "moved"] == ["2090-05-02"]
    last = repeating(alice, "last")
    alice.put(path_of(last), json={"completed": True, "recurrence": None})
    assert alice.titles("?search=last") == ["last"]


def test_created_as_completed_it_has_no_successor_yet(alice: User) -> None:
    task = repeating(alice, completed=True)
    assert others(alice, task) == []
    alice.patch(f"{path_of(task)}/complete")
    alice.patch(f"{path_of(task)}/complete")
    assert len(others(alice, task)) == 1


@pytest.mark.parametrize("repeat_from", ["due", "completion"])
def test_what_was_missed_is_skipped(alice: User, repeat_from: str) -> None:
    today = datetime.now(UTC).date()
    task = repeating(alice, due_date=(today - timedelta(days=10)).isoformat(), repeat_from=repeat_from)
    alice.patch(f"{path_of(task)}/complete")
    [successor] = others(alice, task)
    assert date.fromisoformat(successor["due_date"]) - today in (timedelta(days=1), timedelta(days=2))
    assert date.fromisoformat(successor["due_date"]) > datetime.fromisoformat(successor["created_at"]).date()


@pytest.mark.parametrize(
    ("due_date", "rule", "expected"),
    [
        (FAR, "Weekly", [("weekly", "2090-01-09"), ("weekly", "2090-01-16")]),
        (FAR, "MONTHLY", [("monthly", "2090-02-02"), ("monthly", "2090-03-02")]),
        (FAR, "yearly", [("yearly", "2091-01-02"), ("yearly", "2092-01-02")]),
        (FAR, "FREQ=DAILY;COUNT=3", [("FREQ=DAILY;COUNT=2", "2090-01-03"), ("FREQ=DAILY;COUNT=1", "2090-01-04")]),
        (FAR, "FREQ=DAILY;COUNT=1", []),
        (FAR, "FREQ=DAILY;UNTIL=20900103", [("FREQ=DAILY;UNTIL=20900103", "2090-01-03")]),
        (FAR, "FREQ=DAILY;UNTIL=20900102", []),
        (FAR, "FREQ=WEEKLY;BYDAY=MO,TH", [("FREQ=WEEKLY;BYDAY=MO,TH", f"2090-01-{d:02}") for d in (5, 9, 12)]),
        ("2090-01-31", "monthly", [(None, "2090-02-28"), (None, "2090-03-31"), (None, "2090-04-30")]),
        ("2090-01-02T07:30:00Z", "daily", [("daily", "2090-01-03T07:30:00Z"), ("daily", "2090-01-04T07:30:00Z")]),
        (
            "2090-01-02T07:30:00Z",
            "FREQ=DAILY;UNTIL=20900103T073000Z",
            [("FREQ=DAILY;UNTIL=20900103T073000Z", "2090-01-03T07:30:00Z")],
        ),
        ("9999-12-31", "daily", []),
    ],
)
def test_rules_and_their_ends(alice: User, due_date: str, rule: str, expected: list[tuple[str | None, str]]) -> None:
    tasks = [repeating(alice, due_date=due_date, recurrence=rule)]
    for stored, following in expected:
        alice.patch(f"{path_of(tasks[-1])}/complete")
        [successor] = others(alice, *tasks)
        assert successor["due_date"] == following
        assert stored is None or successor["recurrence"] == stored
        tasks.append(successor)
    if len(expected) < 2 or "COUNT" in rule:
        alice.patch(f"{path_of(tasks[-1])}/complete")
        assert others(alice, *tasks) == []
        assert alice.patch(f"{path_of(tasks[-1])}/complete").json["completed"] is False


@pytest.mark.parametrize(
    ("due_date", "tz", "following"),
    [
        # 9:00 in Berlin, before and after the clocks go forward on 26 March and back on 29 October.
        ("2090-03-25T08:00:00Z", "Europe/Berlin", "2090-03-26T07:00:00Z"),
        ("2090-10-28T07:00:00Z", "Europe/Berlin", "2090-10-29T08:00:00Z"),
        ("2090-03-25T08:00:00Z", None, "2090-03-26T08:00:00Z"),
        ("2090-03-25T08:00:00Z", "Asia/Karachi", "2090-03-26T08:00:00Z"),
        # 2:30 is left out on the day the clocks go forward.
        ("2090-03-25T01:30:00Z", "Europe/Berlin", "2090-03-27T00:30:00Z"),
    ],
)
@pytest.mark.parametrize("way", ["complete", "update", "batch"])
def test_a_time_stays_what_the_users_clock_shows(
    alice: User, due_date: str, tz: str | None, following: str, way: str
) -> None:
    task = repeating(alice, due_date=due_date)
    query = f"?tz={tz}" if tz else ""
    match way:
        case "complete":
            response = alice.patch(f"{path_of(task)}/complete{query}")
        case "update":
            response = alice.put(f"{path_of(task)}{query}", json={"completed": True})
        case _:
            operations = [{"op": "complete", "id": task["id"]}]
            response = alice.post(f"/api/tasks/batch{query}", json={"operations": operations})
    assert response.status_code == 200
    assert [other["due_date"] for other in others(alice, task)] == [following]


def test_bad_time_zone_is_refused_by_name(alice: User) -> None:
    task = repeating(alice)
    for method, path in (("PATCH", f"{path_of(task)}/complete"), ("PUT", path_of(task)), ("POST", "/api/tasks/batch")):
        body = {"completed": True, "operations": [{"op": "complete", "id": task["id"]}]}
        problem = assert_problem(alice.request(method, f"{path}?tz=Mars", json=body), 422)
        assert problem["errors"][0]["field"] == "tz"
    assert alice.get("/api/tasks").json == [task]


def test_recurrence_needs_a_due_date(alice: User) -> None:
    bare, task = alice.create(), repeating(alice)
    before = alice.get("/api/tasks")
    for response in (
        alice.post("/api/tasks", json={"title": "x", "recurrence": "daily"}),
        alice.post("/api/tasks", json={"title": "x", "recurrence": "daily", "due_date": None}),
        alice.patch(path_of(bare), json={"recurrence": "daily"}),
        alice.put(path_of(bare), json={"recurrence": "daily", "completed": True}),
        alice.patch(path_of(task), json={"due_date": None}),
        alice.put(path_of(task), json={"due_date": None, "completed": True}),
    ):
        problem = assert_problem(response, 422, "invalid")
        assert problem["errors"] == [{"field": "recurrence", "message": "Needs a due_date."}]
        assert problem["detail"] == "recurrence: Needs a due_date."
    after = alice.get("/api/tasks")
    assert (after.json, after.headers["ETag"]) == (before.json, before.headers["ETag"])
    assert alice.patch(path_of(task), json={"due_date": None, "recurrence": None}).status_code == 200
    assert alice.patch(path_of(bare), json={"due_date": FAR, "recurrence": "daily"}).status_code == 200


@pytest.mark.parametrize("way", ["set", "PUT", "batch update", "toggle"])
def test_of_many_completions_at_once_one_makes_the_successor(alice: User, way: str) -> None:
    for _ in range(3):
        task = repeating(alice)
        # A toggle turns back what another has done; an odd number of them completes.
        at_once(
            9,
            lambda _, task=task: COMPLETE[way](again(alice), task),
        )
        assert alice.get(path_of(task)).json["completed"] is True
        assert [other["due_date"] for other in others(alice, task)] == [NEXT]
        alice.delete("/api/tasks?status=all")


def test_completions_and_a_deletion_at_once(alice: User) -> None:
    """Whoever comes first: nothing of a deleted task comes back, and there is at most one successor."""
    for _ in range(5):
        task = repeating(alice)
        statuses: list[int] = []
        lock = threading.Lock()

        def work(number: int, task: Task = task, statuses: list[int] = statuses, lock: Any = lock) -> None:
            user = again(alice)
            answer = (
                user.patch(f"{path_of(task)}/complete", json={"completed": True})
                if number
                else user.delete(f"{path_of(task)}?permanent=true")
            )
            with lock:
                statuses.append(answer.status_code)

        at_once(5, work)
        assert set(statuses) <= {200, 404}
        assert_problem(alice.get(path_of(task)), 404)
        assert len(others(alice)) <= 1
        alice.delete("/api/tasks?status=all")


def test_only_if_it_still_has_this_version(alice: User) -> None:
    task = repeating(alice)
    stale, fresh = {"If-Match": '"7"'}, {"If-Match": f'"{task["version"]}"'}
    for path, body in ((f"{path_of(task)}/complete", None), (path_of(task), {"completed": True})):
        assert_problem(alice.patch(path, json=body or {}, headers=stale), 412)
    assert alice.get("/api/tasks").json == [task]
    response = alice.patch(f"{path_of(task)}/complete", headers=fresh)
    assert_tagged(response)
    assert response.json["version"] == 3
    assert_problem(alice.patch(f"{path_of(task)}/complete", headers=fresh), 412)
    assert len(others(alice, task)) == 1


def test_strangers_complete_nothing(alice: User, bob: User) -> None:
    task = repeating(alice)
    assert_problem(bob.patch(f"{path_of(task)}/complete"), 403)
    alice.delete(path_of(task))
    assert "trash" in assert_problem(alice.patch(f"{path_of(task)}/complete"), 404)["detail"]
    assert of_server(bob) == {}
    assert len(of_server(alice)) == 1


def test_the_feed_tells_of_successors_that_come_and_go(alice: User) -> None:
    task = repeating(alice)
    client = Client(alice)
    client.sync()
    alice.patch(f"{path_of(task)}/complete")
    [successor] = others(alice, task)
    assert {change["id"] for change in changes(client.sync())} == {task["id"], successor["id"]}
    assert client.tasks == of_server(alice)
    alice.patch(f"{path_of(task)}/complete")
    seen = {change["id"]: change["purged"] for change in changes(client.sync())}
    assert seen == {task["id"]: False, successor["id"]: True}
    assert client.tasks == of_server(alice)
    batch(alice, *[{"op": "complete", "id": task["id"]}] * 3)
    assert len(changes(client.sync())) == 2
    assert client.tasks == of_server(alice)


def test_change_and_successor_are_one_transaction(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        task = repeating(user)
        wire.rewrite = lambda sql: KILL if sql == "COMMIT" else sql
        assert_problem(user.patch(f"{path_of(task)}/complete"), 503)
        wire.rewrite = None
        assert user.get("/api/tasks").json == [task]
        wire.reset()
        user.patch(f"{path_of(task)}/complete")
        assert len(wire.queries) == 4
        assert len(others(user, task)) == 1


# Of processor time, the client's included: what a whole batch may take (OWASP API4:2023).
BATCH_SECONDS = 1.0
COUNTED = [f"FREQ=DAILY;COUNT={9999 - n}" for n in range(MAX_BATCH)]
DIFFERENT = [
    rule.removesuffix(";COUNT=9999") + end
    for n, rule in enumerate(HOSTILE * 9)
    if len(rule + (end := f";COUNT={9999 - n}" if n % 2 else f";UNTIL={9999 - n}1231")) <= MAX_LENGTH
][:MAX_BATCH]


@pytest.mark.parametrize("rules", [COUNTED, DIFFERENT], ids=["counted", "different"])
@pytest.mark.parametrize("due_date", ["1970-01-04", "1970-01-04T02:30:00Z"])
@pytest.mark.parametrize("repeat_from", ["due", "completion"])
def test_a_batch_of_hostile_rules_is_cheap(alice: User, rules: list[str], due_date: str, repeat_from: str) -> None:
    """On tasks that are half a century late, on the clocks of a zone that changes them."""
    assert len(set(rules)) == MAX_BATCH

    def run(*operations: dict[str, Any]) -> list[Task]:
        started = time.process_time()
        response = alice.post("/api/tasks/batch?tz=Europe/Berlin", json={"operations": operations})
        taken = time.process_time() - started
        assert response.status_code == 200, response.text
        assert taken < BATCH_SECONDS
        return [result["task"] for result in response.json["results"]]

    fields = {"title": "x", "due_date": due_date, "repeat_from": repeat_from}
    tasks = run(*({"op": "create", "task": fields | {"recurrence": rule}} for rule in rules))
    done = run(*({"op": "complete", "id": task["id"]} for task in tasks))
    assert all(task["completed"] for task in done)
    run(*({"op": "complete", "id": task["id"], "completed": False} for task in tasks))
    turned = [{"recurrence": f"{rule};WKST=SU", "completed": True} for rule in rules if len(rule) < MAX_LENGTH - 8]
    run(*({"op": "update", "id": task["id"], "task": turn} for task, turn in zip(tasks, turned, strict=False)))
    run(*({"op": "complete", "id": tasks[0]["id"]} for _ in range(MAX_BATCH)))


# --- Series that come out of files, and of earlier lives ---


def line(title: str, series: str | None = None, occurrence: int | None = None, **fields: Any) -> Task:
    """A task that repeats, as a file has it."""
    known = {"title": title, "due_date": FAR, "recurrence": "daily", "series": series, "occurrence": occurrence}
    return {"id": str(uuid4())} | known | fields


def places(user: User) -> dict[str, tuple[str | None, int | None]]:
    """By title: series and occurrence."""
    return {task["title"]: (task["series"], task["occurrence"]) for task in json.loads(export(user))["tasks"]}


def toggled(user: User, task: Task) -> Task:
    response = user.patch(f"{path_of(task)}/complete")
    assert response.status_code == 200, response.text
    answer: Task = response.json
    return answer


def test_a_series_comes_back_out_of_a_file(alice: User, bob: User) -> None:
    task = repeating(alice)
    toggled(alice, task)
    [successor] = others(alice, task)
    file = export(alice)
    exported = {line["id"]: (line["series"], line["occurrence"]) for line in json.loads(file)["tasks"]}
    assert exported == {task["id"]: (task["id"], 0), successor["id"]: (task["id"], 1)}
    assert b"series" not in export(alice, "csv")
    assert imported(bob, file) == (2, 0)
    assert places(bob) == places(alice)
    assert of_server(bob).keys() == exported.keys()
    for _ in range(2):
        toggled(bob, task)
        assert bob.titles() == ["Water"]
        toggled(bob, task)
        assert [other["due_date"] for other in others(bob, task)] == [NEXT]


def test_a_task_purged_and_imported_again_takes_the_successor_of_its_first_life(alice: User) -> None:
    """Whether the file says its series, as an export does, or not, as an older one."""
    for name in ("series", "nothing"):
        task = repeating(alice, name)
        before = export(alice)
        toggled(alice, task)
        [successor] = [other for other in others(alice, task) if other["title"] == name]
        after = export(alice)
        alice.delete(f"{path_of(task)}?permanent=true")
        imported(alice, after if name == "series" else before)
        if name == "series":
            toggled(alice, task)
        else:
            assert toggled(alice, task)["completed"] is True
            assert [other["id"] for other in others(alice, task) if other["title"] == name] == [successor["id"]]
            toggled(alice, task)
        assert [other["id"] for other in others(alice, task) if other["title"] == name] == []
        toggled(alice, task)
        assert len([other for other in others(alice, task) if other["title"] == name]) == 1


def test_a_place_that_is_taken_is_left_to_who_has_it(alice: User) -> None:
    """In the database, in the same file, and in a later step of a long one: the task comes, without being one of it."""
    task = repeating(alice)
    toggled(alice, task)
    series = task["id"]
    rivals = [line("rival", series, 1), line("first", series, 2), line("second", series, 2), line("own")]
    far = [{"title": "between"} for _ in range(2000)] + [line("third", series, 2)]
    assert imported(alice, json.dumps(rivals + far)) == (2005, 0)
    assert places(alice) | {"between": None} == {
        "Water": (series, 1),
        "rival": (None, None),
        "first": (series, 2),
        "second": (None, None),
        "third": (None, None),
        "own": (None, None),
        "between": None,
    }
    for rival in (rivals[0], rivals[2], rivals[3], far[-1]):
        toggled(alice, rival)
    assert len([title for title in alice.titles("?status=pending&due_after=2090-01-02") if title != "Water"]) == 4
    answer = batch(alice, *({"op": "complete", "id": rival["id"]} for rival in rivals))
    assert answer.status_code == 200, answer.text


def test_a_successor_in_whatever_state_is_taken(alice: User) -> None:
    """From a file, in the trash, completed: nothing is made beside it, and nothing fails; one by one and as a batch."""
    now = datetime.now(UTC).isoformat()
    states: list[Task] = [{}, {"deleted_at": now}, {"completed": True}, {"updated_at": now}]
    for number, state in enumerate(states):
        first = line(f"{number}")
        following = line(f"{number}", first["id"], 1, created_at="2020-01-01T00:00:00Z", **state)
        imported(alice, json.dumps([first, following]))
        before = len(of_server(alice))
        toggled(alice, first)
        assert len(of_server(alice)) == before
    alice.delete("/api/tasks?status=all")
    tasks = [line(f"{number}") for number in range(20)]
    imported(alice, json.dumps(tasks + [line("next", task["id"], 1) for task in tasks]))
    before = len(of_server(alice))
    answer = batch(alice, *({"op": "complete", "id": task["id"]} for task in tasks))
    assert answer.status_code == 200, answer.text
    assert len(of_server(alice)) == before


def test_a_task_whose_own_place_another_has_begins_a_series_of_its_own(alice: User) -> None:
    task = repeating(alice)
    stranger = line("stranger", task["id"], 0)
    imported(alice, json.dumps([stranger]))
    for _ in range(2):
        toggled(alice, task)
        assert [other["title"] for other in others(alice, task, stranger)] == ["Water"]
        toggled(alice, task)
        assert others(alice, task, stranger) == []
    toggled(alice, stranger)
    toggled(alice, task)
    assert sorted(other["title"] for other in others(alice, task, stranger)) == ["Water", "stranger"]


def test_a_series_that_can_not_be_counted_on_begins_anew(alice: User) -> None:
    last = line("last", str(uuid4()), MAX_OCCURRENCE)
    almost = line("almost", str(uuid4()), MAX_OCCURRENCE - 1)
    imported(alice, json.dumps([last, almost]))
    for task in (last, almost):
        assert batch(alice, *[{"op": "complete", "id": task["id"]}] * 3).status_code == 200
    assert sorted(other["title"] for other in others(alice, last, almost)) == ["almost", "last"]
    for task in others(alice, last, almost):
        toggled(alice, task)
    assert sorted(other["title"] for other in others(alice, last, almost)) == ["almost"] * 2 + ["last"] * 2


def test_a_reopened_task_goes_its_own_way(alice: User) -> None:
    """What becomes of its successor meanwhile is no matter: moved to the trash and back, purged, in another account."""
    task = repeating(alice)
    for touch in [*TOUCHES.values(), lambda user, path: user.delete(f"{path}?permanent=true")]:
        toggled(alice, task)
        known = {task["id"]}
        for other in others(alice, task):
            touch(alice, path_of(other))
            known.add(other["id"])
        toggled(alice, task)
        toggled(alice, task)
        toggled(alice, task)
    file = export(alice)
    alice.delete(f"{path_of(task)}?permanent=true")
    imported(alice, file)
    for _ in range(4):
        toggled(alice, task)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"series": "x", "occurrence": 1}, "series"),
        ({"series": 1, "occurrence": 1}, "series"),
        *(({"series": str(uuid4()), "occurrence": n}, "occurrence") for n in (-1, 1.5, "1", True, MAX_OCCURRENCE + 1)),
    ],
)
def test_places_that_are_none_are_refused_by_name(alice: User, fields: Task, field: str) -> None:
    response = alice.post("/api/tasks/import", json=[{"title": "x"} | fields])
    problem = assert_problem(response, 422, "invalid")
    assert problem["errors"][0]["field"] == "tasks.0"
    assert problem["errors"][0]["message"].startswith(f"{field}:")
    assert alice.titles() == []


def test_in_a_table_a_series_is_any_text(alice: User) -> None:
    assert imported(alice, "title,series,occurrence\nx,Foundation,second\n", "text/csv") == (1, 0)
    assert places(alice) == {"x": (None, None)}


def test_half_a_place_is_none(alice: User) -> None:
    halves: list[Task] = [{"series": str(uuid4())}, {"series": None, "occurrence": 1}, {"occurrence": 0}]
    imported(alice, json.dumps([line(f"{number}") | half for number, half in enumerate(halves)]))
    assert places(alice) == {f"{number}": (None, None) for number in range(3)}
