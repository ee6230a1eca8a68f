"""Tasks as CSV (RFC 4180), as spreadsheets read and write it. Pure.

With a byte order mark, without which Excel takes UTF-8 for something else, and defused: a cell that begins like a
formula would be run by whoever opens the file, so it gets an apostrophe in front (OWASP, "CSV Injection"), which
reading takes off again. Null and the empty text are one in a cell; all else comes back as it was.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

from marshmallow import fields

from ..errors import Invalid
from ..schemas.fields import Tags, Text
from ..schemas.tasks import FIELDS, TaskCreate
from . import checklist

MEDIA_TYPE = "text/csv"
LEFT_OUT = ("user_id", "checklist_done", "checklist_total", "deleted_at", "version")
COLUMNS = tuple(name for name in FIELDS if name not in LEFT_OUT)


def of_type(*types: type[fields.Field[Any]]) -> frozenset[str]:
    return frozenset(name for name, field in TaskCreate().fields.items() if isinstance(field, types))


TEXTS, NUMBERS, FLAGS = of_type(Text, Tags), of_type(fields.Number), of_type(fields.Boolean)
MAX_COLUMNS = 100
MARK = "\ufeff"
# What spreadsheets take for the beginning of a formula, in full width too. Apostrophes before it count with it, so that
# a text which has one of its own comes back with it.
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
TAG = re.compile(r"(?:\\[\\,]|[^,])+")
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

EXAMPLE = 'title,priority,due_date,tags\r\nBuy milk,high,2026-12-31,"shopping, home"\r\n'


def write(pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """The file in pieces, one for each page of tasks as `task_out` gives them."""
    yield MARK.encode() + lines([COLUMNS])
    for page in pages:
        yield lines([cell(name, task[name]) for name in COLUMNS] for task in page)


def lines(rows: Iterable[Iterable[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue().encode()


def cell(name: str, value: Any) -> str:
    if name == "checklist":
        # Without bullets, which would begin a formula.
        return checklist.written(value, bullet="")
    if isinstance(value, list):
        value = ", ".join(re.sub(r"([\\,])", r"\\\1", tag) for tag in value)
    match value:
        case str() if name in TEXTS and FORMULA.match(value):
            return "'" + value
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return str(value).removesuffix(".0")
        case datetime():
            return value.isoformat() + "Z"
        case date():
            return value.isoformat()
        case _:
            return str(value)


def read(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, fields) for each row; columns in any order, between them commas, semicolons or tabs as in the header.

    Raises Invalid, naming the line, for what is no such file.
    """
    header = text[: text.find("\n") + 1] or text
    delimiter = max(",;\t", key=header[:10_000].count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    at, names = 1, None
    try:
        for cells in table:
            if names is None:
                names = columns(cells)
            elif cells:
                if len(cells) > len(names):
                    raise Invalid([(f"line {at}", "Has more cells than the first line has names.")])
                # Spreadsheets leave out what is empty at the end.
                yield f"line {at}", dict(value(*pair) for pair in zip(names, cells, strict=False) if all(pair))
            at = table.line_num + 1
    except csv.Error as error:
        raise Invalid([(f"line {at}", f"Is not CSV: {error}.")]) from None
    if names is None:
        raise Invalid([("line 1", "Must name the columns.")])


def columns(cells: list[str]) -> list[str]:
    """The names in the first line, `Due date` as good as `due_date`. Raises Invalid."""
    names = [cell.strip().lower().replace(" ", "_") for cell in cells]
    if "title" not in names:
        raise Invalid([("line 1", "Must name the columns, among them `title`.")])
    known = [name for name in names if name]
    if len(names) > MAX_COLUMNS or len(set(known)) < len(known):
        raise Invalid([("line 1", f"Must not name a column twice, nor more than {MAX_COLUMNS}.")])
    return names


def value(name: str, cell: str) -> tuple[str, Any]:
    """The cell in the form of JSON; one that can't be read stays a text, and is refused for that later."""
    if name in TEXTS and FORMULA.match(cell) and cell.startswith("'"):
        cell = cell[1:]
    if name == "tags":
        tags = cell.split(",")
        if "\\" in cell:
            tags = [re.sub(r"\\([\\,])", r"\1", tag) for tag in TAG.findall(cell)]
        return name, [tag for tag in tags if tag.strip()]
    if name == "checklist":
        return name, checklist.read(cell)
    if name in FLAGS:
        return name, TRUTHS.get(cell.strip().lower(), cell)
    if name in NUMBERS and NUMBER.fullmatch(cell.strip()):
        return name, float(cell)
    return name, cell if name in TEXTS else cell.strip()
