"""A request's fields as the columns they are kept in. Pure."""

from typing import Any

from ..db.models import PRIORITIES
from .search import fold

DEFAULTS: dict[str, Any] = dict(
    description=None,
    completed=False,
    priority=None,
    due_date=None,
    tags=None,
    position=None,
    recurrence=None,
    repeat_from=None,
)


def columns(fields: dict[str, Any]) -> dict[str, Any]:
    """The columns; null puts the default back where one can't be empty."""
    values = dict(fields)
    for name in ("title", "description"):
        if name in values:
            values[f"{name}_key"] = None if values[name] is None else fold(values[name])
    if "priority" in values:
        values["priority"] = PRIORITIES.index(values["priority"] or "medium") + 1
    if "tags" in values:
        values["tags"] = values["tags"] or []
        values["tag_keys"] = [fold(tag) for tag in values["tags"]]
    if "repeat_from" in values:
        values["repeat_from"] = values["repeat_from"] or "due"
    if "due_date" in values:
        due = values.pop("due_date")
        timed = hasattr(due, "hour")
        values["due_on"], values["due_at"] = (None, due) if timed else (due, None)
    return values
