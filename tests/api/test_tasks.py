"""One task: create, read, change, complete, trash, restore, delete; and what every field takes and refuses.

Tables of values: a comment above a group of rows names the source of its rule.
"""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from string import ascii_letters, digits
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from flask import Flask
from werkzeug.datastructures import Headers

from tests.conftest import (
    User,
    again,
    assert_problem,
    assert_tagged,
    await_locks,
    revision,
    run_sql,
    settings_for,
    user_of,
)
from todo_service import create_app
from todo_service.db.models import QUOTA

DONE_ITEM = {"title": "x", "completed": True}
ABSENT = "/api/tasks/0197c9a4-6d2f-7c3e-9b41-404404404404"


def now(text: str) -> bool:
    """`text` is an RFC 3339 time in UTC of a moment ago."""
    return text.endswith("Z") and abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(minutes=1)


def test_title_only_creates_a_whole_task(alice: User) -> None:
    response = alice.post("/api/tasks", json={"title": "  Buy milk  "})
    task = response.json
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert_tagged(response)
    assert response.headers["Cache-Control"] == "no-store"
    assert uuid.UUID(task["id"]).version == 7
    assert now(task["created_at"])
    assert task.pop("created_at") == task.pop("updated_at")
    del task["id"]
    assert task == {
        "user_id": alice.id,
        "title": "Buy milk",
        "description": None,
        "completed": False,
        "completed_at": None,
        "priority": "medium",
        "due_date": None,
        "category": None,
        "tags": [],
        "checklist": [],
        "checklist_done": 0,
        "checklist_total": 0,
        "recurrence": None,
        "repeat_from": "due",
        "position": 1,
        "deleted_at": None,
        "version": 1,
    }


@pytest.mark.parametrize(
    ("field", "sent", "kept"),
    [
        ("title", "x" * 200, "x" * 200),
        ("title", "😀" * 200, "😀" * 200),
        ("title", " دودھ خریدیں ", "دودھ خریدیں"),
        ("description", "", ""),
        ("description", None, None),
        ("description", "  as it is \n", "  as it is \n"),
        ("description", "d" * 2000, "d" * 2000),
        ("completed", True, True),
        ("priority", "low", "low"),
        ("priority", "HIGH", "high"),
        ("priority", None, "medium"),
        ("due_date", None, None),
        ("due_date", "2026-12-31", "2026-12-31"),
        ("due_date", "2028-02-29", "2028-02-29"),
        ("due_date", "1970-01-01", "1970-01-01"),
        ("due_date", "9999-12-31", "9999-12-31"),
        ("due_date", "2026-12-31T18:00:00Z", "2026-12-31T18:00:00Z"),
        ("due_date", "2026-12-31t18:00:00z", "2026-12-31T18:00:00Z"),
        ("due_date", "2026-12-31T18:00:00.123Z", "2026-12-31T18:00:00.123000Z"),
        ("due_date", "2026-12-31T18:00:00.123456789Z", "2026-12-31T18:00:00.123456Z"),
        ("due_date", "2026-12-31T23:30:00-05:00", "2027-01-01T04:30:00Z"),
        ("due_date", "2026-12-31T18:00+05:30", "2026-12-31T12:30:00Z"),
        ("category", "Groceries", "Groceries"),
        ("category", f" {'ß' * 50}\n", "ß" * 50),
        ("category", "=a, b; \\n", "=a, b; \\n"),
        *(("category", value, None) for value in [None, "", " \u3000"]),
        ("tags", None, []),
        ("tags", [" home ", "Work", "HOME", "work"], ["home", "Work"]),
        ("tags", ["t" * 50] + [str(n) for n in range(19)], ["t" * 50] + [str(n) for n in range(19)]),
        ("checklist", None, []),
        ("checklist", [{"title": " a \n"}], [{"title": "a", "completed": False}]),
        ("checklist", [DONE_ITEM | {"id": 7, "done": True}, DONE_ITEM], [DONE_ITEM, DONE_ITEM]),
        ("checklist", [{"title": "ß" * 200}] * 50, [{"title": "ß" * 200, "completed": False}] * 50),
        ("recurrence", None, None),
        ("recurrence", "daily", "daily"),
        ("recurrence", "Weekly", "weekly"),
        ("recurrence", "RRULE:byday=mo;freq=weekly", "FREQ=WEEKLY;BYDAY=MO"),
        ("repeat_from", "completion", "completion"),
        ("repeat_from", "due", "due"),
        ("repeat_from", None, "due"),
        ("position", 0, 0),
        ("position", -1.5, -1.5),
        ("position", 10**12, 10**12),
    ],
)
def test_field_is_kept(alice: User, field: str, sent: Any, kept: Any) -> None:
    others = {"due_date": "2026-12-31"} if field == "recurrence" else {}
    created = alice.create(**{field: sent}, **others)
    assert created[field] == kept
    assert alice.get(f"/api/tasks/{created['id']}").json == created
    # No two tasks have one position.
    alice.delete(f"/api/tasks/{created['id']}")
    changed = alice.patch(f"/api/tasks/{alice.create(**others)['id']}", json={field: sent}).json
    assert changed[field] == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        # OWASP ASVS 5.0 V2.2.1: lengths, lists of what is allowed
        *(("title", value) for value in ["", "   ", "\u3000", "x" * 201, "😀" * 201, None]),
        *(("description", value) for value in ["d" * 2001, "😀" * 2001]),
        *(("priority", value) for value in ["urgent", "", "high "]),
        *(("repeat_from", value) for value in ["", "Due", "start"]),
        ("category", "x" * 51),
        *(("tags", value) for value in [[""], ["  "], ["t" * 51], [None], [str(n) for n in range(21)]]),
        ("checklist", [DONE_ITEM] * 51),
        *(("checklist", [DONE_ITEM, {"title": title}]) for title in ["", " ", "x" * 201, None, 7, "a\nb", "a\rb"]),
        *(("checklist", [{"title": "x", "completed": value}]) for value in [None, "yes", 1]),
        *(("checklist", json.loads(f"[{item}]")) for item in ["null", '"x"', "{}", '{"completed": true}', "[]"]),
        ("completed", None),
        # OWASP ASVS 5.0 V15.3.5: no other type is taken for the right one
        *(("title", value) for value in [7, True, ["a"], {"a": 1}]),
        *(("description", value) for value in [7, False, []]),
        *(("completed", value) for value in ["yes", "true", "on", 1, 0, [], 1.0]),
        *(("priority", value) for value in [1, []]),
        *(("due_date", value) for value in [0, 1.9, True, [], {}]),
        *(("category", value) for value in [7, True, ["a"], {"a": 1}]),
        *(("tags", value) for value in ["home", [1], {"a": 1}, [["a"]]]),
        *(("checklist", value) for value in ["x", 7, {}, {"0": DONE_ITEM}]),
        *(("recurrence", value) for value in [7, []]),
        *(("repeat_from", value) for value in [1, []]),
        *(("position", value) for value in ["1", "1_0", "१२", True, [], {}]),
        # OWASP ASVS 5.0 V1.4.2: numbers out of range
        *(("position", value) for value in [1e13, -1e13, 2**63, -(2**63), 10**400]),
        # PostgreSQL manual 8.3: no NUL in a text
        *((name, "a\0b") for name in ("title", "description", "priority", "due_date", "recurrence", "repeat_from")),
        *(("category", value) for value in ["a\0", "\ud800"]),
        *(("checklist", [{"title": value}]) for value in ["a\0", "\ud800"]),
        ("tags", ["a\0"]),
        # RFC 3629 3 and RFC 8259 8.2: no surrogate alone
        *((name, "\ud800") for name in ("title", "description", "priority", "due_date", "recurrence", "repeat_from")),
        *(("description", "\udc00x"), ("title", "x\udfff\ud83d"), ("tags", ["\udfff"])),
        # RFC 3339 5.6: the form of dates and times
        *(("due_date", value) for value in ["", "tomorrow", "20261231", "26-01-01", "10000-01-01", "२०२६-१२-३१"]),
        *(("due_date", value) for value in ["2026-12-31T18:00:00", "2026-12-31 18:00", "2026-12-31T18:00:00+25:00"]),
        # RFC 3339 5.7: what lies beyond the end of a month or a day, and leap seconds
        *(("due_date", value) for value in ["2026-02-30", "2026-13-01", "2027-02-29", "2026-00-10"]),
        *(("due_date", value) for value in ["2026-12-31T24:00:00Z", "2026-12-31T23:59:60Z", "2026-12-31T23:60:00Z"]),
        # README, years 1970 to 9999: also when the offset leads out of them
        *(("due_date", value) for value in ["1969-12-31", "0001-01-01", "0000-01-01T00:00:00Z"]),
        *(("due_date", value) for value in ["1970-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"]),
        *(("due_date", value) for value in ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"]),
        # RFC 5545 3.3.10: rules
        *(("recurrence", value) for value in ["", "none", "FREQ=HOURLY", "FREQ=SECONDLY", "FREQ=WEEKLY;COUNT=0"]),
        *(("recurrence", value) for value in ["FREQ=DAILY;COUNT=1000000000", "FREQ=YEARLY;BYSETPOS=366;BYMONTH=2"]),
        # OWASP ASVS 5.0 V2.2.3: a good rule, but there is nothing to count from
        *(("recurrence", value) for value in ["daily", "FREQ=WEEKLY;BYDAY=MO"]),
    ],
)
def test_bad_value_is_refused_by_name_and_changes_nothing(alice: User, field: str, value: Any) -> None:
    task = alice.create()
    body = json.dumps({"title": "Other", field: value})
    headers = {"Content-Type": "application/json"}
    for response in (
        alice.post("/api/tasks", data=body, headers=headers),
        alice.patch(f"/api/tasks/{task['id']}", data=body, headers=headers),
    ):
        problem = assert_problem(response, 422, "invalid")
        assert problem["errors"][0]["field"].split(".")[0] == field
        assert problem["detail"].startswith(f"{field}")
    assert alice.get("/api/tasks").json == [task]


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        *((text, 400, "invalid-json") for text in ("NaN", "Infinity", "-Infinity")),
        *((text, 422, "invalid") for text in ("1" * 5000, "1e999")),
    ],
)
def test_number_that_is_none_is_refused(alice: User, text: str, status: int, code: str) -> None:
    """RFC 8259, section 6; CVE-2020-10735."""
    body = f'{{"title": "x", "position": {text}}}'
    assert_problem(alice.post("/api/tasks", data=body, content_type="application/json"), status, code)


def test_missing_title_is_refused_by_name(alice: User) -> None:
    assert assert_problem(alice.post("/api/tasks", json={}), 422)["errors"][0]["field"] == "title"


# Ways to create a task with fields; those with the position take a unit of work.
CREATE: dict[str, Callable[[User, dict[str, Any]], Any]] = {
    "POST": lambda user, task: user.post("/api/tasks", json=task),
    "POST, other family": lambda user, task: user.post(f"/api/{user.id}/tasks/", json=task),
    "POST, position": lambda user, task: user.post("/api/tasks", json={"position": 7} | task),
    "batch": lambda user, task: user.post("/api/tasks/batch", json=one_operation({"op": "create", "task": task})),
}


@pytest.mark.parametrize("way", CREATE)
@pytest.mark.parametrize("make", [lambda: str(uuid.uuid4()), lambda: str(uuid.uuid4()).upper()], ids=["low", "UP"])
def test_an_id_of_the_clients_own(alice: User, bob: User, way: str, make: Callable[[], str]) -> None:
    """The same of another user is no problem: theirs are apart."""
    id = make()
    for user in (alice, bob):
        response = CREATE[way](user, {"title": user.id, "id": id})
        assert response.status_code in (200, 201), response.text
        created = response.json["results"][0]["task"] if way == "batch" else response.json
        assert created["id"] == id.lower()
        assert response.headers.get("Location", f"/api/tasks/{id.lower()}").endswith(f"/{id.lower()}")
        assert (created["version"], user.get(f"/api/tasks/{id}").json) == (1, created)
    assert (alice.titles(), bob.titles()) == ([alice.id], [bob.id])


@pytest.mark.parametrize("way", CREATE)
@pytest.mark.parametrize("state", ["live", "in the trash", "deleted for good"])
def test_an_id_that_is_taken(alice: User, way: str, state: str) -> None:
    """What was deleted for good doesn't come back either by what a client sends again that was away meanwhile."""
    id = str(uuid.uuid4())
    alice.create("other")
    alice.create(id=id)
    if state != "live":
        alice.delete(f"/api/tasks/{id}?permanent={'true' if state == 'deleted for good' else 'false'}")
    tasks = [alice.get(f"/api/tasks?deleted={flag}").json for flag in ("true", "false")]
    problem = assert_problem(CREATE[way](alice, {"title": "again", "id": id.upper()}), 409, "exists")
    assert [error["field"] for error in problem["errors"]] == ["operations.0" if way == "batch" else "id"]
    assert [alice.get(f"/api/tasks?deleted={flag}").json for flag in ("true", "false")] == tasks


@pytest.mark.parametrize("way", CREATE)
@pytest.mark.parametrize(
    "id", ["", "x", None, 7, -1, 1.5, True, [], {}, "temp-1", str(uuid.UUID(int=0)), f"{{{ABSENT[-36:]}}}"]
)
def test_what_is_no_id_is_ignored(alice: User, way: str, id: Any) -> None:
    """Typed clients send something where they have none yet."""
    for title in ("one", "two"):
        assert CREATE[way](alice, {"title": title, "id": id}).status_code in (200, 201)
    assert [uuid.UUID(task["id"]).version for task in alice.get("/api/tasks").json] == [7, 7]
    strict = alice.post("/api/tasks", json={"title": "x", "id": id}, headers={"Prefer": "handling=strict"})
    nothing = id is None or id == str(uuid.UUID(int=0))
    assert strict.status_code == (201 if nothing else 422), strict.text
    assert nothing or strict.json["errors"] == [{"field": "id", "message": "Not a valid UUID."}]


def test_an_id_with_a_key(alice: User) -> None:
    task, key = {"title": "x", "id": str(uuid.uuid4())}, {"Idempotency-Key": "one"}
    first, second = (alice.post("/api/tasks", json=task, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code, second.json) == (201, 201, first.json)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert_problem(alice.post("/api/tasks", json=task, headers={"Idempotency-Key": "two"}), 409, "exists")
    # It isn't kept: with the key another task can be made.
    assert alice.post("/api/tasks", json={"title": "y"}, headers={"Idempotency-Key": "two"}).status_code == 201


def test_one_id_at_once(alice: User) -> None:
    """Sixteen times, by ways of both kinds: one is made, and nothing but that has happened."""
    id = str(uuid.uuid4())
    alice.create("before")
    ways = [CREATE["POST"], CREATE["POST, position"]]

    def work(number: int) -> int:
        status: int = ways[number % 2](again(alice), {"title": f"{number}", "id": id}).status_code
        return status

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(work, range(16))) == [201] + [409] * 15
    assert len(alice.titles()) == 2
    assert revision(alice.get("/api/tasks")) == 2


def test_a_users_first_task_with_an_id_of_their_own_at_once(alice: User) -> None:
    id = str(uuid.uuid4())
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: CREATE["POST"](again(alice), {"title": "x", "id": id}).status_code, range(4)))
    assert sorted(done) == [201, 409, 409, 409]
    assert (alice.get("/api/tasks").json[0]["id"], revision(alice.get("/api/tasks"))) == (id, 1)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_update_merges(alice: User, method: str) -> None:
    task = alice.create("Paint", description="the door", priority="high", due_date="2026-12-31", tags=["home"])
    response = alice.request(method, f"/api/tasks/{task['id']}", json={"title": "Paint it", "due_date": None})
    assert response.status_code == 200
    assert_tagged(response)
    assert response.json["version"] > task["version"]
    assert response.json["updated_at"] > task["updated_at"]
    changed = {"title": "Paint it", "due_date": None}
    stamps = {name: response.json[name] for name in ("version", "updated_at")}
    assert response.json == task | changed | stamps


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_empty_update_changes_nothing(alice: User, method: str) -> None:
    task = alice.create()
    assert alice.request(method, f"/api/tasks/{task['id']}", json={}).json == task
    assert revision(alice.get("/api/tasks")) == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_due_date_of_a_task_that_repeats_stays(alice: User, method: str) -> None:
    task = alice.create(due_date="2026-12-31", recurrence="weekly")
    path = f"/api/tasks/{task['id']}"
    problem = assert_problem(alice.request(method, path, json={"due_date": None}), 422, "invalid")
    assert problem["errors"] == [{"field": "recurrence", "message": "Needs a due_date."}]
    assert alice.get(path).json == task
    both = alice.request(method, path, json={"due_date": None, "recurrence": None}).json
    assert both["due_date"] is both["recurrence"] is None


def test_due_date_changes_its_form(alice: User) -> None:
    path = f"/api/tasks/{alice.create(due_date='2026-12-31')['id']}"
    assert alice.patch(path, json={"due_date": "2026-12-31T10:00:00Z"}).json["due_date"] == "2026-12-31T10:00:00Z"
    assert alice.patch(path, json={"due_date": "2026-12-30"}).json["due_date"] == "2026-12-30"


FORGED_ID = "0197c9a4-6d2f-7c3e-9b41-404404404404"
FORGED_TIME = "2001-01-01T00:00:00Z"
# What a client may not set: fields of the answers, columns of the tables, and what nobody knows. None of the values
# occurs otherwise.
SERVER_SET = {
    "id": FORGED_ID,
    "user_id": "mallory",
    **dict.fromkeys(("created_at", "updated_at", "completed_at", "deleted_at", "due_key", "due_at"), FORGED_TIME),
    "version": 987654,
    "revision": 987654,
    "last_position": 987654,
    "occurrence": 987654,
    "series": FORGED_ID,
    "due_on": "2001-01-01",
    **dict.fromkeys(("title_key", "description_key"), "mallory"),
    "tag_keys": ["mallory"],
}
UNKNOWN = {"owner": "mallory", "userId": "mallory", "is_completed": True, "__proto__": {"x": 1}}
FORGED = SERVER_SET | UNKNOWN
# A new task's id may be the client's.
FORGED_NEW = {name: value for name, value in FORGED.items() if name != "id"}


def one_operation(fields: dict[str, Any]) -> dict[str, Any]:
    return {"operations": [fields]}


# Every way to send a task, or a part of one, to /api/tasks…: method, path and body, {id} being that of a task.
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "POST": ("POST", "", {"title": "Two"} | FORGED_NEW),
    "PUT": ("PUT", "/{id}", {"title": "Two"} | FORGED),
    "PATCH": ("PATCH", "/{id}", {"title": "Two"} | FORGED),
    "complete": ("PATCH", "/{id}/complete", {"completed": True} | FORGED),
    "batch": ("POST", "/batch", one_operation({"op": "create", "task": {"title": "Two"}}) | FORGED),
    "batch, create": ("POST", "/batch", one_operation({"op": "create", "task": {"title": "Two"} | FORGED_NEW})),
    "batch, update": (
        "POST",
        "/batch",
        one_operation({"op": "update", "id": "{id}", "task": {"title": "Two"} | FORGED}),
    ),
}


def send(user: User, way: str, id: str, **options: Any) -> Any:
    method, path, body = WAYS[way]
    sent = json.dumps(body).replace("{id}", id)
    return user.request(
        method, f"/api/tasks{path.format(id=id)}", data=sent, content_type="application/json", **options
    )


@pytest.mark.parametrize("way", WAYS)
def test_fields_that_are_not_the_clients_are_ignored(alice: User, database_url: str, way: str) -> None:
    """OWASP API3:2023, OWASP ASVS 5.0 V15.3.3: nothing of them is answered, and nothing is stored."""
    task = alice.create("One")
    response = send(alice, way, task["id"])
    assert response.status_code in (200, 201), response.text
    answered = response.json["results"][0]["task"] if "batch" in way else response.json
    assert answered.keys() == task.keys()
    assert (answered["user_id"], answered["version"]) == (alice.id, 2)
    stored = (
        "SELECT row_to_json(tasks)::text || row_to_json(owners)::text FROM tasks, owners WHERE owners.user_id = %(u)s"
    )
    rows = run_sql(database_url, f"{stored} AND tasks.user_id IN (owners.user_id, 'mallory')", {"u": alice.id})
    assert len(rows) == (2 if answered["id"] != task["id"] else 1)
    for forged in (FORGED_ID, "mallory", "2001-01-01", "987654"):
        assert not any(forged in row for (row,) in rows)


@pytest.mark.parametrize("way", WAYS)
def test_strict_handling_refuses_them(alice: User, way: str) -> None:
    """RFC 7240, section 4.4: each of them is named, and nothing is changed."""
    task = alice.create("One")
    response = send(alice, way, task["id"], headers={"Prefer": "return=representation, handling=strict"})
    errors = assert_problem(response, 422)["errors"]
    forged = FORGED_NEW if way in ("POST", "batch, create") else FORGED
    assert {error["field"].rpartition(".")[2] for error in errors} == forged.keys()
    assert {error["message"] for error in errors} == {"Unknown field."}
    assert response.headers["Preference-Applied"] == "handling=strict"
    assert alice.get("/api/tasks").json == [task]
    assert revision(alice.get("/api/tasks")) == 1


@pytest.mark.parametrize(
    ("preferences", "strict"),
    [
        (["handling=strict;x=y"], True),
        (["handling=strict ; x=y; z"], True),
        (['handling="strict"; x="a,b"'], True),
        (["Handling = strict"], True),
        (["respond-async, handling=strict, wait=10"], True),
        (["respond-async", "handling=strict"], True),
        (['return="a, handling=lenient", handling=strict'], True),
        (["handling=strict, handling=lenient"], True),
        (["handling=lenient, handling=strict"], False),
        (["handling=lenient;x=strict"], False),
        (["handling"], False),
        (["strict"], False),
        (["x; handling=strict"], False),
        (['x="a, handling=strict, b"'], False),
        (['x="a\\", handling=strict, b"'], False),
        (['"handling=strict"'], False),
        (['x="handling=strict'], False),
        (["xhandling=strict"], False),
        ([""], False),
        ([",;=,"], False),
    ],
)
def test_preferences_are_read_as_they_are_written(alice: User, preferences: list[str], strict: bool) -> None:
    """RFC 7240, section 2: parameters, quoted values; of a preference that is given twice, the first counts."""
    headers = Headers([("Prefer", preference) for preference in preferences])
    headers.add("Authorization", f"Bearer {alice.token}")
    response = alice.client.post("/api/tasks", json={"title": "x", "typo": 1}, headers=headers)
    assert response.status_code == (422 if strict else 201)
    assert response.headers.get("Preference-Applied") == ("handling=strict" if strict else None)


def test_strict_handling_covers_parameters(alice: User) -> None:
    strict = {"Prefer": "handling=strict"}
    assert_problem(alice.get("/api/tasks?_=17", headers=strict), 422)
    assert alice.get("/api/tasks?_=17").status_code == 200
    assert "Preference-Applied" not in alice.get("/api/tasks?limit=1").headers


def test_a_whole_task_may_be_sent_back(alice: User) -> None:
    task = alice.create(
        description="x",
        category="y",
        tags=["a"],
        due_date="2026-12-31T10:00:00Z",
        recurrence="daily",
        repeat_from="completion",
    )
    answer = alice.put(f"/api/tasks/{task['id']}", json=task | {"title": "Changed"}).json
    assert answer == task | {"title": "Changed", "version": answer["version"], "updated_at": answer["updated_at"]}


@pytest.mark.parametrize("nothing", [{}, {"json": {}}, {"content_type": "application/json"}])
def test_complete_without_a_value_toggles(alice: User, nothing: dict[str, Any]) -> None:
    path = f"/api/tasks/{alice.create()['id']}/complete"
    done = alice.patch(path, **nothing).json
    assert done["completed"] is True
    assert now(done["completed_at"])
    open_again = alice.patch(path, **nothing).json
    assert open_again["completed"] is False
    assert open_again["completed_at"] is None


def test_complete_with_a_value_sets_and_may_be_repeated(alice: User) -> None:
    path = f"/api/tasks/{alice.create()['id']}/complete"
    first, second = (alice.patch(path, json={"completed": True}).json for _ in range(2))
    assert first["completed"] is True
    assert first == second
    assert alice.patch(path, json={"completed": False}).json["completed"] is False


@pytest.mark.parametrize("value", [None, "true", 1])
def test_complete_refuses_what_is_no_boolean(alice: User, value: Any) -> None:
    assert_problem(alice.patch(f"/api/tasks/{alice.create()['id']}/complete", json={"completed": value}), 422)


def test_completed_through_update_keeps_its_first_time(alice: User) -> None:
    path = f"/api/tasks/{alice.create()['id']}"
    first = alice.put(path, json={"completed": True}).json
    assert now(first["completed_at"])
    assert alice.put(path, json={"completed": True, "title": "x"}).json["completed_at"] == first["completed_at"]
    assert alice.put(path, json={"completed": False}).json["completed_at"] is None


def test_trash_and_back(alice: User) -> None:
    task = alice.create()
    path = f"/api/tasks/{task['id']}"
    trashed = alice.delete(path)
    assert trashed.status_code == 200
    assert now(trashed.json["deleted_at"])
    assert alice.titles() == []
    assert alice.get("/api/tasks?deleted=true").json == [trashed.json]
    for method, suffix in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("PATCH", "/complete")):
        detail = assert_problem(alice.request(method, path + suffix, json={"title": "x"} | {}), 404)["detail"]
        assert "trash" in detail
    restored = alice.post(f"{path}/restore")
    assert restored.status_code == 200
    assert restored.json == task | {name: restored.json[name] for name in ("version", "updated_at")}
    assert alice.post(f"{path}/restore").json == restored.json
    assert alice.get("/api/tasks").json == [restored.json]


@pytest.mark.parametrize("trashed_first", [False, True])
def test_deleted_for_good(alice: User, trashed_first: bool) -> None:
    path = f"/api/tasks/{alice.create()['id']}"
    if trashed_first:
        alice.delete(path)
    gone = alice.delete(f"{path}?permanent=true")
    assert gone.status_code == 200
    assert now(gone.json["deleted_at"])
    assert alice.titles() == alice.titles("?deleted=true") == []
    for method, suffix in (("GET", ""), ("DELETE", "?permanent=true"), ("POST", "/restore")):
        assert_problem(alice.request(method, path + suffix), 404)


def test_many_to_the_trash(alice: User, bob: User) -> None:
    bob.create("Bob's", completed=True)
    for n in range(4):
        alice.create(f"{n}", completed=n % 2 == 0)
    assert_problem(alice.delete("/api/tasks"), 422)
    assert_problem(alice.delete("/api/tasks?status=pending"), 422)
    assert alice.delete("/api/tasks?status=completed").json == {"deleted": 2}
    assert alice.titles() == ["3", "1"]
    assert alice.delete("/api/tasks?status=all").json == {"deleted": 2}
    assert alice.delete("/api/tasks?status=all").json == {"deleted": 0}
    assert alice.titles() == []
    assert len(alice.titles("?deleted=true")) == 4
    assert bob.titles() == ["Bob's"]


def test_new_task_goes_to_the_end(alice: User) -> None:
    assert [alice.create()["position"], alice.create(position=7.5)["position"], alice.create()["position"]] == [
        1,
        7.5,
        8,
    ]
    last = alice.patch(f"/api/tasks/{alice.create(position=0)['id']}", json={"position": None}).json
    assert last["position"] == 9


@pytest.mark.parametrize(
    "id",
    [
        *("1", "x", "%00", "%F0%9F%98%80", "0197c9a46d2f7c3e9b415f0d2a7e8c10", "0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c1g"),
        *("{0197c9a4-6d2f-7c3e-9b41-404404404404}", "urn:uuid:0197c9a4-6d2f-7c3e-9b41-404404404404", "' OR 1=1 --"),
        *("0197c9a4-6d2f-7c3e-9b41-404404404404%0A", "x" * 4000),
    ],
)
@pytest.mark.parametrize(
    ("method", "suffix"),
    [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("PATCH", "/complete"), ("POST", "/restore")],
)
def test_malformed_id_is_not_found(alice: User, id: str, method: str, suffix: str) -> None:
    """RFC 9562, section 4: one form of an id, and no other."""
    assert_problem(
        alice.request(method, f"/api/tasks/{id}{suffix}", json={"title": "x", "completed": True}), 404, "not-found"
    )


def test_upper_case_id_is_the_same(alice: User) -> None:
    task = alice.create()
    assert alice.get(f"/api/tasks/{task['id'].upper()}").json == task


@pytest.mark.parametrize("family", ["/api/tasks", "/api/{user}/tasks"])
@pytest.mark.parametrize("fields", [{}, {"due_date": "2090-01-02", "recurrence": "daily"}], ids=["once", "repeating"])
def test_upper_case_id_is_the_same_everywhere(alice: User, family: str, fields: dict[str, Any]) -> None:
    task = alice.create(**fields)
    id = task["id"].upper()
    path = f"{family.format(user=alice.id)}/{id}"
    steps: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("PATCH", "", {"title": "y"}),
        ("PUT", "", {"title": "z"}),
        *(("PATCH", "", {"completed": completed}) for completed in (True, False)),
        *(("PATCH", "/complete", body) for body in ({"completed": True}, {"completed": False}, {}, {})),
        ("DELETE", "", None),
        ("POST", "/restore", None),
    ]
    for method, suffix, body in steps:
        response = alice.request(method, path + suffix, **({} if body is None else {"json": body}))
        assert (response.status_code, response.json["id"]) == (200, task["id"]), (method, suffix, body)
    operations = [
        {"op": "update", "id": id, "task": {"title": "x"}},
        *({"op": "complete", "id": id, "completed": completed} for completed in (True, False)),
        {"op": "delete", "id": id},
    ]
    response = alice.post("/api/tasks/batch", json={"operations": operations})
    assert [result["task"]["id"] for result in response.json["results"]] == [task["id"]] * len(operations)
    assert alice.delete(f"{path}?permanent=true").json["id"] == task["id"]
    assert alice.titles() == []


# What a user's id may be called, as far as an address can: no slash.
NAMES = [
    *("日本", "🥛", "ä", "e\u0301", "a?b", "a#b", "%41", "%2541", "100%", "a b", " ", "a+b", "a&b=c", "a;b", "a,b"),
    *('"a"', "'a'", "<a>", "a\\b", "a:b", "a@b", "[a]", "{a}", "a|b", "~a^`", "\xa0", "\u2028", "..a", "*"),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_user_finds_what_an_answer_names(app: Flask, name: str) -> None:
    """RFC 9110, 10.2.2; RFC 3986, 2.1: what a client named stands percent-encoded in an address, and in every field."""
    user = user_of(app, name)
    path = f"/api/{quote(user.id, safe='')}/tasks"
    for _ in range(2):
        response = user.post(path, json={"title": "x"}, headers={"Idempotency-Key": str(uuid.uuid4())})
        assert response.status_code == 201
        location = response.headers["Location"]
        assert user.get(location).json == response.json
    listed = user.get(f"{path}?limit=1&count=true&x={quote(name)}")
    assert user.get(listed.headers["Link"].partition("<")[2].partition(">")[0]).status_code == 200
    for answer in (response, listed, user.get(location), user.get(f"{path}/export"), user.get(f"{path}/{quote(name)}")):
        assert [value for _, value in answer.headers if not value.isascii() or not value.isprintable()] == []
    assert set(location) <= set(ascii_letters + digits + "-._~%/")


def test_an_app_below_a_path_names_it(app: Flask, alice: User) -> None:
    response = alice.post(
        "/api/tasks", json={"title": "x"}, environ_overrides={"SCRIPT_NAME": "/ä b".encode().decode("latin-1")}
    )
    assert response.headers["Location"] == f"/%C3%A4%20b/api/tasks/{response.json['id']}"


@pytest.mark.parametrize("path", ["/api/tasks/", "/api/{user}/tasks", "/api/{user}/tasks/"])
def test_both_families_and_trailing_slashes(alice: User, path: str) -> None:
    path = path.format(user=alice.id)
    created = alice.post(path, json={"title": "x"})
    assert created.status_code == 201
    assert created.headers["Location"] == f"{path.rstrip('/')}/{created.json['id']}"
    assert alice.get(path).json == [created.json]
    one = f"{path.rstrip('/')}/{created.json['id']}"
    slash = "/" if path.endswith("/") else ""
    assert alice.get(one + slash).json == created.json
    assert alice.put(one + slash, json={"title": "y"}).json["title"] == "y"
    assert alice.patch(f"{one}/complete{slash}").json["completed"] is True
    assert alice.delete(one + slash).status_code == 200
    assert alice.post(f"{one}/restore{slash}").status_code == 200
    assert alice.delete(f"{path}?status=all").json == {"deleted": 1}


def test_a_user_of_many_changes_is_counted_once_in_a_while(alice: User, database_url: str) -> None:
    """Until there may have been as many changes as there is room; the quota holds all the same."""
    alice.create("one")
    many, room = 1_000_000, "SELECT room_until FROM owners WHERE user_id = %(user)s"
    set_revision = "UPDATE owners SET revision = %(revision)s WHERE user_id = %(user)s"
    run_sql(database_url, set_revision, {"user": alice.id, "revision": many})
    assert alice.create("two")["version"] == many + 1
    # One live task was there when they were counted.
    assert run_sql(database_url, room, {"user": alice.id}) == [(many + QUOTA - 1,)]
    alice.create("three")
    assert run_sql(database_url, room, {"user": alice.id}) == [(many + QUOTA - 1,)]
    run_sql(database_url, set_revision, {"user": alice.id, "revision": many + QUOTA - 1})
    alice.create("four")
    assert run_sql(database_url, room, {"user": alice.id}) == [(many + QUOTA - 1 + QUOTA - 3,)]


def test_quota(alice: User, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 live tasks are the limit; the counting starts only where there may be as many."""
    task = alice.create()
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT %(user)s, gen_random_uuid(), 't', 't', n, n + 1 FROM generate_series(1, 99998) AS n;
        UPDATE owners SET revision = 99999 WHERE user_id = %(user)s
    """
    run_sql(database_url, fill, {"user": alice.id})
    assert alice.create()["version"] == 100_000
    assert_problem(alice.post("/api/tasks", json={"title": "x"}), 403, "quota-exceeded")
    path = f"/api/tasks/{task['id']}"
    assert alice.delete(path).status_code == 200
    other = alice.create()
    assert_problem(alice.post(f"{path}/restore"), 403, "quota-exceeded")
    alice.delete(f"/api/tasks/{other['id']}?permanent=true")
    assert alice.post(f"{path}/restore").status_code == 200
    run_sql(database_url, "DELETE FROM tasks WHERE user_id = %(user)s", {"user": alice.id})


@pytest.mark.parametrize("kind", ["create", "restore", "batch", "all of them"])
def test_quota_under_writers_who_wait_for_each_other(alice: User, database_url: str, kind: str) -> None:
    """Six processes with a writer each see room for two tasks; what counts is what there is when it's their turn."""
    room, writers = 2, 6
    trashed = [alice.create(f"{n}")["id"] for n in range(writers)]
    alice.delete("/api/tasks?status=all")
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT %(user)s, gen_random_uuid(), 't', 't', n, n + 1 FROM generate_series(1, %(number)s) AS n;
        UPDATE owners SET revision = %(number)s, room_until = 0 WHERE user_id = %(user)s
    """
    run_sql(database_url, fill, {"user": alice.id, "number": QUOTA - room})
    one = {"operations": [{"op": "create", "task": {"title": "x"}}]}
    ways: dict[str, Callable[[User, int], Any]] = {
        "create": lambda user, _: user.post("/api/tasks", json={"title": "x"}),
        "restore": lambda user, n: user.post(f"/api/tasks/{trashed[n]}/restore"),
        "batch": lambda user, _: user.post("/api/tasks/batch", json=one),
    }
    apps = [create_app(settings_for(database_url, pool_size=1)) for _ in range(writers)]
    # So that none is still connecting while the first one's time to wait for the lock runs out.
    for app in apps:
        assert len(User(alice.id, app.test_client(), alice.token).get("/api/tasks?limit=1").json) == 1

    def write(n: int) -> int:
        way = ways[kind] if kind in ways else list(ways.values())[n % len(ways)]
        # On a busy machine the last one's turn may come too late: it's told to try again, and does.
        while (status := way(User(alice.id, apps[n].test_client(), alice.token), n).status_code) == 503:
            pass
        return int(status)

    with (
        closing(psycopg2.connect(database_url)) as holder,
        holder.cursor() as cursor,
        ThreadPoolExecutor(writers) as pool,
    ):
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        waiting = [pool.submit(write, n) for n in range(writers)]
        await_locks(database_url, writers)
        holder.rollback()
        statuses = sorted(done.result() for done in waiting)
    for app in apps:
        app.extensions["engine"].dispose()
    live = "SELECT count(*) FROM tasks WHERE user_id = %(user)s AND deleted_at IS NULL"
    assert run_sql(database_url, live, {"user": alice.id}) == [(QUOTA,)]
    assert [status < 300 for status in statuses].count(True) == room
    assert set(statuses) <= {200, 201, 403}
    run_sql(database_url, "DELETE FROM tasks WHERE user_id = %(user)s", {"user": alice.id})
