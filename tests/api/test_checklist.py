"""A task's checklist: set as a whole, an item at a time, counted; what else becomes of it is where that is tested."""

from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import User, again, assert_problem, assert_tagged, revision, settings_for, user_of
from tests.http.test_conditions import at_once
from tests.support.wire import Wire
from todo_service import create_app

OPEN, DONE = {"title": "a", "completed": False}, {"title": "b", "completed": True}


@pytest.fixture
def task(alice: User) -> dict[str, Any]:
    return alice.create(checklist=[OPEN, DONE])


def path_of(task: dict[str, Any], n: object) -> str:
    return f"/api/tasks/{task['id']}/checklist/{n}"


def test_as_a_whole(alice: User, task: dict[str, Any]) -> None:
    assert (task["checklist"], task["checklist_done"], task["checklist_total"]) == ([OPEN, DONE], 1, 2)
    path = f"/api/tasks/{task['id']}"
    for items in ([DONE, OPEN, DONE], [DONE], []):
        changed = alice.patch(path, json={"checklist": items}).json
        assert (changed["checklist"], changed["checklist_total"]) == (items, len(items))
        assert changed["checklist_done"] == items.count(DONE)
        assert alice.get(path).json == changed
        assert alice.get("/api/tasks").json == [changed]
        assert alice.get("/api/tasks/changes").json["changes"][-1]["task"] == changed
        # A whole task may be sent back, counts and all.
        assert alice.put(path, json=changed | {"title": "x"}).json["checklist"] == items
    batch = {"operations": [{"op": "update", "id": task["id"], "task": {"checklist": [OPEN]}}]}
    [result] = alice.post("/api/tasks/batch", json=batch).json["results"]
    assert result["task"] == alice.get(path).json
    assert result["task"]["checklist"] == [OPEN]


@pytest.mark.parametrize(
    ("n", "body", "checklist"),
    [
        (0, {"completed": True}, [OPEN | {"completed": True}, DONE]),
        (1, {"completed": False}, [OPEN, DONE | {"completed": False}]),
        (1, {"title": " ß; 'x' "}, [OPEN, DONE | {"title": "ß; 'x'"}]),
        (0, {"title": "x", "completed": True, "id": 7}, [{"title": "x", "completed": True}, DONE]),
        (0, {"completed": False}, [OPEN, DONE]),
    ],
)
@pytest.mark.parametrize("family", ["/api/tasks", "/api/{user}/tasks"])
def test_one_item(
    alice: User, task: dict[str, Any], family: str, n: int, body: dict[str, Any], checklist: list[Any]
) -> None:
    path = f"{family.format(user=alice.id)}/{task['id'].upper()}/checklist/{n}"
    response = alice.patch(path, json=body)
    assert response.status_code == 200, response.text
    assert_tagged(response)
    changed = response.json
    made = {"checklist": checklist, "checklist_done": sum(item["completed"] for item in checklist)}
    assert changed == task | made | {name: changed[name] for name in ("updated_at", "version")}
    assert (changed["version"], changed["updated_at"] > task["updated_at"]) == (2, True)
    assert alice.get(f"/api/tasks/{task['id']}").json == changed


def test_nothing_to_set(alice: User, task: dict[str, Any]) -> None:
    assert alice.patch(path_of(task, 1), json={}).json == task
    assert revision(alice.get("/api/tasks")) == 1


@pytest.mark.parametrize("n", [2, 49, 50, 2**31, "9" * 5000, "-1", "x", "1.0", "\u0661"])
@pytest.mark.parametrize("body", [{"completed": True}, {}])
def test_no_such_item(alice: User, task: dict[str, Any], n: object, body: dict[str, Any]) -> None:
    problem = assert_problem(alice.patch(path_of(task, n), json=body), 404, "not-found")
    assert "no item" in problem["detail"]
    assert alice.get("/api/tasks").json == [task]


@pytest.mark.parametrize(
    "body",
    [
        *({"title": value} for value in ["", " ", "x" * 201, None, 7, "a\nb", "a\0"]),
        *({"completed": value} for value in [None, "yes", 1]),
        *([], "x"),
    ],
)
def test_what_no_item_can_be(alice: User, task: dict[str, Any], body: Any) -> None:
    assert_problem(alice.patch(path_of(task, 0), json=body), 422, "invalid")
    assert alice.get("/api/tasks").json == [task]


def test_unknown_names_in_items(alice: User, task: dict[str, Any]) -> None:
    """Ignored, unless the client asks to be told."""
    items, strict = [OPEN, OPEN | {"done": True}], {"Prefer": "handling=strict"}
    problem = assert_problem(alice.post("/api/tasks", json={"title": "x", "checklist": items}, headers=strict), 422)
    assert problem["errors"] == [{"field": "checklist.1.done", "message": "Unknown field."}]
    assert_problem(alice.patch(path_of(task, 0), json={"done": True}, headers=strict), 422)
    assert alice.create(checklist=items)["checklist"] == [OPEN, OPEN]


def test_of_others_and_of_none(alice: User, bob: User, task: dict[str, Any]) -> None:
    for body in ({"completed": True}, {}):
        assert_problem(bob.patch(path_of(task, 0), json=body), 403, "forbidden")
        assert_problem(bob.patch(path_of(task, 9), json=body), 403, "forbidden")
        for id in (str(uuid4()), "x"):
            assert_problem(alice.patch(path_of({"id": id}, 0), json=body), 404)
    assert_problem(bob.patch(f"/api/{alice.id}/tasks/{task['id']}/checklist/0", json={}), 403)
    alice.delete(f"/api/tasks/{task['id']}")
    assert "trash" in assert_problem(alice.patch(path_of(task, 0), json={"completed": True}), 404)["detail"]
    assert alice.get("/api/tasks?deleted=true").json[0]["checklist"] == [OPEN, DONE]


@pytest.mark.parametrize("body", [{"completed": True}, {}])
def test_only_if_it_still_has_this_version(alice: User, task: dict[str, Any], body: dict[str, Any]) -> None:
    etag = alice.get(f"/api/tasks/{task['id']}").headers["ETag"]
    for tag in ('"7"', '"1-5f0c93b1a2d4"'):
        assert_problem(alice.patch(path_of(task, 0), json=body, headers={"If-Match": tag}), 412)
        assert_problem(alice.patch(path_of(task, 9), json=body, headers={"If-Match": tag}), 412)
    assert alice.patch(path_of(task, 0), json=body, headers={"If-Match": '"1"'}).status_code == 200
    assert alice.patch(path_of(task, 0), json=body, headers={"If-Match": etag}).status_code == (412 if body else 200)


def test_items_at_once(alice: User) -> None:
    """Each client ticks off another one, and none of them takes back what another has done."""
    task = alice.create(checklist=[{"title": f"{n}"} for n in range(50)])

    def work(number: int) -> None:
        user = again(alice)
        for n in range(number, 50, 8):
            assert user.patch(path_of(task, n), json={"completed": True}).status_code == 200

    at_once(8, work)
    done = alice.get(f"/api/tasks/{task['id']}").json
    assert (done["checklist_done"], done["checklist_total"], done["version"]) == (50, 50, 51)


@pytest.mark.once
def test_one_message(wire: Wire) -> None:
    carol = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
    task = carol.create(checklist=[OPEN])
    for n, headers in enumerate([{}, {"If-Match": "*"}, {"If-Match": f'"{task["version"] + 2}"'}, *[{}] * 4]):
        wire.reset()
        response = carol.patch(path_of(task, 0), json={"completed": n % 2 == 0}, headers=headers)
        assert (response.status_code, response.json["checklist_done"]) == (200, (n + 1) % 2)
        assert len(wire.queries) == 1, wire.queries
    assert "EXECUTE" in wire.queries[0]
