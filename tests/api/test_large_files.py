"""The largest files that an import may have, made to cost as much as they can: none holds a process for long."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.api.test_transfer import CALENDAR, CSV, ICS, ITEMS, JSON, upload
from tests.conftest import User, assert_problem
from todo_service.db.models import QUOTA

# OWASP API4:2023: of processor time, the client's included, in units of what Python takes to read an ordinary file of
# 7 MB on the same machine at the same time (some 0.3 s).
MOST = 17
FILE = 16 * 1024 * 1024
TAGS = ",".join("abcdefghijklmnopqrst")
FILLED = "x,d,true,low,2026-12-31T10:00:00+01:00,FREQ=DAILY,due,1,2026-01-01T00:00:00Z\n"


def whole(head: str, line: str, tail: str = "", most: int = QUOTA) -> str:
    """A file with as many of the line as fit, `%` in it being their number."""
    room = (FILE - len(head) - len(tail)) // (len(line) + 4 * line.count("%"))
    return head + "".join(line.replace("%", str(n)) for n in range(min(room, most))) + tail


def hostile_rules() -> Iterator[str]:
    """As long as a file has room for, with a day that is rare, and each another one."""
    weekdays = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
    for n in range(QUOTA):
        days = ",".join(f"{(n * 7 + k * 3) % 53 + 1}{weekdays[(n + k) % 7]}" for k in range(8))
        yield f"FREQ=YEARLY;INTERVAL={n % 999 + 1};BYMONTHDAY=29;BYDAY={days};COUNT={n % 9999 + 1}"


def rules_of(kind: str) -> str:
    rules = hostile_rules()
    match kind:
        case "text/csv":
            return "title,due_date,recurrence\n" + "".join(f'x,2026-12-31,"{rule}"\n' for rule in rules)
        case "text/calendar":
            return CALENDAR.format(
                "".join(f"BEGIN:VTODO\nSUMMARY:x\nDUE:20261231\nRRULE:{r}\nEND:VTODO\n" for r in rules)
            )
        case _:
            return json.dumps([{"title": "x", "due_date": "2026-12-31", "recurrence": rule} for rule in rules])


MANY_VALUES = "title,description,completed,priority,due_date,recurrence,repeat_from,position,created_at\n"
BEGIN_TODO, END_TODO = "BEGIN:VCALENDAR\nBEGIN:VTODO\nSUMMARY:x\n", "END:VTODO\nEND:VCALENDAR\n"
ENTRY = "BEGIN:VTODO\nUID:%\nSUMMARY:x\nDUE;TZID=Europe/Paris:20261231T000000\nPRIORITY:1\nCATEGORIES:a,b\nEND:VTODO\n"
LARGE: dict[str, tuple[str, Callable[[], str], str | None]] = {
    "rules, JSON": (JSON, lambda: rules_of(JSON), "different rules"),
    "rules, CSV": (CSV, lambda: rules_of(CSV)[:FILE].rpartition("x,")[0], "different rules"),
    "rules, ICS": (ICS, lambda: rules_of(ICS)[:FILE], "different rules"),
    "tiny tasks": (JSON, lambda: whole("[", '{"title":"x"},', '{"title":"x"}]', QUOTA - 1), None),
    "tags, JSON": (JSON, lambda: json.dumps([{"title": "x", "tags": TAGS.split(",")}] * QUOTA), None),
    "tags, CSV": (CSV, lambda: whole("title,tags\n", f'x,"{TAGS}"\n'), None),
    "items, JSON": (JSON, lambda: json.dumps([{"title": "x", "checklist": ITEMS * 25}] * 7_000), None),
    "most items, JSON": (
        JSON,
        lambda: json.dumps([{"title": "x", "checklist": [{"title": "x"}] * 50}] * 14_000),
        "too many arrays and objects",
    ),
    "bad items, JSON": (
        JSON,
        lambda: json.dumps([{"title": "x", "checklist": [{"title": ""}] * 50}] * 9_000),
        "tasks.0: checklist.0.title",
    ),
    "other tags, JSON": (
        JSON,
        lambda: json.dumps([{"title": "x", "tags": [f"{n:x}.{k}" for k in range(20)]} for n in range(65_000)]),
        None,
    ),
    "fields": (CSV, lambda: whole(MANY_VALUES, f"%{FILLED}"), None),
    "tags of one task": (JSON, lambda: whole('[{"title":"x","tags":[', '"a",', '"a"]}]', FILE), "tasks.0: tags"),
    "bad tags of one task": (JSON, lambda: whole('[{"title":"x","tags":[', "1,", "1]}]", FILE), "tasks.0: tags"),
    "names": (JSON, lambda: whole('[{"title":"x"', ',"%":1', "}]", 1_400_000), "tasks.0: "),
    "entries": (ICS, lambda: whole("BEGIN:VCALENDAR\n", ENTRY, "END:VCALENDAR\n", 80_000), None),
    "lines": (ICS, lambda: whole(BEGIN_TODO, "A:1\n", END_TODO, FILE), "at most 700000 properties"),
    "lines that are used": (ICS, lambda: whole(BEGIN_TODO, "DUE:1\n", END_TODO, FILE), "at most 700000 properties"),
    "lines in a form of their own": (ICS, lambda: whole(BEGIN_TODO, "A ;B= c:1\n", END_TODO, FILE), "too many"),
    "categories": (
        ICS,
        lambda: whole(BEGIN_TODO, "CATEGORIES:" + "a," * 999 + "a\n", END_TODO, FILE),
        "at most 20 tags",
    ),
    "parameters": (ICS, lambda: whole(BEGIN_TODO + "DUE", ";A=1", ":20261231\n" + END_TODO, FILE), None),
}


ORDINARY = json.dumps([{"title": "x", "due_date": "2026-12-31", "tags": ["a", "b"]}] * 100_000)


def unit() -> float:
    started = time.process_time()
    json.loads(ORDINARY)
    return time.process_time() - started


@pytest.mark.parametrize("name", LARGE)
def test_no_file_takes_long(alice: User, name: str) -> None:
    """It is imported, or refused with the place where it becomes too much; unknown names too."""
    kind, make, refusal = LARGE[name]
    file = make().encode()[:FILE]
    headers = {"Prefer": "handling=strict"} if name == "names" else {}
    # What else the machine does can only add to it, so the best of three counts.
    for _ in range(3):
        before, started = unit(), time.process_time()
        response = upload(alice, file, kind, headers=headers)
        taken = (time.process_time() - started) / max(before, unit())
        if taken < MOST:
            break
        assert alice.delete("/api/tasks?status=all").status_code == 200
    assert taken < MOST
    if refusal:
        assert refusal in assert_problem(response, 422, "invalid")["detail"]
    else:
        assert response.status_code == 200, response.text[:500]
