"""A checklist as the lines of a Markdown task list, `- [x] Oat milk`, for formats that know nothing but text. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from ..db.models import MAX_ITEMS, MAX_TITLE

BULLET = "- "
ITEM = re.compile(rf"([-*+] )?\[([ xX])\] +(\S.{{0,{MAX_TITLE - 1}}})")
BREAK = re.compile(r"\r\n?|\n")


def written(items: Iterable[dict[str, Any]], bullet: str = BULLET) -> str:
    return "\n".join(f"{bullet}[{'x' if item['completed'] else ' '}] {item['title']}" for item in items)


def read(text: str) -> list[dict[str, Any]]:
    """The items in `text`, one in each line; one without a box is open."""
    return [item(line) for line in map(str.strip, BREAK.split(text)) if line]


def parted(text: str) -> tuple[str, list[dict[str, Any]]]:
    """`text` without the task list at its end, and that; one of more items than there may be stays in the text."""
    lines = text.split("\n")
    start = len(lines)
    while start and (found := ITEM.fullmatch(lines[start - 1])) and found[1]:
        start -= 1
    if not 0 < len(lines) - start <= MAX_ITEMS:
        return text, []
    # They are a paragraph of their own.
    before = lines[: start - 1] if start and not lines[start - 1] else lines[:start]
    return "\n".join(before), [item(line) for line in lines[start:]]


def item(line: str) -> dict[str, Any]:
    found = ITEM.fullmatch(line)
    return {"title": found[3], "completed": found[2] != " "} if found else {"title": line, "completed": False}
