"""Tasks as a calendar's VTODOs (RFC 5545, section 3.6.2), for other programs that keep tasks. Pure.

The icalendar library splits, joins and folds the lines and writes the values. Its text is not used: it takes `\\N` in a
task's own words (`C:\\New`) for a line break; and neither is its parser for whole files, which drops what it can't read
where a user must be told. What a VTODO has no property for (the order, `repeat_from`, the trash) is left out; but a
checklist stands at the end of the description, as a task list in Markdown, and is taken from there.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from icalendar import Parameters, vDDDTypes, vDuration
from icalendar.parser import Contentline
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

from ..db.models import MAX_TAGS, QUOTA
from ..errors import Invalid
from ..tasks import zones
from ..tasks.recurrence import rules
from . import checklist

BEGIN = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//todo_service//tasks//EN\r\n"
END = "END:VCALENDAR\r\n"
PRIORITIES = {"high": 1, "medium": 5, "low": 9}
WHEN = re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?")
# RFC 5545, section 3.3.11: what a text can't have, in any form; its place is kept, as a title must not be empty.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ITEM = re.compile(r"(?:\\.|[^\\,])+", flags=re.DOTALL)
# A line up to its value (RFC 5545, section 3.1). What is written otherwise, as with blanks, is left to the library.
VALUE = r"""(?:"[^"]*+"|[^";:,\\\x00-\x1f]*+)"""
HEAD = re.compile(rf"([\w.-]++)((?:;[\w.-]++={VALUE}(?:,{VALUE})*+)*+):")
PARAMETER = re.compile(r""";([\w.-]++)=((?:"[^"]*+"|[^;"])*+)""")
KEYWORD = re.compile("(?:BEGIN|END):", flags=re.IGNORECASE)
# What a task is made of; of all else, only the form is looked at.
USED = {
    *("UID", "SUMMARY", "DESCRIPTION", "CATEGORIES", "RRULE", "STATUS", "PRIORITY"),
    *("DUE", "DTSTART", "DURATION", "CREATED", "LAST-MODIFIED", "COMPLETED"),
}
# Of all tasks of a file (an export of 16 MiB with short titles has 620,000); and characters that the library splits.
MAX_PROPERTIES = 7 * QUOTA
MAX_SPLIT = 1_000_000
MAX_CATEGORIES = 10_000
# Tags and the category are both CATEGORIES, as other programs know nothing else; this one is told by a parameter.
KIND, CATEGORY = "X-KIND", "CATEGORY"
TODO = ["VCALENDAR", "VTODO"]

Line = tuple[int, str]
Property = tuple[dict[str, str], str]
Todo = dict[str, list[Property]]


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


def todos(text: str) -> Iterator[tuple[int, Todo]]:
    """The line and the properties, by name, of each VTODO; without those of what stands inside it, such as alarms."""
    within: list[str] = []
    begun, found = 0, Todo()
    properties = Properties()
    for number, line in unfolded(text):
        keyword, _, name = line.upper().partition(":") if KEYWORD.match(line) else ("", "", "")
        if not within and (keyword, name) != ("BEGIN", "VCALENDAR"):
            raise Invalid([(f"line {number}", "Is not a calendar: it must begin with BEGIN:VCALENDAR.")])
        if keyword == "BEGIN":
            within.append(name)
            if within == TODO:
                begun, found = number, {}
        elif keyword == "END":
            if name != within[-1]:
                raise Invalid([(f"line {number}", f"Ends {name[:50]}, where {within[-1][:50]} has begun.")])
            if within == TODO:
                yield begun, found
            within.pop()
        elif within == TODO:
            properties.add(found, number, line)
    if within or not text.strip():
        raise Invalid([("body", "The file ends in the middle." if within else "The file is empty.")])


class Properties:
    """Splits the lines of a file's tasks: at most MAX_PROPERTIES, and of MAX_SPLIT characters the long way."""

    def __init__(self) -> None:
        self.room, self.long_way = MAX_PROPERTIES, MAX_SPLIT

    def add(self, found: Todo, number: int, line: str) -> None:
        """Put what a line says to the other properties, if it is one of USED. Raises Invalid."""
        self.room -= 1
        if self.room < 0:
            raise Invalid([(f"line {number}", f"The tasks of a file may have at most {MAX_PROPERTIES} properties.")])
        name, _, value = line.partition(":")
        parameters: dict[str, str] = {}
        if name in USED:  # as almost all are written; the rest takes longer
            pass
        elif not (head := HEAD.match(line)):
            name, parameters, value = self._by_library(number, line)
        elif head[1].upper() in USED:
            name, value = head[1], line[head.end() :]
            parameters = {name.upper(): text.strip(' "') for name, text in PARAMETER.findall(head[2])}
        else:
            return
        found.setdefault(name.upper(), []).append((parameters, value))

    def _by_library(self, number: int, line: str) -> tuple[str, dict[str, str], str]:
        self.long_way -= len(line)
        if self.long_way < 0:
            raise Invalid([(f"line {number}", "Is one of too many that are not of the form NAME;PARAMETER=x:value.")])
        try:
            name, parameters, value = Contentline(line).raw_parts()  # type: ignore[no-untyped-call]
        except ValueError:
            raise Invalid([(f"line {number}", "Is not a line of a calendar (NAME:value).")]) from None
        return name, {name.upper(): text for name, text in parameters.items() if isinstance(text, str)}, value


def unfolded(text: str) -> Iterator[Line]:
    """Lines with their number; what is folded (RFC 5545, section 3.1) is one line, even if there is none before it."""
    begun, pieces = 1, [""]
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        line = line.rstrip("\r\n")
        if line[:1] in (" ", "\t"):
            pieces.append(line[1:])
            continue
        if whole := "".join(pieces):
            yield begun, whole
        begun, pieces = number, [line]
    if whole := "".join(pieces):
        yield begun, whole


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
