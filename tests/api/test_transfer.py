"""Export and import: what goes out comes back, nothing twice, nothing half; and files that others made or broke."""

import csv
import io
import itertools
import json
import os
import re
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import marshmallow as ma
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ORIGIN, User, again, assert_problem, run_sql, settings_for, user_of
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.db.models import MAX_CATEGORY, MAX_TAG, MAX_TAGS, QUOTA
from todo_service.formats import csv as formats_csv
from todo_service.formats import entries
from todo_service.tasks.queries import PAGE
from todo_service.tasks.search import fold

JSON, CSV, ICS = "application/json", "text/csv", "text/calendar"
TYPES = {"json": JSON, "csv": CSV, "ics": ICS}
MADE_HERE = {"user_id", "version", "checklist_done", "checklist_total"}
CALENDAR = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{}END:VCALENDAR\r\n"


def export(user: User, form: str = "json") -> bytes:
    response = user.get(f"/api/tasks/export?format={form}")
    assert response.status_code == 200, response.text
    data: bytes = response.data
    return data


def upload(user: User, file: bytes | str, kind: str = JSON, **options: Any) -> Any:
    headers = {"Content-Type": kind} | options.pop("headers", {})
    return user.post("/api/tasks/import" + options.pop("query", ""), data=file, headers=headers, **options)


def imported(user: User, file: bytes | str, kind: str = JSON, **options: Any) -> tuple[int, int]:
    """How many tasks were created, how many skipped."""
    response = upload(user, file, kind, **options)
    assert response.status_code == 200, response.text
    return response.json["created"], response.json["skipped"]


def everything(user: User) -> list[dict[str, Any]]:
    """Live tasks and the trash, in the order of their ids, without what is made here."""
    tasks = user.get("/api/tasks").json + user.get("/api/tasks?deleted=true").json
    return sorted((without(task, *MADE_HERE) for task in tasks), key=lambda task: str(task["id"]))


def without(task: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name not in names}


def vtodo(*lines: str) -> str:
    return CALENDAR.format("".join(f"{line}\r\n" for line in ("BEGIN:VTODO", *lines, "END:VTODO")))


# --- What goes out comes back ---

moments = st.datetimes(datetime(1970, 1, 2), datetime(2025, 1, 1), timezones=st.just(UTC))
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
hostile = st.sampled_from(["=1+1", "'=x", "''@", '"', ";", ",", "\\", "\\N", "\\,", "\r\n", "\n", " ", "\ufeff", "🥛"])
texts = st.lists(hostile | st.text(characters, max_size=9), max_size=6).map("".join)
tags = st.lists(texts.map(str.strip).filter(lambda tag: 0 < len(tag) <= MAX_TAG), max_size=MAX_TAGS, unique_by=fold)
one_line = texts.map(lambda text: re.sub("[\r\n]", " ", text).strip()).filter(bool)
items = st.fixed_dictionaries({"title": one_line, "completed": st.booleans()})
dues = st.none() | st.dates(datetime(1970, 1, 1).date()).map(str) | moments.map(lambda moment: moment.isoformat())


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    """A task as a file may have it."""
    completed, due = draw(st.booleans()), draw(dues)
    created, updated, deleted = sorted(draw(st.tuples(moments, moments, moments)))
    return {
        "id": str(draw(st.uuids())),
        "title": draw(texts.map(str.strip).filter(bool)),
        "description": draw(st.none() | texts.filter(bool)),
        "completed": completed,
        "completed_at": updated.isoformat() if completed else None,
        "priority": draw(st.sampled_from(["low", "medium", "high"])),
        "due_date": due,
        "category": draw(st.none() | texts.map(str.strip).filter(lambda text: 0 < len(text) <= MAX_CATEGORY)),
        "tags": draw(tags),
        "checklist": draw(st.lists(items, max_size=3)),
        "recurrence": draw(st.sampled_from([None, "FREQ=WEEKLY;BYDAY=MO", "FREQ=DAILY;COUNT=3"])) if due else None,
        "repeat_from": draw(st.sampled_from(["due", "completion"])),
        "position": draw(st.floats(-1e12, 1e12)),
        "created_at": created.isoformat(),
        "updated_at": updated.isoformat(),
        "deleted_at": draw(st.sampled_from([None, deleted.isoformat()])),
    }


many = st.lists(tasks(), min_size=1, max_size=5, unique_by=lambda task: str(task["id"]))
few_examples = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def same(value: Any, name: str = "") -> Any:
    """A value so that two ways of writing the same time are equal."""
    if isinstance(value, dict):
        return {name: same(inner, name) for name, inner in value.items()}
    if isinstance(value, list) and name != "tags":
        return [same(inner) for inner in value]
    timed = name.endswith("_at") or (name == "due_date" and value and len(value) > 10)
    return datetime.fromisoformat(value) if timed and value else value


@few_examples
@given(many)
def test_json_loses_nothing(app: Flask, given: list[dict[str, Any]]) -> None:
    alice, bob = user_of(app, "alice"), user_of(app, "bob")
    assert imported(alice, json.dumps(given)) == (len(given), 0)
    assert same(everything(alice)) == same(sorted(given, key=lambda task: str(task["id"])))
    assert imported(bob, export(alice)) == (len(given), 0)
    assert everything(bob) == everything(alice)
    assert [task["version"] for task in json.loads(export(bob))["tasks"]] == list(range(1, len(given) + 1))


@few_examples
@given(many)
def test_csv_loses_only_the_trash(app: Flask, given: list[dict[str, Any]]) -> None:
    alice, bob = user_of(app, "alice"), user_of(app, "bob")
    imported(alice, json.dumps(given))
    file = export(alice, "csv")
    assert not [cell for row in csv.reader(io.StringIO(file.decode(), newline="")) for cell in row[1:10] if risky(cell)]
    assert imported(bob, file, CSV)[1] == 0
    assert everything(bob) == [task for task in everything(alice) if not task["deleted_at"]]


def risky(cell: str) -> bool:
    return cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@few_examples
@given(many)
def test_ics_keeps_what_it_can_carry(app: Flask, given: list[dict[str, Any]]) -> None:
    alice, bob = user_of(app, "alice"), user_of(app, "bob")
    imported(alice, json.dumps(given))
    live = [task for task in everything(alice) if not task["deleted_at"]]
    assert imported(bob, export(alice, "ics"), ICS) == (len(live), 0)
    lost = ("position", "repeat_from")
    assert [without(task, *lost) for task in everything(bob)] == [carried_task(without(task, *lost)) for task in live]


def carried(text: str) -> str:
    """What RFC 5545 lets a text have: line feeds for line breaks, no other control characters but tabs."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def carried_task(task: dict[str, Any]) -> dict[str, Any]:
    texts = {"title": carried(task["title"]).strip(), "description": carried(task["description"] or "") or None}
    checklist = [item | {"title": carried(item["title"]).strip()} for item in task["checklist"]]
    texts["category"] = carried(task["category"] or "").strip() or None
    unique = {fold(tag): tag for tag in reversed([carried(tag).strip() for tag in task["tags"]])}
    times = ("created_at", "updated_at", "completed_at", "due_date")
    whole = {name: re.sub(r"\.\d+Z", "Z", task[name]) for name in times if task[name]}
    return task | texts | whole | {"tags": list(reversed(unique.values())), "checklist": checklist}


def test_json_has_the_trash_and_the_others_have_not(alice: User) -> None:
    task = alice.create("Gone")
    alice.delete(f"/api/tasks/{task['id']}")
    file = json.loads(export(alice))
    assert file["version"] == 1
    in_no_answer = {"series": None, "occurrence": None}
    assert file["tasks"] == [task | in_no_answer for task in alice.get("/api/tasks?deleted=true").json]
    assert b"Gone" not in export(alice, "csv")
    assert b"Gone" not in export(alice, "ics")


@pytest.mark.parametrize("form", TYPES)
def test_nothing_to_export(alice: User, form: str) -> None:
    assert imported(alice, export(alice, form), TYPES[form]) == (0, 0)


@pytest.mark.parametrize(
    ("form", "kind"), [("json", JSON), ("csv", "text/csv; charset=utf-8"), ("ics", "text/calendar; charset=utf-8")]
)
def test_an_export_is_a_file(alice: User, form: str, kind: str) -> None:
    response = alice.get(f"/api/tasks/export?format={form}", headers={"Origin": ORIGIN})
    assert response.content_type == kind
    name = re.escape(f'attachment; filename="tasks-{datetime.now(UTC).date()}.{form}"')
    assert re.fullmatch(name, response.headers["Content-Disposition"])
    assert response.headers["Cache-Control"] == "no-store"
    assert "Content-Disposition" in response.headers["Access-Control-Expose-Headers"]
    assert alice.request("HEAD", f"/api/tasks/export?format={form}").data == b""
    assert alice.get("/api/tasks/export").content_type == JSON
    assert_problem(alice.get("/api/tasks/export?format=xml"), 422, "invalid")


@pytest.mark.parametrize("form", TYPES)
def test_exports_have_nothing_of_others(alice: User, bob: User, form: str) -> None:
    alice.create("Alice's")
    bob.create("Bob's")
    assert b"Alice" not in export(bob, form)


# --- Nothing twice ---


@pytest.mark.parametrize("form", TYPES)
def test_the_same_file_twice(alice: User, bob: User, form: str) -> None:
    for title in ("a", "b"):
        alice.create(title)
    file = export(alice, form)
    assert imported(bob, file, TYPES[form]) == (2, 0)
    before, etag = bob.get("/api/tasks").json, bob.get("/api/tasks").headers["ETag"]
    assert imported(bob, file, TYPES[form]) == (0, 2)
    assert imported(alice, file, TYPES[form]) == (0, 2)
    assert bob.get("/api/tasks").json == before
    assert bob.get("/api/tasks").headers["ETag"] == etag
    # What is there already stays as it is, in the trash too.
    bob.delete(f"/api/tasks/{before[0]['id']}")
    assert imported(bob, file, TYPES[form]) == (0, 2)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("title,priority\nMilk,high\nMilk,high\nBread,\n", CSV),
        ('[{"title":"Milk"},{"title":"Milk"},{"title":"Bread"}]', JSON),
        (CALENDAR.format("".join(f"BEGIN:VTODO\nUID:{n}@x\nSUMMARY:Milk\nEND:VTODO\n" for n in range(3))), ICS),
        (CALENDAR.format("BEGIN:VTODO\nSUMMARY:Milk\nEND:VTODO\n" * 3), ICS),
    ],
)
def test_without_ids_the_same_file_twice(alice: User, bob: User, file: str, kind: str) -> None:
    """Entries that say the same are different tasks; what another user imports has other ids."""
    assert imported(alice, file, kind) == (3, 0)
    assert imported(alice, file, kind) == (0, 3)
    assert imported(bob, file, kind) == (3, 0)
    assert not {task["id"] for task in everything(alice)} & {task["id"] for task in everything(bob)}
    assert all(UUID(task["id"]).version == 5 for task in everything(alice))


def test_a_file_that_has_grown(alice: User) -> None:
    imported(alice, "title\nMilk\n", CSV)
    assert imported(alice, "title\nMilk\nMilk\nBread\n", CSV) == (2, 1)


def test_an_id_twice_in_a_file(alice: User) -> None:
    id = str(uuid4())
    assert imported(alice, json.dumps([{"id": id, "title": "first"}, {"id": id.upper(), "title": "second"}])) == (1, 0)
    assert alice.titles() == ["first"]


def test_an_idempotency_key(alice: User) -> None:
    headers = {"Idempotency-Key": "once"}
    first = upload(alice, "title\nMilk\n", CSV, headers=headers)
    again = upload(alice, "title\nMilk\n", CSV, headers=headers)
    assert first.json == again.json == {"created": 1, "skipped": 0}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert_problem(upload(alice, "title\nBread\n", CSV, headers=headers), 422)
    assert_problem(upload(alice, "title\n", JSON, headers={"Idempotency-Key": "broken"}), 422)
    assert alice.titles() == ["Milk"]


def test_versions_and_places(alice: User) -> None:
    """Each task has a version of its own, in the order of the file; without a position it comes at the end."""
    alice.create("zero")
    token = alice.get("/api/tasks/changes").json["next"]
    imported(alice, '[{"title":"a"},{"title":"b","position":0.5},{"title":"c"}]')
    changes = alice.get(f"/api/tasks/changes?since={token}").json["changes"]
    assert [(change["task"]["title"], change["version"]) for change in changes] == [("a", 2), ("b", 3), ("c", 4)]
    assert alice.titles("?sort=position") == ["b", "zero", "a", "c"]
    assert alice.create("last")["position"] > changes[-1]["task"]["position"]
    assert alice.create("last")["version"] == 6


# --- What a file may say ---


@pytest.mark.parametrize("name", sorted(MADE_HERE))
def test_whose_it_is_and_its_version_are_no_matter_of_the_file(alice: User, bob: User, name: str) -> None:
    """OWASP API3:2023, OWASP ASVS 5.0 V15.3.3; an export of one's own can be brought back even by strict clients."""
    values = {"user_id": alice.id, "version": 999, "checklist_done": 999, "checklist_total": 999}
    for file, kind in (
        (json.dumps([{"title": "x", name: values[name]}]), JSON),
        (f"title,{name}\ny,{values[name]}\n", CSV),
    ):
        assert imported(bob, file, kind, headers={"Prefer": "handling=strict"}) == (1, 0)
    assert {task["user_id"] for task in bob.get("/api/tasks").json} == {bob.id}
    assert {task["version"] for task in bob.get("/api/tasks").json} == {1, 2}
    assert alice.titles() == []


SOME_ID = uuid4()
PAST, FUTURE = "2020-01-02T03:04:05Z", "9999-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"completed": False, "completed_at": None, "deleted_at": None}),
        ({"created_at": PAST}, {"created_at": PAST, "updated_at": PAST}),
        ({"updated_at": PAST}, {"created_at": PAST, "updated_at": PAST}),
        ({"completed_at": PAST}, {"completed": True, "completed_at": PAST}),
        ({"completed": True, "updated_at": PAST}, {"completed": True, "completed_at": PAST}),
        ({"completed": False, "completed_at": PAST}, {"completed": False, "completed_at": None}),
        ({"created_at": "2020-01-02T04:04:05+01:00"}, {"created_at": PAST}),
        ({"id": str(SOME_ID).upper()}, {"id": str(SOME_ID)}),
        ({"id": None, "tags": ["A", "a"], "unknown": {"x": []}}, {"tags": ["A"]}),
        # OWASP ASVS 5.0 V15.3.3: columns that are no fields
        ({"revision": 9, "last_position": 9, "occurrence": 9, "series": str(SOME_ID)}, {"position": 1, "version": 1}),
        ({"owner": "mallory", "title_key": "y", "due_on": "2020-01-01"}, {"title": "x", "due_date": None}),
    ],
)
def test_what_is_restored(alice: User, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert imported(alice, json.dumps([{"title": "x"} | fields])) == (1, 0)
    [task] = alice.get("/api/tasks").json
    assert task.items() >= expected.items()


def test_nothing_comes_from_the_future(alice: User) -> None:
    times = dict.fromkeys(("created_at", "updated_at", "completed_at", "deleted_at"), FUTURE)
    imported(alice, json.dumps([{"title": "x"} | times]))
    [task] = alice.get("/api/tasks?deleted=true").json
    assert {task[name][:4] for name in times} <= {str(datetime.now(UTC).year)}


def test_strict_files(alice: User) -> None:
    strict = {"Prefer": "handling=strict"}
    response = upload(alice, "title,colour\nx,red\n", CSV, headers=strict)
    assert "colour" in assert_problem(response, 422)["detail"]
    assert response.headers["Preference-Applied"] == "handling=strict"
    assert_problem(upload(alice, '[{"title":"x","\\ud800":1}]', headers=strict), 422)
    assert imported(alice, "title,colour\nx,red\n", CSV) == (1, 0)


# --- CSV of others ---


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        *((f"{sign}cmd", f"'{sign}cmd") for sign in "=+-@＝＋－＠"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("'=1", "''=1"),
        ("''=1", "'''=1"),
        ("it's", "it's"),
        ("'quoted'", "'quoted'"),
        ("1+1=2", "1+1=2"),
        ("a\r\nb", "a\r\nb"),
    ],
)
def test_formulas_are_defused(alice: User, bob: User, cell: str, written: str) -> None:
    alice.create("x", description=cell)
    file = export(alice, "csv")
    [_, row] = csv.reader(io.StringIO(file.decode("utf-8-sig"), newline=""))
    assert row[formats_csv.COLUMNS.index("description")] == written
    imported(bob, file, CSV)
    assert [task["description"] for task in bob.get("/api/tasks").json] == [cell]


def test_csv_as_spreadsheets_want_it(alice: User) -> None:
    alice.create("Größe", tags=["a,b", "c"], due_date="2026-12-31")
    file = export(alice, "csv")
    assert file.startswith(b"\xef\xbb\xbfid,title,")
    assert file.count(b"\r\n") == file.count(b"\n") == 2
    assert "Größe".encode() in file


@pytest.mark.parametrize(
    "file",
    [
        "title;due_date;tags\nMilk;2026-12-31;home, shop\n",
        "Title\tDue date\tTags\r\nMilk\t2026-12-31\thome,shop\r\n",
        '\ufeff"Tags","Due Date","Title"\r"home, shop","2026-12-31"," Milk "\r',
        'title,due_date,tags,,\nMilk,2026-12-31,"home,, shop,",,\n\n',
        'title,due_date,tags,completed\nMilk,2026-12-31,"home, shop, HOME",FALSE',
    ],
)
def test_csv_of_others(alice: User, file: str) -> None:
    assert imported(alice, file, CSV) == (1, 0)
    [task] = alice.get("/api/tasks").json
    assert (task["title"], task["due_date"], task["tags"]) == ("Milk", "2026-12-31", ["home", "shop"])


@pytest.mark.parametrize(
    ("cell", "checklist"),
    [
        ("[ ] a\n[x] b", [("a", False), ("b", True)]),
        ("- [X] a\r\n\r\n* [ ] b", [("a", True), ("b", False)]),
        ("a\n b, c ", [("a", False), ("b, c", False)]),
        ("[ ] [x] a\n[]b", [("[x] a", False), ("[]b", False)]),
    ],
)
def test_checklists_in_cells(alice: User, cell: str, checklist: list[tuple[str, bool]]) -> None:
    assert imported(alice, f'title,checklist\nx,"{cell}"\n', CSV) == (1, 0)
    [task] = alice.get("/api/tasks").json
    assert [(item["title"], item["completed"]) for item in task["checklist"]] == checklist


def test_a_checklist_as_a_cell(alice: User) -> None:
    alice.create("x", checklist=ITEMS)
    [names, row] = csv.reader(io.StringIO(export(alice, "csv").decode("utf-8-sig"), newline=""))
    assert row[names.index("checklist")] == "[ ] a, b\n[x] [x] c"
    assert not {"checklist_done", "checklist_total"} & {*names}


@pytest.mark.parametrize(
    ("file", "kind", "named"),
    [
        (json.dumps([{"title": "x", "checklist": [{"title": "x"}] * 51}]), JSON, "tasks.0: checklist"),
        (json.dumps([{"title": "x", "checklist": [{"title": "x"}, {"title": ""}]}]), JSON, "checklist.1.title"),
        ('title,checklist\nx,"' + "x\n" * 51 + '"\n', CSV, "line 2: checklist"),
        (f"title,checklist\nx,{'x' * 201}\n", CSV, "line 2: checklist.0.title"),
    ],
)
def test_checklists_that_are_none(alice: User, file: str, kind: str, named: str) -> None:
    assert named in assert_problem(upload(alice, file, kind), 422, "invalid")["detail"]
    assert everything(alice) == []


# --- iCalendar, by a reader of its own ---


def calendar(file: bytes) -> list[dict[str, str]]:
    """VTODOs as "NAME;parameters" -> value as written; RFC 5545's sections 3.1 and 3.4, and nothing of the library."""
    assert file.endswith(b"\r\n")
    physical = file.split(b"\r\n")[:-1]
    assert all(len(piece) <= 75 and b"\n" not in piece and b"\r" not in piece for piece in physical)
    for piece in physical:
        piece.decode()  # no character is cut in two
    lines = file.decode().replace("\r\n ", "").split("\r\n")[:-1]
    assert lines[:3] == ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//todo_service//tasks//EN"]
    assert lines[-1] == "END:VCALENDAR"
    found: list[dict[str, str]] = []
    for line in lines[3:-1]:
        match = re.fullmatch(r'([A-Z-]+(?:;[A-Z-]+=(?:"[^"]*"|[^":;,]*))*):(.*)', line, flags=re.DOTALL)
        assert match, line
        name, text = match.groups()
        if name == "BEGIN":
            found.append({})
        elif name != "END":
            assert name not in found[-1]
            found[-1][name] = text
    return found


ITEMS = [{"title": "a, b", "completed": False}, {"title": "[x] c", "completed": True}]
MONTHLY = {"due_date": "2026-01-31", "recurrence": "monthly"}
WEEKLY = {"due_date": "2026-12-31T18:00:00+01:00", "recurrence": "FREQ=WEEKLY;UNTIL=20271231"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"title": "a, b; c\\N"}, {"SUMMARY": "a\\, b\\; c\\\\N"}),
        ({"description": "one\r\ntwo\rthree\x07"}, {"DESCRIPTION": "one\\ntwo\\nthree\ufffd"}),
        ({"description": "ü🥛" * 400}, {"DESCRIPTION": "ü🥛" * 400}),
        ({"tags": ["a,b", "c"]}, {"CATEGORIES": "a\\,b,c"}),
        ({"tags": ["c"], "category": "a,b"}, {"CATEGORIES;X-KIND=CATEGORY": "a\\,b", "CATEGORIES": "c"}),
        ({"priority": "high"}, {"PRIORITY": "1"}),
        ({"priority": "medium"}, {"PRIORITY": "5", "STATUS": "NEEDS-ACTION"}),
        ({"priority": "low"}, {"PRIORITY": "9"}),
        ({"due_date": "2026-12-31"}, {"DUE;VALUE=DATE": "20261231"}),
        ({"due_date": "2026-12-31T18:00:00+01:00"}, {"DUE": "20261231T170000Z"}),
        (MONTHLY, {"DTSTART;VALUE=DATE": "20260131", "RRULE": "FREQ=MONTHLY;BYMONTHDAY=-1"}),
        (WEEKLY, {"DTSTART": "20261231T170000Z", "RRULE": "FREQ=WEEKLY;UNTIL=20271231T235959Z"}),
        ({"completed": True}, {"STATUS": "COMPLETED"}),
        ({"checklist": ITEMS}, {"DESCRIPTION": "- [ ] a\\, b\\n- [x] [x] c"}),
        ({"checklist": ITEMS, "description": "d\n"}, {"DESCRIPTION": "d\\n\\n\\n- [ ] a\\, b\\n- [x] [x] c"}),
    ],
)
def test_calendar_entries(alice: User, fields: dict[str, Any], expected: dict[str, str]) -> None:
    task = alice.create(**({"title": "x"} | fields))
    [entry] = calendar(export(alice, "ics"))
    assert entry.items() >= expected.items()
    assert entry["UID"] == task["id"]
    assert entry["CREATED"] == entry["LAST-MODIFIED"] == stamp(task["created_at"])
    assert entry["DTSTAMP"] >= entry["CREATED"]
    assert entry.get("COMPLETED") == (stamp(task["completed_at"]) if task["completed"] else None)
    assert ("RRULE" in entry) == ("recurrence" in fields)


def stamp(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y%m%dT%H%M%SZ}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["DUE:20261231T180000Z"], {"due_date": "2026-12-31T18:00:00Z"}),
        (["DUE;TZID=Europe/Berlin:20261231T180000"], {"due_date": "2026-12-31T17:00:00Z"}),
        (["DUE;TZID=W. Europe Standard Time:20261231T180000"], {"due_date": "2026-12-31T17:00:00Z"}),
        (["DUE;TZID=/x.org/1/Europe/Berlin:20261231T180000"], {"due_date": "2026-12-31T17:00:00Z"}),
        (["DUE;TZID=/America/Argentina/Salta/:20261231T180000"], {"due_date": "2026-12-31T21:00:00Z"}),
        (['DUE;TZID="Etc/GMT+5":20261231T180000'], {"due_date": "2026-12-31T23:00:00Z"}),
        (["DUE:20261231T180000"], {"due_date": "2026-12-31T23:00:00Z"}),  # in the request's zone, New York
        (["DUE;VALUE=DATE:20261231"], {"due_date": "2026-12-31"}),
        (["DTSTART:20261231T180000Z", "DURATION:PT1H"], {"due_date": "2026-12-31T19:00:00Z"}),
        (["DTSTART:20261231T180000Z"], {"due_date": None}),
        (["DTSTART;VALUE=DATE:20261231", "RRULE:FREQ=DAILY"], {"due_date": "2026-12-31", "recurrence": "FREQ=DAILY"}),
        (["PRIORITY:0"], {"priority": "medium"}),
        (["PRIORITY:4"], {"priority": "high"}),
        (["PRIORITY:6"], {"priority": "low"}),
        (["CATEGORIES:a,b\\,c", "CATEGORIES:d"], {"tags": ["a", "b,c", "d"], "category": None}),
        (["CATEGORIES:a", 'categories;x-kind="category";X-A=b:b\\,c'], {"tags": ["a"], "category": "b,c"}),
        (["CATEGORIES;X-KIND=OTHER:a", "CATEGORIES;X-KIND=CATEGORY:"], {"tags": ["a"], "category": None}),
        (["STATUS:COMPLETED", "COMPLETED:20200101T000000Z"], {"completed_at": "2020-01-01T00:00:00Z"}),
        (["COMPLETED;VALUE=DATE:20200101"], {"completed_at": "2020-01-01T05:00:00Z", "completed": True}),
        (["STATUS:IN-PROCESS", "COMPLETED:20200101T000000Z"], {"completed": False, "completed_at": None}),
        (["DESCRIPTION:a\\nb", " \\Nc\\;\\\\n"], {"description": "a\nb\nc;\\n"}),
        (['description;LANGUAGE=en;X-A="b:c;d":x'], {"description": "x"}),
        (["BEGIN:VALARM", "SUMMARY:alarm", "DESCRIPTION:alarm", "END:VALARM"], {"description": None}),
        (["X-UNKNOWN:x", "ATTACH:http://x"], {"title": "Milk"}),
        *(
            (["DESCRIPTION:" + text.replace("\n", "\\n")], {"description": description, "checklist": ITEMS})
            for text, description in {
                "- [ ] a, b\n- [x] [x] c": None,
                "\n- [ ] a, b\n- [x] [x] c": None,
                "d\n* [ ]  a, b\n* [X] [x] c": "d",
                "- [ ] d\ne\n\n- [ ] a, b\n+ [x] [x] c": "- [ ] d\ne",
                "- [ ] d\n\n- [ ] a, b\n- [x] [x] c": "- [ ] d",
            }.items()
        ),
        *(
            (["DESCRIPTION:" + text.replace("\n", "\\n")], {"description": text, "checklist": []})
            for text in [
                *("- [ ] a\nb", "- a\n- b", "[ ] a", "-[ ] a", "- [] a", "- [ ]", "- [y] a", "a - [ ] b"),
                *("- [ ] a\n" * 50 + "- [ ] a", "- [ ] " + "x" * 201),
            ]
        ),
    ],
)
def test_calendars_of_others(alice: User, lines: list[str], expected: dict[str, Any]) -> None:
    file = vtodo("UID:x@example.com", "SUMMARY:Milk", *lines)
    assert imported(alice, file, ICS, query="?tz=America/New_York") == (1, 0)
    [task] = alice.get("/api/tasks").json
    assert task.items() >= expected.items()
    assert task["title"] == "Milk"
    assert imported(alice, file.replace("\r\n", "\n"), ICS, query="?tz=America/New_York") == (0, 1)


def test_events_are_no_tasks(alice: User) -> None:
    event = "BEGIN:VEVENT\r\nSUMMARY:Party\r\nBEGIN:VTODO\r\nEND:VTODO\r\nEND:VEVENT\r\n"
    assert imported(alice, CALENDAR.format(event), ICS) == (0, 0)


# --- Broken files ---

GOOD_LINE = '{"title":"good"}'
# By kind: RFC 8259 (JSON), RFC 4180 (CSV) and RFC 5545 (ICS) for the form; OWASP ASVS 5.0 V2.2.1 for what a task may
# be; OWASP API4:2023 for what is too long, too deep or too much.
BROKEN: list[tuple[str, str | bytes, str]] = [
    (JSON, f"[{GOOD_LINE},\n{{]", "line 2"),
    (JSON, "", "line 1"),
    (JSON, f"[{GOOD_LINE}", "line 1"),
    (JSON, f'[{GOOD_LINE},{{"title":""}}]', "tasks.1"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","due_date":"tomorrow"}}]', "tasks.1: due_date"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","recurrence":"daily"}}]', "tasks.1: recurrence"),
    (JSON, f'[{GOOD_LINE},{{"title":"x\\u0000"}}]', "tasks.1: title"),
    (JSON, f'[{GOOD_LINE},{{"title":"\\ud800"}}]', "tasks.1: title"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","id":"1"}}]', "tasks.1: id"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","position":1e999}}]', "tasks.1: position"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","created_at":"2026-12-31"}}]', "tasks.1: created_at"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","created_at":"0001-01-01T00:00:00+14:00"}}]', "tasks.1: created_at"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","completed":"yes"}}]', "tasks.1: completed"),
    (JSON, f"[{GOOD_LINE},null]", "tasks.1"),
    (JSON, f"[{GOOD_LINE},[]]", "tasks.1"),
    (JSON, f'[{GOOD_LINE},{{"title":"x","title":"y"}}]', "title"),
    (JSON, f'{{"version":2,"tasks":[{GOOD_LINE}]}}', "version"),
    (JSON, '{"tasks":null}', "tasks"),
    (JSON, "null", "tasks"),
    (JSON, "{}", "tasks"),
    (JSON, "[" * 1_000_000, "line 1"),
    (JSON, '{"a":' * 1_000_000, "line 1"),
    (JSON, "[" + "[]," * 1_000_000 + "[]]", "line 1"),
    (JSON, '[{"title":"' + "x" * 10_000_000 + '"}]', "tasks.0: title"),
    (JSON, '["' + '\\"' * 5_000_000, "line 1"),
    (JSON, f"[{'9' * 5000}]", "digits"),
    (JSON, b'[{"title":"good"},\n{"title":"\xff"}]', "line 2"),
    (JSON, '[{"title":"good"}]'.encode("utf-16"), "line 1"),
    (CSV, "", "line 1"),
    (CSV, "name\nx\n", "line 1"),
    (CSV, "title,title\nx,y\n", "line 1"),
    (CSV, "title," + "x," * 200_000, "line 1"),
    (CSV, "title,priority\ngood,low\n\nx,urgent\n", "line 4: priority"),
    (CSV, 'title,description\ngood,"a\nb"\n,x\n', "line 4: title"),
    (CSV, 'title\ngood\n"x', "line 3"),
    (CSV, 'title\ngood\n"x"y\n', "line 3"),
    (CSV, "title\ngood\nx,y\n", "line 3"),
    (CSV, "title\ngood\nx\0\n", "line 3"),
    (CSV, "title,completed\ngood,no\nx,maybe\n", "line 3: completed"),
    (CSV, "title,position\ngood,1\nx,1_0\n", "line 3: position"),
    (CSV, "title,position\ngood,1\nx,1e999\n", "line 3: position"),
    (CSV, "title,due_date\ngood,\nx,31.12.2026\n", "line 3: due_date"),
    (CSV, "title\ngood\n" + "x" * 10_000_000, "line 3"),
    (CSV, b"title\ngood\n\xff\n", "line 3"),
    (CSV, "title\n" + "x\n" * (QUOTA + 1), f"line {QUOTA + 2}"),
    (CSV, "title\n" + "x\n" * 5_000_000, f"line {QUOTA + 2}"),
    (ICS, "", "empty"),
    (ICS, "\r\n", "empty"),
    (ICS, "title\nx\n", "line 1"),
    (ICS, vtodo("SUMMARY:x").replace("END:VCALENDAR", ""), "ends in the middle"),
    (ICS, vtodo("SUMMARY:x").replace("END:VTODO", "END:VEVENT"), "line 6"),
    (ICS, vtodo("SUMMARY:x", "nonsense"), "line 6"),
    (ICS, vtodo("UID:x"), "component 1 (line 4): title"),
    (ICS, vtodo("SUMMARY:" + "x" * 201), "component 1 (line 4): title"),
    (ICS, vtodo("SUMMARY:x", "DUE:tomorrow"), "component 1 (line 4): DUE"),
    (ICS, vtodo("SUMMARY:x", "DUE:20261331"), "component 1 (line 4): DUE"),
    (ICS, vtodo("SUMMARY:x", "DUE:00010101"), "component 1 (line 4): due_date"),
    (ICS, vtodo("SUMMARY:x", "DUE;TZID=Mars/Olympus:20261231T180000"), "component 1 (line 4): DUE"),
    (ICS, vtodo("SUMMARY:x", "DUE;TZID=../../etc/passwd:20261231T180000"), "component 1 (line 4): DUE"),
    *(
        (ICS, vtodo("SUMMARY:x", f"DUE;TZID={zone}:20261231T180000"), "component 1 (line 4): DUE")
        for zone in ("", "/", "Europe", "/Europe/", "/x/Europe", "America", "Etc", "__pycache__", "Europe/__pycache__")
    ),
    *(
        (ICS, vtodo("SUMMARY:x", f"DUE;TZID={zone}:20261231T180000"), "component 1 (line 4): DUE")
        for zone in ("tzdata.zi", ".", "/etc/passwd", "x" * 300, "x/" * 300, "UTC,UTC")
    ),
    *(
        (ICS, vtodo("SUMMARY:x", f"{name};TZID=Europe:20261231T180000"), f"component 1 (line 4): {name}")
        for name in ("CREATED", "LAST-MODIFIED", "COMPLETED")
    ),
    (ICS, vtodo("SUMMARY:x", "DTSTART;TZID=Europe:20261231T180000", "DURATION:PT1H"), "component 1 (line 4): DTSTART"),
    (ICS, vtodo("SUMMARY:x", "DUE;TZID=UTC\0:20261231T180000"), "line 6"),
    (ICS, re.sub("^", " ", vtodo("SUMMARY:x"), flags=re.MULTILINE), "line 1"),
    (ICS, re.sub("^", "\t", vtodo("SUMMARY:x"), flags=re.MULTILINE), "line 1"),
    (ICS, " x\r\n" + vtodo("SUMMARY:x"), "line 1"),
    (ICS, vtodo("SUMMARY:x", "DTSTART:20261231", "DURATION:P9999999999W"), "component 1 (line 4): DURATION"),
    (ICS, vtodo("SUMMARY:x", "CREATED:00010101"), "component 1 (line 4)"),
    (ICS, vtodo("SUMMARY:x", "PRIORITY:urgent"), "component 1 (line 4): PRIORITY"),
    (ICS, vtodo("SUMMARY:x", "RRULE:FREQ=SECONDLY", "DUE:20261231"), "component 1 (line 4): recurrence"),
    (ICS, vtodo("SUMMARY:x", "RRULE:FREQ=DAILY"), "component 1 (line 4): recurrence"),
    (ICS, "BEGIN:VCALENDAR\n" + "BEGIN:X\n" * 500_000, "ends in the middle"),
    (ICS, vtodo("SUMMARY:x\0"), "component 1 (line 4): title"),
    (ICS, vtodo("SUMMARY:" + "x" * 10_000_000), "component 1 (line 4): title"),
    (ICS, "BEGIN:VCALENDAR\n" + "BEGIN:VTODO\nEND:VTODO\n" * 500_000, "component 1"),
    (ICS, b"BEGIN:VCALENDAR\n\xff", "line 2"),
]


NAMES = [f"{kind} {str(file)[:60]!a}" for kind, file, _ in BROKEN]


@pytest.mark.parametrize(("kind", "file", "named"), BROKEN, ids=NAMES)
def test_broken_files(alice: User, kind: str, file: str | bytes, named: str) -> None:
    """Refused, with the place; what came before it is not there either (OWASP ASVS 5.0 V2.3.3)."""
    problem = assert_problem(upload(alice, file, kind, query="?tz=Asia/Tokyo"), 422, "invalid")
    assert named in problem["detail"]
    assert len(problem["errors"]) <= entries.MAX_ERRORS
    assert everything(alice) == []
    assert "ETag" not in alice.get("/api/tasks").headers


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("file", ['[{{"title":"x","position":{}}}]', '{{"tasks":[],"x":[{{"y":{}}}]}}', "{}"])
def test_no_numbers(alice: User, file: str, constant: str) -> None:
    """RFC 8259, section 6: what Python takes for numbers is not JSON."""
    problem = assert_problem(upload(alice, file.format(constant)), 400, "invalid-json")
    assert constant in problem["detail"]
    assert everything(alice) == []


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(list(TYPES.values())),
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(["title", "\n", ",", '"', "'", "=", "x", ";", "{", "}", "[", "]", ":", "\\", "\0", "\r", " "])
        | st.sampled_from(
            ["BEGIN:VCALENDAR\n", "BEGIN:VTODO\n", "SUMMARY", "DUE", "RRULE:FREQ=", "END:VTODO\n", "TZID="]
        )
        | st.text(max_size=5),
        max_size=30,
    ).map(lambda pieces: "".join(pieces).encode(errors="surrogatepass")),
)
def test_noise_is_no_server_error(app: Flask, kind: str, file: bytes) -> None:
    assert upload(user_of(app, "noise"), file, kind).status_code in (200, 400, 422)


@pytest.mark.parametrize("kind", ["text/plain", "", "multipart/form-data", "application/x-www-form-urlencoded"])
def test_other_types(alice: User, kind: str) -> None:
    assert_problem(upload(alice, "title\nx\n", kind), 415, "unsupported-media-type")


def test_compressed_files(alice: User) -> None:
    assert_problem(upload(alice, "title\nx\n", CSV, headers={"Content-Encoding": "gzip"}), 415)


def test_how_large_a_file_may_be(alice: User) -> None:
    padding = "x," * (2 * 1024 * 1024)
    assert imported(alice, json.dumps([{"title": "large", "unknown": padding}])) == (1, 0)
    assert_problem(upload(alice, b" " * (16 * 1024 * 1024 + 1), CSV), 413, "body-too-large")
    assert_problem(alice.post("/api/tasks", json={"title": "x", "unknown": padding}), 413, "body-too-large")


# --- All or nothing, and how much ---

SEED = """
    INSERT INTO tasks (user_id, id, title, title_key, description, position, version)
    SELECT %(user)s, gen_random_uuid(), 'Task ' || n, 'task ' || n, repeat('x', 100), n, n
    FROM generate_series(1, %(count)s) AS n;
    INSERT INTO owners (user_id, revision, last_position) VALUES (%(user)s, %(count)s, %(count)s)
"""


@pytest.fixture(scope="module")
def crowded(app: Flask, database_url: str) -> User:
    """Somebody with as many tasks as there is room for."""
    user = user_of(app, "crowded")
    run_sql(database_url, SEED, {"user": user.id, "count": QUOTA})
    run_sql(database_url, "ANALYZE tasks")
    return user


@pytest.fixture(scope="module")
def filled(app: Flask, database_url: str) -> User:
    """Somebody whose export is read in several steps."""
    user = user_of(app, "filled")
    run_sql(database_url, SEED, {"user": user.id, "count": 5 * PAGE})
    return user


def test_the_quota(crowded: User, app: Flask, database_url: str) -> None:
    assert_problem(upload(crowded, "title\nx\n", CSV), 403, "quota-exceeded")
    trashed = [{"title": "x", "deleted_at": PAST}]
    assert imported(crowded, json.dumps(trashed)) == (1, 0)
    nearly = user_of(app, "nearly")
    run_sql(database_url, SEED, {"user": nearly.id, "count": QUOTA - 3000})
    titles = [f"new {n}" for n in range(3001)]
    assert_problem(upload(nearly, "\n".join(["title", *titles]), CSV), 403, "quota-exceeded")
    assert nearly.get("/api/tasks?search=new&limit=1").json == []
    assert imported(nearly, "\n".join(["title", *titles[:3000]]), CSV) == (3000, 0)


def test_the_short_way_to_load_is_that_of_the_schema() -> None:
    """Which has nothing between its fields, or that would have to be in both."""
    assert not any(hook for shape in (entries.WHOLE, entries.PLAIN) for hook in shape._hooks.values())


@few_examples
@given(
    tasks(),
    st.dictionaries(st.sampled_from([*entries.WHOLE.load_fields, "other"]), st.none() | st.just("x") | st.just(1)),
)
def test_the_short_way_finds_the_same(task: dict[str, Any], changes: dict[str, Any]) -> None:
    entry = task | changes

    def outcome(load: Callable[[dict[str, Any]], Any]) -> Any:
        try:
            return load(entry)
        except ma.ValidationError as error:
            return error.messages

    for shape in (entries.WHOLE, entries.PLAIN):
        assert outcome(partial(entries.loaded, shape=shape)) == outcome(shape.load)


def test_a_rule_is_counted_once(alice: User) -> None:
    """However often it is there: what counts is what has to be understood."""
    rule = "FREQ=YEARLY;BYDAY=" + ",".join(f"{n}MO" for n in range(1, 53))
    file = json.dumps([{"title": "x", "due_date": "2026-12-31", "recurrence": rule}] * 5000)
    assert len(file) > entries.MAX_RULES
    assert imported(alice, file) == (5000, 0)


@pytest.mark.once
def test_an_export_takes_little_memory(alice: User, database_url: str) -> None:
    """However much there is: the peak is that of a few pages, where these ten are 20 MB and more as objects."""
    number = 10_000
    run_sql(database_url, SEED, {"user": alice.id, "count": number})
    for form, most in (("json", None), ("csv", 10), ("ics", 10)):
        tracemalloc.start()
        response = alice.get(f"/api/tasks/export?format={form}", buffered=False)
        chunks = lines = size = 0
        for chunk in response.response:
            chunks, lines, size = chunks + 1, lines + chunk.count(b"\n"), size + len(chunk)
            if chunks == most:
                break
        response.close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12_000_000, (form, peak)
        assert most or (lines >= number and size > 3_000_000)


@pytest.fixture
def several_pages(alice: User) -> list[str]:
    """The ids of alice's tasks, which all have the same title, in the order of an export that takes three pages."""
    ids = sorted(str(uuid4()) for _ in range(2500))
    assert imported(alice, json.dumps([{"id": id, "title": "round 0"} for id in ids])) == (2500, 0)
    return ids


def rename(user: User, ids: list[str], title: str) -> None:
    """A batch with tasks of the first page and of the last."""
    operations = [{"op": "update", "id": id, "task": {"title": title}} for id in ids[:50] + ids[-50:]]
    assert user.post("/api/tasks/batch", json={"operations": operations}).status_code == 200


@pytest.mark.parametrize("form", list(TYPES))
def test_an_export_is_of_the_moment_it_was_asked_for(alice: User, several_pages: list[str], form: str) -> None:
    response = alice.get(f"/api/tasks/export?format={form}")
    stream: Iterator[bytes] = iter(response.response)
    begun = next(stream) + next(stream)
    rename(alice, several_pages, "round 1")
    alice.delete(f"/api/tasks/{several_pages[-1]}?permanent=true")
    file = begun + b"".join(stream)
    response.close()
    assert (file.count(b"round 0"), file.count(b"round 1")) == (2500, 0)


def test_no_export_has_half_a_batch(app: Flask, alice: User, several_pages: list[str]) -> None:
    """Thirty of them, while batches that change tasks of the first page and the last follow one another."""
    writer, done = again(alice), threading.Event()

    def write() -> int:
        for number in itertools.count(1):
            rename(writer, several_pages, f"round {number}")
            if done.is_set():
                return number
        raise AssertionError

    with ThreadPoolExecutor(1) as pool:
        rounds = pool.submit(write)
        try:
            files = [json.loads(export(alice))["tasks"] for _ in range(30)]
        finally:
            done.set()
        rounds.result()
    ends = [{task["title"] for task in file[:50] + file[-50:]} for file in files]
    assert [len(titles) for titles in ends] == [1] * 30
    assert len(set(map(frozenset, ends))) > 1
    assert [[task["id"] for task in file] for file in files] == [several_pages] * 30


def test_an_export_whose_backend_is_killed_begins_anew(alice: User, several_pages: list[str], wire: Wire) -> None:
    reader = User(alice.id, create_app(settings_for(wire.dsn(), pool_size=1)).test_client(), alice.token)
    killed: list[str] = []

    def kill_once(sql: str) -> str:
        if "FROM tasks" in sql and len(wire.queries) == 3 and not killed:
            killed.append(sql)
            return "SET LOCAL ROLE NONE; SELECT pg_terminate_backend(pg_backend_pid())"
        return sql

    assert reader.get("/health/ready").status_code == 200
    wire.reset()
    wire.rewrite = kill_once
    assert [task["id"] for task in json.loads(export(reader))["tasks"]] == several_pages
    assert killed
    begun = [sql.startswith("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ") for sql in wire.queries]
    assert begun == [True, False, False, True, False, False, False]


def test_nothing_is_left_of_an_export(filled: User) -> None:
    """Neither of one that was read nor of one whose reader went away: what it is kept in has no name, and is closed."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux tells which files are open")

    def nameless() -> int:
        links = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        return sum(link.startswith(tempfile.gettempdir()) and link.endswith("(deleted)") for link in links)

    before = nameless()
    for most in (0, 1, 2, 1000):
        response = filled.get("/api/tasks/export", buffered=False)
        assert nameless() == before + 1
        assert len(list(itertools.islice(response.response, most))) <= most
        response.close()
        del response
        assert nameless() == before


def test_an_export_without_room_for_it(filled: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The connection is as good as before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    response = filled.get("/api/tasks/export")
    assert response.status_code == 503
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "2"
    monkeypatch.undo()
    assert filled.get("/api/tasks/export").status_code == 200


def test_a_slow_reader_holds_no_connection(filled: User, database_url: str) -> None:
    app = create_app(settings_for(database_url, pool_size=1))
    reader = User(filled.id, app.test_client(), filled.token)
    responses = [reader.get("/api/tasks/export") for _ in range(3)]
    streams: list[Iterator[bytes]] = [iter(response.response) for response in responses]
    for stream in streams:
        next(stream)
        next(stream)
        assert user_of(app, "other").titles() == []
    for response in responses:
        response.close()


def test_nothing_is_kept_of_an_import_that_fails_late(alice: User, database_url: str) -> None:
    """The second step of it is refused by the database; the first one goes with it."""
    trigger = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON tasks FOR EACH ROW WHEN (NEW.title = 'poison') EXECUTE FUNCTION refuse()
    """
    run_sql(database_url, trigger)
    try:
        file = "\n".join(["title", *(f"task {n}" for n in range(5000)), "poison"])
        assert_problem(upload(alice, file, CSV), 500)
    finally:
        run_sql(database_url, "DROP TRIGGER refuse ON tasks; DROP FUNCTION refuse()")
    assert everything(alice) == []
    assert alice.create()["version"] == 1


def test_imports_at_the_same_time(app: Flask) -> None:
    """Each task is created once, and every version is one task's."""
    alice = user_of(app, "alice")
    file = "\n".join(["title", *(f"task {n}" for n in range(500))])
    with ThreadPoolExecutor(4) as pool:
        users = [User(alice.id, app.test_client(), alice.token) for _ in range(4)]
        counts = list(pool.map(lambda user: imported(user, file, CSV), users))
    assert sorted(counts) == [(0, 500)] * 3 + [(500, 0)]
    assert sorted(task["version"] for task in alice.get("/api/tasks").json) == list(range(1, 501))
