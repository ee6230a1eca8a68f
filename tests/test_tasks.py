"""One task: create, read, change, complete, trash, restore, delete; and what every field takes and refuses."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import User, assert_problem

ABSENT = "/api/tasks/0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10"


def now(text: str) -> bool:
    """`text` is an RFC 3339 time in UTC of a moment ago."""
    return text.endswith("Z") and abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(minutes=1)


def test_title_only_creates_a_whole_task(alice: User) -> None:
    response = alice.post("/api/tasks", json={"title": "  Buy milk  "})
    task = response.json
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert response.headers["ETag"] == f'"{task["version"]}"'
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
        "tags": [],
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
        ("tags", None, []),
        ("tags", [" home ", "Work", "HOME", "work"], ["home", "Work"]),
        ("tags", ["t" * 50] + [str(n) for n in range(19)], ["t" * 50] + [str(n) for n in range(19)]),
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
    changed = alice.patch(f"/api/tasks/{alice.create(**others)['id']}", json={field: sent}).json
    assert changed[field] == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("title", value) for value in ["", "   ", "x" * 201, None, 7, True, ["a"], {"a": 1}, "a\0b", "\ud800"]),
        *(("description", value) for value in ["d" * 2001, 7, False, [], "a\0b", "\udc00x"]),
        *(("completed", value) for value in ["yes", "true", 1, 0, "on", None, [], 1.0]),
        *(("priority", value) for value in ["urgent", "", 1, [], "high "]),
        *(("due_date", value) for value in ["", "tomorrow", 0, [], {}, "2026-02-30", "2026-13-01", "26-01-01"]),
        *(("due_date", value) for value in ["2026-12-31T18:00:00", "2026-12-31T24:00:00Z", "2026-12-31T23:59:60Z"]),
        *(("due_date", value) for value in ["1969-12-31", "0001-01-01", "10000-01-01", "२०२६-१२-३१"]),
        *(("due_date", value) for value in ["1970-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"]),
        *(("due_date", value) for value in ["0001-01-01T00:00:00+14:00", "2026-12-31T18:00:00+25:00", "20261231"]),
        *(
            ("tags", value)
            for value in ["home", [""], ["  "], ["t" * 51], [1], [None], ["a\0"], [str(n) for n in range(21)]]
        ),
        *(("recurrence", value) for value in ["", "none", 7, [], "FREQ=HOURLY", "FREQ=WEEKLY;COUNT=0", "a\0"]),
        # A good rule, but there is nothing to count from.
        *(("recurrence", value) for value in ["daily", "FREQ=WEEKLY;BYDAY=MO"]),
        *(("repeat_from", value) for value in ["", "Due", "start", 1, []]),
        *(("position", value) for value in ["1", True, [], 1e13, -1e13, 10**400, "१"]),
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


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1" * 5000, "1e999"])
def test_number_that_is_none_is_refused(alice: User, text: str) -> None:
    body = f'{{"title": "x", "position": {text}}}'
    assert_problem(alice.post("/api/tasks", data=body, content_type="application/json"), 422)


def test_missing_title_is_refused_by_name(alice: User) -> None:
    assert assert_problem(alice.post("/api/tasks", json={}), 422)["errors"][0]["field"] == "title"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_update_merges(alice: User, method: str) -> None:
    task = alice.create("Paint", description="the door", priority="high", due_date="2026-12-31", tags=["home"])
    response = alice.request(method, f"/api/tasks/{task['id']}", json={"title": "Paint it", "due_date": None})
    assert response.status_code == 200
    assert response.headers["ETag"] == f'"{response.json["version"]}"'
    assert response.json["version"] > task["version"]
    assert response.json["updated_at"] > task["updated_at"]
    changed = {"title": "Paint it", "due_date": None}
    stamps = {name: response.json[name] for name in ("version", "updated_at")}
    assert response.json == task | changed | stamps


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_empty_update_changes_nothing(alice: User, method: str) -> None:
    task = alice.create()
    assert alice.request(method, f"/api/tasks/{task['id']}", json={}).json == task
    assert alice.get("/api/tasks").headers["ETag"] == '"1"'


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


SERVER_SET = {
    "id": "0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10",
    "user_id": "mallory",
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
    "completed_at": "2001-01-01T00:00:00Z",
    "deleted_at": "2001-01-01T00:00:00Z",
    "version": 999,
    "revision": 5,
    "title_key": "zzz",
    "due_key": "2001-01-01T00:00:00Z",
}


@pytest.mark.parametrize("name", [*SERVER_SET, "category", "is_completed", "__proto__"])
def test_fields_that_are_not_the_clients_are_ignored(alice: User, name: str) -> None:
    field = {name: SERVER_SET.get(name, "x")}
    created = alice.create("One", **field)
    changed = alice.put(f"/api/tasks/{created['id']}", json={"title": "Two"} | field).json
    for task in (created, changed):
        assert task.get(name) != field[name]
        assert task["user_id"] == alice.id


@pytest.mark.parametrize("name", [*SERVER_SET, "category"])
def test_strict_handling_refuses_them(alice: User, name: str) -> None:
    """RFC 7240, section 4.4."""
    task = alice.create()
    headers = {"Prefer": "return=representation, handling=strict"}
    body = {"title": "Two", name: SERVER_SET.get(name, "x")}
    for method, path in (("POST", "/api/tasks"), ("PATCH", f"/api/tasks/{task['id']}")):
        response = alice.request(method, path, json=body, headers=headers)
        assert assert_problem(response, 422)["errors"] == [{"field": name, "message": "Unknown field."}]
        assert response.headers["Preference-Applied"] == "handling=strict"
    assert alice.get("/api/tasks").json == [task]


def test_strict_handling_covers_parameters(alice: User) -> None:
    strict = {"Prefer": "handling=strict"}
    assert_problem(alice.get("/api/tasks?_=17", headers=strict), 422)
    assert alice.get("/api/tasks?_=17").status_code == 200
    assert "Preference-Applied" not in alice.get("/api/tasks?limit=1").headers


def test_a_whole_task_may_be_sent_back(alice: User) -> None:
    task = alice.create(
        description="x", tags=["a"], due_date="2026-12-31T10:00:00Z", recurrence="daily", repeat_from="completion"
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
    "id", ["1", "x", "%00", "0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c1g", "{0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10}"]
)
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("PUT", ""), ("DELETE", ""), ("PATCH", "/complete")])
def test_malformed_id_is_not_found(alice: User, id: str, method: str, suffix: str) -> None:
    assert_problem(
        alice.request(method, f"/api/tasks/{id}{suffix}", json={"title": "x", "completed": True}), 404, "not-found"
    )


def test_upper_case_id_is_the_same(alice: User) -> None:
    task = alice.create()
    assert alice.get(f"/api/tasks/{task['id'].upper()}").json == task


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


def test_quota(alice: User, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 live tasks are the limit; the counting starts only where there may be as many."""
    from tests.conftest import run_sql

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
