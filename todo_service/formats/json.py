"""Tasks as JSON, `{"version": 1, "tasks": […]}`: the file that loses nothing. Pure.

Written one task a line, so that a person and `diff` can read it. Read in this form or as the bare array that a list of
tasks is answered as. A file's size is no measure of what it takes in memory: it is looked through before it is read.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ..db.models import QUOTA
from ..errors import Invalid
from ..http.conditions import JSON_OPTIONS
from ..http.parsing import MAX_DEPTH, refuse

FORM_VERSION = 1
MEDIA_TYPE = "application/json"
# As many as a file of 16 MiB has room for where each is an item of a checklist.
MAX_NESTED = 6 * QUOTA
# A string counts as one, be it closed or not, so that brackets in it don't count.
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', flags=re.DOTALL)


def write(pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """The file in pieces, one for each of the tasks, which are as `task_out` gives them.

    One by one, because what orjson gives keeps some 4 KB until it is let go of, whatever its size.
    """
    yield b'{"version":%d,"tasks":[' % FORM_VERSION
    between = b"\n"
    for page in pages:
        for task in page:
            yield between + orjson.dumps(task, option=JSON_OPTIONS)
            between = b",\n"
    yield b"\n]}\n"


def read(text: str, listed: str = "tasks") -> Iterator[tuple[str, Any]]:
    """(place, task as in the file) for each; `listed`: the name that a list of tasks is answered under.

    Raises Invalid, naming the line, for what is no such file; InvalidRequest for NaN and Infinity, which only Python
    takes for JSON.
    """
    look_through(text)
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except json.JSONDecodeError as error:
        problem = f"Is not JSON: {error.msg} (column {error.colno})."
        raise Invalid([(f"line {error.lineno}", problem)]) from None
    except ValueError:
        raise Invalid([("body", "A number in it has too many digits.")]) from None
    if isinstance(value, dict):
        if value.get("version", FORM_VERSION) != FORM_VERSION:
            raise Invalid([("version", f"Must be {FORM_VERSION}: no other form of the file is known.")])
        value = value.get("tasks", value.get(listed))
    if not isinstance(value, list):
        raise Invalid([("tasks", "Must be an array of tasks.")])
    yield from ((f"tasks.{number}", task) for number, task in enumerate(value))


def look_through(text: str) -> None:
    """Raise Invalid if the text is nested too deep or into too many pieces to be read."""
    depth = pieces = 0
    for token in TOKEN.finditer(text):
        match text[token.start()]:
            case "[" | "{":
                depth, pieces = depth + 1, pieces + 1
                if depth > MAX_DEPTH or pieces > MAX_NESTED:
                    line = text.count("\n", 0, token.start()) + 1
                    problem = (
                        f"Is nested deeper than {MAX_DEPTH} levels."
                        if depth > MAX_DEPTH
                        else "Has too many arrays and objects."
                    )
                    raise Invalid([(f"line {line}", problem)])
            case "]" | "}":
                depth -= 1


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which must not name a member twice (RFC 8259, section 4)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Invalid([("body", f"An object names the same field twice: {doubled(pairs)!a}.")])
    return members


def doubled(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
