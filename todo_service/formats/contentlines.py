"""The lines of a calendar's file (RFC 5545, section 3.1), and the properties of each VTODO in it. Pure.

A line is split by a pattern, where it is written as almost all programs write it; else by the icalendar library, which
takes longer. What the properties mean is left to `ics.py`.
"""

import io
import re
from collections.abc import Iterator

from icalendar.parser import Contentline

from ..db.models import QUOTA
from ..errors import Invalid

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
TODO = ["VCALENDAR", "VTODO"]

Line = tuple[int, str]
Property = tuple[dict[str, str], str]
Todo = dict[str, list[Property]]


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
