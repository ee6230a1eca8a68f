"""Tasks as a calendar's VTODOs (RFC 5545, section 3.6.2), for other programs that keep tasks. Pure.

The icalendar library splits, joins and folds the lines and writes the values. Its text is not used: it takes `\\N` in a
task's own words (`C:\\New`) for a line break; and neither is its parser for whole files, which drops what it can't read
where a user must be told. What a VTODO has no property for (the order, `repeat_from`, the trash) is left out; but a
checklist stands at the end of the description, as a task list in Markdown, and is taken from there.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from icalendar import Parameters, vDDDTypes, vDuration
from icalendar.parser import Contentline
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

from ..db.models import MAX_TAGS
from ..errors import Invalid
from ..tasks import zones
from ..tasks.recurrence import rules
from . import checklist
from .contentlines import Todo, todos

BEGIN = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//todo_service//tasks//EN\r\n"
END = "END:VCALENDAR\r\n"
PRIORITIES = {"high": 1, "medium": 5, "low": 9}
WHEN = re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?")
# RFC 5545, section 3.3.11: what a text can't have, in any form; its place is kept, as a title must not be empty.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ITEM = re.compile(r"(?:\\.|[^\\,])+", flags=re.DOTALL)
MAX_CATEGORIES = 10_000
# Tags and the category are both CATEGORIES, as other programs know nothing else; this one is told by a parameter.
KIND, CATEGORY = "X-KIND", "CATEGORY"


class Written(str):
    """A value in the form in which it stands in a line."""

    __slots__ = ()

    def to_ical(self) -> str:
        """No bytes: in those the library would take U+FEFF for a byte order mark."""
        return str(self)


def write(pages: Iterable[list[dict[str, Any]]], now: datetime) -> Iterator[bytes]:
    """The file in pieces, one for each page of tasks as `task_out` gives them; `now` is its DTSTAMP."""
    yield BEGIN.encode()
    for page in pages:
        yield b"".join(todo(task, now) for task in page)
    yield END.encode()


def todo(task: dict[str, Any], now: datetime) -> bytes:
    lines = [b"BEGIN:VTODO", *(written(name, value) for name, value in properties(task, now)), b"END:VTODO", b""]
    return b"\r\n".join(lines)


def properties(task: dict[str, Any], now: datetime) -> Iterator[tuple[str, Any]]:
    yield "UID", task["id"]
    yield "DTSTAMP", now
    yield "CREATED", task["created_at"]
    yield "LAST-MODIFIED", task["updated_at"]
    yield "SUMMARY", escaped(task["title"])
    if text := "\n\n".join(filter(None, [task["description"], checklist.written(task["checklist"])])):
        yield "DESCRIPTION", escaped(text)
    due = task["due_date"]
    if due:
        yield "DUE", due
    if task["recurrence"]:
        # The rule counts from DTSTART; that this is the due date as well is what other programs write and expect.
        yield "DTSTART", due
        yield "RRULE", rules.to_ics(task["recurrence"], due)
    yield "PRIORITY", str(PRIORITIES[task["priority"]])
    if task["category"]:
        yield f"CATEGORIES;{KIND}={CATEGORY}", escaped(task["category"])
    if task["tags"]:
        yield "CATEGORIES", ",".join(map(escaped, task["tags"]))
    yield "STATUS", "COMPLETED" if task["completed"] else "NEEDS-ACTION"
    if task["completed"]:
        yield "COMPLETED", task["completed_at"]


def written(name: str, value: Any) -> bytes:
    """A line, folded. A time is in UTC, as the database hands it out, and loses its fraction of a second."""
    if isinstance(value, str):
        line = Contentline.from_parts(name, Parameters(), Written(value))
    else:
        when = vDDDTypes(value.replace(tzinfo=UTC) if isinstance(value, datetime) else value)
        line = Contentline.from_parts(name, when.params, when)
    folded: bytes = line.to_ical()
    return folded


def escaped(text: str) -> str:
    text = CONTROLS.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    return re.sub(r"([\\;,])", r"\\\1", text).replace("\n", "\\n")


def unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] in "nN" else match[1], text)


def read(text: str, zone: tzinfo, identity: Callable[[str], str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) for each VTODO. Times without a time zone are `zone`'s; `identity` makes an id of a UID.

    Raises Invalid, naming the component and the line, for what can't be read.
    """
    for number, (line, found) in enumerate(todos(text), 1):
        place = f"component {number} (line {line})"
        try:
            yield place, fields(found, zone, identity)
        except ValueError as error:
            raise Invalid([(place, str(error))]) from None
        except OverflowError:
            raise Invalid([(place, "A time in it lies outside of the calendar.")]) from None


def fields(todo: Todo, zone: tzinfo, identity: Callable[[str], str]) -> dict[str, Any]:
    """A VTODO's properties as a file of JSON has them, but for days and times. Raises ValueError, for the user."""
    task: dict[str, Any] = {"title": text(todo, "SUMMARY") or "", "completed": completed(todo)}
    if uid := text(todo, "UID"):
        task["id"] = identity(uid)
    description, task["checklist"] = checklist.parted(text(todo, "DESCRIPTION") or "")
    task["description"] = description or None
    labels = todo.get("CATEGORIES", [])
    if sum(value.count(",") for _, value in labels) > MAX_CATEGORIES:
        raise ValueError(f"CATEGORIES must list at most {MAX_TAGS} tags.")
    own = [value for parameters, value in labels if is_category(parameters)]
    task["category"] = unescaped(own[0]) if own else None
    lists = [value for parameters, value in labels if not is_category(parameters)]
    task["tags"] = [unescaped(item) for value in lists for item in ITEM.findall(value) if item.strip()]
    task["recurrence"] = todo["RRULE"][0][1] if "RRULE" in todo else None
    task["due_date"] = due(todo, zone)
    names = {"CREATED": "created_at", "LAST-MODIFIED": "updated_at", "COMPLETED": "completed_at"}
    task |= {names[name]: moment(todo, name, zone) for name in names if name in todo}
    if (urgency := text(todo, "PRIORITY") or "0") not in map(str, range(10)):
        raise ValueError("PRIORITY must be a number from 0 to 9.")
    # RFC 5545, section 3.8.1.9: 0 is none given.
    task["priority"] = "high" if 1 <= int(urgency) <= 4 else "low" if int(urgency) >= 6 else "medium"
    return task


def is_category(parameters: dict[str, str]) -> bool:
    return parameters.get(KIND, "").upper() == CATEGORY


def text(todo: Todo, name: str) -> str | None:
    return unescaped(todo[name][0][1]) if name in todo else None


def completed(todo: Todo) -> bool:
    return (text(todo, "STATUS") or "").upper() == "COMPLETED" or ("STATUS" not in todo and "COMPLETED" in todo)


def due(todo: Todo, zone: tzinfo) -> date | None:
    """DUE; or DTSTART and DURATION; or, of what repeats, DTSTART alone."""
    if "DUE" in todo:
        return when(todo, "DUE", zone)
    if "DTSTART" not in todo or not todo.keys() & {"DURATION", "RRULE"}:
        return None
    start = when(todo, "DTSTART", zone)
    if "DURATION" in todo:
        try:
            duration: timedelta = vDuration.from_ical(todo["DURATION"][0][1])  # type: ignore[no-untyped-call]
            start += duration
        except (ValueError, OverflowError):
            raise ValueError("DURATION must be one (P1D, PT2H).") from None
    return start


def moment(todo: Todo, name: str, zone: tzinfo) -> datetime:
    """A time; a day, which a few programs write here, is its beginning."""
    found = when(todo, name, zone)
    if not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day, tzinfo=zone).astimezone(UTC)
    return found


def when(todo: Todo, name: str, zone: tzinfo) -> date:
    """A property's day, or moment in UTC. Raises ValueError."""
    parameters, value = todo[name][0]
    try:
        if not WHEN.fullmatch(value):
            raise ValueError(value)
        if len(value) == 8:
            return datetime.fromisoformat(value).date()
        local = datetime.fromisoformat(value)
        if local.tzinfo is None:
            local = local.replace(tzinfo=named_zone(parameters["TZID"]) if "TZID" in parameters else zone)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be a date (20261231) or a time (20261231T180000Z) in a known zone.") from None


@lru_cache(maxsize=1024)
def named_zone(name: Any) -> tzinfo:
    """A time zone by its IANA or Windows name. Raises ValueError."""
    if not isinstance(name, str) or len(name) >= 100:
        raise ValueError(name)
    parts = name.strip("/").split("/")
    # What begins with a slash has its maker's name in front (RFC 5545, section 3.2.19).
    for start in range(len(parts) if name.startswith("/") else 1):
        known = "/".join(parts[start:])
        with suppress(ValueError):
            return zones.zone(WINDOWS_TO_OLSON.get(known, known))
    raise ValueError(name)
