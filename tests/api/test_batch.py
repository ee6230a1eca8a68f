"""Many operations as one: in their order, all or none, at a constant price."""

import json
import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import User, again, assert_problem, revision, run_sql, settings_for, user_of
from tests.http.test_conditions import at_once
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.db.models import MAX_BATCH, QUOTA

ABSENT = "0197c9a4-6d2f-7c3e-9b41-404404404404"

Task = dict[str, Any]


def batch(user: User, *operations: Any, **options: Any) -> Any:
    return user.post("/api/tasks/batch", json={"operations": operations}, **options)


def results(user: User, *operations: Any) -> list[Task]:
    """The tasks in the answer to a batch that is done."""
    response = batch(user, *operations)
    assert response.status_code == 200, response.text
    assert [result["op"] for result in response.json["results"]] == [operation["op"] for operation in operations]
    return [result["task"] for result in response.json["results"]]


def create(title: str = "new", **fields: Any) -> Any:
    return {"op": "create", "task": {"title": title, **fields}}


def update(id: str, **fields: Any) -> Any:
    return {"op": "update", "id": id, "task": fields}


def test_every_operation(alice: User) -> None:
    ids = [alice.create(f"{n}", description="kept")["id"] for n in range(5)]
    alice.patch(f"/api/tasks/{ids[2]}/complete")
    made, changed, opened, done, trashed, gone = results(
        alice,
        create("made", tags=["a"], due_date="2026-12-31", completed=True),
        update(ids[0], title="changed", priority="HIGH"),
        {"op": "complete", "id": ids[2]},
        {"op": "complete", "id": ids[1], "completed": True},
        {"op": "delete", "id": ids[3]},
        {"op": "delete", "id": ids[4], "permanent": True},
    )
    assert (made["title"], made["tags"], made["due_date"], made["position"]) == ("made", ["a"], "2026-12-31", 6)
    assert made["completed_at"] == made["created_at"] == made["updated_at"]
    assert (changed["title"], changed["description"], changed["priority"]) == ("changed", "kept", "high")
    assert (opened["completed"], opened["completed_at"]) == (False, None)
    assert done["completed"] is True
    assert done["completed_at"] == done["updated_at"]
    assert trashed["deleted_at"] == trashed["updated_at"]
    assert gone["deleted_at"]
    assert [task["version"] for task in (made, changed, opened, done, trashed, gone)] == [7, 8, 9, 10, 11, 12]
    assert alice.get("/api/tasks").json == [made, opened, done, changed]
    assert alice.get("/api/tasks?deleted=true").json == [trashed]
    assert revision(alice.get("/api/tasks")) == 12


def test_operations_on_one_task_follow_each_other(alice: User) -> None:
    """Each result is the task as that operation left it."""
    task = alice.create("0", due_date="2026-12-31")
    id = task["id"]
    states = results(
        alice,
        update(id, title="1"),
        update(id, title="2", due_date=None),
        {"op": "complete", "id": id},
        {"op": "complete", "id": id, "completed": True},
        update(id),
        update(id, completed=False),
        {"op": "complete", "id": id},
        {"op": "delete", "id": id},
    )
    assert [state["title"] for state in states] == ["1"] + ["2"] * 7
    assert [state["due_date"] for state in states] == ["2026-12-31"] + [None] * 7
    assert [state["completed"] for state in states] == [False, False, True, True, True, False, True, True]
    # What changes nothing counts no change.
    assert [state["version"] for state in states] == [2, 3, 4, 4, 4, 5, 6, 7]
    assert [state["deleted_at"] is not None for state in states] == [False] * 7 + [True]
    assert alice.get("/api/tasks?deleted=true").json == [states[-1]]


def test_order_of_creation(alice: User) -> None:
    states = results(alice, *(create(f"{n}") for n in range(MAX_BATCH)))
    assert alice.titles("?sort=created_at&order=asc") == [f"{n}" for n in range(MAX_BATCH)]
    assert alice.titles("?sort=position") == [f"{n}" for n in range(MAX_BATCH)]
    assert [state["position"] for state in states] == list(range(1, MAX_BATCH + 1))
    assert alice.create()["position"] == MAX_BATCH + 1


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1, 10_000])
@pytest.mark.parametrize("operation", [create(), {"op": "complete", "id": ABSENT}, {}, None])
def test_too_many_are_refused_at_once(alice: User, count: int, operation: Any) -> None:
    alice.create()
    response = batch(alice, *[operation] * count)
    # One error, not one for each operation: they were not even looked at.
    problem = assert_problem(response, 422, "invalid")
    assert problem["errors"] == [{"field": "operations", "message": "Length must be between 1 and 100."}]
    assert problem["detail"].startswith("operations: ")
    assert len(response.data) < 1000
    assert revision(alice.get("/api/tasks")) == 1


def test_refusing_too_many_takes_no_time(alice: User) -> None:
    """OWASP API4:2023; within 200 ms of the processor's time, the best of three."""
    body = json.dumps({"operations": [create("x", tags=["a"], due_date="2026-12-31")] * 10_000})

    def took() -> float:
        began = time.thread_time()
        assert_problem(alice.post("/api/tasks/batch", data=body, content_type="application/json"), 422)
        return time.thread_time() - began

    assert min(took() for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    "body", [{}, {"operations": None}, {"operations": {}}, {"operations": "x"}, {"operations": 7}, [], "x", 7]
)
def test_a_body_that_is_no_batch(alice: User, body: Any) -> None:
    """OWASP ASVS 5.0 V15.3.5."""
    assert_problem(alice.post("/api/tasks/batch", json=body), 422, "invalid")


# What is wrong with the middle one of three operations -> where the answer says it is. MINE, BOBS, TRASHED: ids.
BAD: list[tuple[Any, int, str]] = [
    # RFC 9110 15.5.5: there is none, or not any more
    (update(ABSENT, title="x"), 404, ""),
    ({"op": "complete", "id": ABSENT}, 404, ""),
    ({"op": "delete", "id": ABSENT}, 404, ""),
    (update("TRASHED", title="x"), 404, ""),
    ({"op": "complete", "id": "TRASHED"}, 404, ""),
    ({"op": "delete", "id": "TRASHED"}, 404, ""),
    # OWASP API1:2023: another's
    (update("BOBS", title="x"), 403, ""),
    ({"op": "complete", "id": "BOBS"}, 403, ""),
    ({"op": "delete", "id": "BOBS", "permanent": True}, 403, ""),
    # RFC 9110 13.1.1: another version
    (update("MINE", title="x") | {"version": 99}, 412, ""),
    (update("MINE", title="x") | {"version": 2**31}, 412, ""),
    ({"op": "complete", "id": "MINE", "version": 1}, 412, ""),  # the operation before has made it another one
    ({"op": "delete", "id": "MINE", "version": 0}, 412, ""),
    # OWASP ASVS 5.0 V2.2.3: fields that don't go together, or don't suffice
    (update("MINE", recurrence="daily"), 422, ""),
    (create(recurrence="daily"), 422, ""),
    ({"op": "create", "task": {}}, 422, ".task.title"),
    ({"op": "create"}, 422, ".task"),
    ({"op": "update", "task": {"title": "x"}}, 422, ".id"),
    ({"op": "update", "id": "MINE"}, 422, ".task"),
    # OWASP ASVS 5.0 V2.2.1 and V15.3.5: values and types
    (create(""), 422, ".task.title"),
    (create(title="a\0"), 422, ".task.title"),
    (create(title="\ud800"), 422, ".task.title"),
    (update("MINE", title=None), 422, ".task.title"),
    (update("MINE", tags=["a", 7]), 422, ".task.tags.1"),
    (update("MINE", priority="urgent"), 422, ".task.priority"),
    (update("x", title="x"), 422, ".id"),
    (update("MINE", title="x") | {"version": "1"}, 422, ".version"),
    (update("MINE", title="x") | {"version": 1.5}, 422, ".version"),
    (update("MINE", title="x") | {"version": True}, 422, ".version"),
    (update("MINE", title="x") | {"version": -1}, 422, ".version"),
    (update("MINE", title="x") | {"version": 2**63}, 422, ".version"),
    ({"op": "complete", "id": "MINE", "completed": "yes"}, 422, ".completed"),
    ({"op": "complete", "id": "MINE", "completed": 1}, 422, ".completed"),
    ({"op": "complete", "id": "MINE", "completed": None}, 422, ".completed"),
    ({"op": "delete", "id": "MINE", "permanent": "true"}, 422, ".permanent"),
    ({"op": "destroy", "id": "MINE"}, 422, ".op"),
    ({"op": ["create"], "task": {"title": "x"}}, 422, ".op"),
    ({"id": "MINE", "task": {"title": "x"}}, 422, ".op"),
    ({}, 422, ".op"),
    ("create", 422, ""),
    (None, 422, ""),
]


@pytest.mark.parametrize(("bad", "status", "inside"), BAD)
def test_one_that_is_wrong_stops_all(alice: User, bob: User, bad: Any, status: int, inside: str) -> None:
    """OWASP ASVS 5.0 V2.3.3: all or nothing."""
    mine, trashed, bobs = alice.create("mine"), alice.create("trashed"), bob.create("Bob's")
    alice.delete(f"/api/tasks/{trashed['id']}")
    before = alice.get("/api/tasks/changes").json
    if isinstance(bad, dict) and "id" in bad:
        ids = {"MINE": mine["id"], "TRASHED": trashed["id"], "BOBS": bobs["id"]}
        bad = bad | {"id": ids.get(bad["id"], bad["id"])}
    for _ in range(2):  # and says so in the same words the next time
        response = batch(alice, update(mine["id"], title="changed"), bad, create("made"))
        problem = assert_problem(response, status)
        assert problem["detail"].startswith(f"operations.1{inside}: ")
        assert problem["detail"].count("operations.1") == 1
        assert problem["errors"][0]["field"] == f"operations.1{inside}"
    assert alice.get("/api/tasks/changes").json == before
    assert bob.get("/api/tasks").json == [bobs]


def test_a_version_counts_what_the_batch_has_done(alice: User) -> None:
    task = alice.create()
    states = results(
        alice, update(task["id"], title="x") | {"version": 1}, {"op": "delete", "id": task["id"], "version": 2}
    )
    assert states[-1]["version"] == 3


@pytest.mark.parametrize("permanent", [False, True])
def test_what_the_batch_has_deleted_is_gone(alice: User, permanent: bool) -> None:
    task = alice.create()
    response = batch(
        alice, {"op": "delete", "id": task["id"], "permanent": permanent}, update(task["id"], title="too late")
    )
    assert assert_problem(response, 404)["errors"][0]["field"] == "operations.1"
    assert alice.get("/api/tasks").json == [task]


def test_unknown_fields_are_refused_on_request_only(alice: User) -> None:
    operations = [create(colour="x", user_id="mallory") | {"note": "x"}]
    assert_problem(batch(alice, *operations, headers={"Prefer": "handling=strict"}), 422)
    assert alice.titles() == []
    [task] = results(alice, *operations)
    assert (task["user_id"], "colour" in task) == (alice.id, False)


def test_operations_on_what_the_batch_makes_under_the_clients_own_ids(alice: User) -> None:
    """As a client that was offline brings it: no answer to wait for in between."""
    one, two = str(uuid4()), str(uuid4())
    states = results(
        alice,
        create("1", id=one),
        create("2", id=two.upper(), due_date="2026-12-31", recurrence="daily"),
        update(one, title="one"),
        {"op": "complete", "id": two},
        {"op": "delete", "id": one},
    )
    assert [state["id"] for state in states] == [one, two, one, two, one]
    assert alice.get("/api/tasks?deleted=true").json == [states[-1]]
    assert {task["id"] for task in alice.get("/api/tasks").json} > {two}


@pytest.mark.parametrize("between", [None, False, True])
def test_an_id_is_given_once_in_a_batch(alice: User, between: bool | None) -> None:
    """Nor again after the batch itself has deleted the task (True: for good)."""
    id = str(uuid4())
    delete = [] if between is None else [{"op": "delete", "id": id, "permanent": between}]
    problem = assert_problem(batch(alice, create("1", id=id), *delete, create("2", id=id)), 409, "exists")
    assert problem["errors"][0]["field"] == f"operations.{1 + len(delete)}"
    assert problem["detail"].startswith(f"operations.{1 + len(delete)}: ")
    assert alice.titles() == []


def test_both_families(alice: User, bob: User) -> None:
    body = {"operations": [create()]}
    assert alice.post(f"/api/{alice.id}/tasks/batch/", json=body).status_code == 200
    assert_problem(bob.post(f"/api/{alice.id}/tasks/batch", json=body), 403, "forbidden")
    assert alice.titles() == ["new"]
    assert bob.titles() == []


def test_a_batch_of_any_size_takes_three_messages(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        ids = [user.create(f"{n}", due_date="2026-01-01", recurrence="daily")["id"] for n in range(50)]
        for count in (1, 50):
            wire.reset()
            results(user, *({"op": "complete", "id": id} for id in ids[:count]), *[create()] * count)
            assert len(wire.queries) == 3
            results(user, *({"op": "complete", "id": id, "completed": False} for id in ids[:count]))
            wire.reset()
            results(user, *(create(id=str(uuid4())) for _ in range(count)))
            assert len(wire.queries) == 3
        wire.reset()
        batch(user, create(), headers={"Idempotency-Key": "x"})
        assert len(wire.queries) == 5


def test_quota(alice: User, database_url: str) -> None:
    """What a batch makes and removes counts, in its order."""
    room = 3
    repeating = alice.create(due_date="2026-01-01", recurrence="daily")
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT %(user)s, gen_random_uuid(), 't', 't', n, n + 1 FROM generate_series(1, %(count)s) AS n;
        UPDATE owners SET revision = %(count)s + 1 WHERE user_id = %(user)s
    """
    run_sql(database_url, fill, {"user": alice.id, "count": QUOTA - 1 - room})
    etag = alice.get("/api/tasks?limit=1").headers["ETag"]
    problem = assert_problem(batch(alice, *[create()] * (room + 1)), 403, "quota-exceeded")
    assert problem["errors"][0]["field"] == f"operations.{room}"
    assert alice.get("/api/tasks?limit=1").headers["ETag"] == etag
    made = results(alice, *[create()] * room)
    delete = [{"op": "delete", "id": task["id"]} for task in made]
    complete = {"op": "complete", "id": repeating["id"]}
    assert_problem(batch(alice, create(), delete[0]), 403, "quota-exceeded")
    assert_problem(batch(alice, complete), 403, "quota-exceeded")
    assert_problem(alice.patch(f"/api/tasks/{repeating['id']}/complete"), 403, "quota-exceeded")
    results(alice, delete[0], create(), delete[1] | {"permanent": True}, complete)
    assert_problem(alice.post(f"/api/tasks/{made[0]['id']}/restore"), 403, "quota-exceeded")
    results(alice, {"op": "delete", "id": made[0]["id"], "permanent": True}, delete[2], create())
    assert_problem(batch(alice, create()), 403, "quota-exceeded")
    assert alice.get("/api/tasks?limit=1&count=true").headers["X-Total-Count"] == f"{QUOTA}"
    run_sql(database_url, "DELETE FROM tasks WHERE user_id = %(user)s", {"user": alice.id})


def test_batches_in_opposite_order_and_single_changes(alice: User) -> None:
    """Nobody waits in a circle, and every change counts."""
    ids = [alice.create(f"{n}")["id"] for n in range(10)]
    batches, threads, rounds = 4, 6, 10
    statuses: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        user = again(alice)
        for step in range(rounds):
            name = f"{number}.{step}"
            if number < batches:
                order = ids if number % 2 else ids[::-1]
                answers = [batch(user, *(update(id, title=name) for id in order))]
            else:
                answers = [user.patch(f"/api/tasks/{id}", json={"description": name}) for id in ids[:: number - 5 or 1]]
            with lock:
                statuses.extend(answer.status_code for answer in answers)

    at_once(threads, work)
    assert statuses == [200] * (rounds * (batches + 2 * len(ids)))
    changes = rounds * (batches + 2) * len(ids)
    tasks = alice.get("/api/tasks")
    assert revision(tasks) == len(ids) + changes
    assert len({task["title"] for task in tasks.json}) == 1  # one batch was the last, for all of them
    assert len({task["version"] for task in tasks.json}) == len(ids)
