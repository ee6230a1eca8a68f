"""A request's fields as the columns they are kept in. Pure."""

from typing import Any

from ..db.models import PRIORITIES, tasks
from .search import fold

# The columns that are made of what clients send; and their fields, a due date being in one of two columns.
SENT = tuple(str(column.name) for column in tasks.c if column.info.get("sent", True))
FIELDS = [
    "due_date" if name in ("due_on", "due_at") else name for name in SENT if tasks.c[name].info.get("shown", True)
]
# What a new task's fields are where the request says nothing, or null.
DEFAULTS: dict[str, Any] = dict.fromkeys(FIELDS) | {
    "completed": False,
    "priority": "medium",
    "tags": [],
    "checklist": [],
    "repeat_from": "due",
}


def columns(fields: dict[str, Any]) -> dict[str, Any]:
    """The columns; null puts the default back where one can't be empty."""
    values: dict[str, Any] = {name: DEFAULTS.get(name) if value is None else value for name, value in fields.items()}
    for name in ("title", "description"):
        if name in values:
            values[f"{name}_key"] = None if values[name] is None else fold(values[name])
    if "priority" in values:
        values["priority"] = PRIORITIES.index(values["priority"]) + 1
    if "tags" in values:
        values["tag_keys"] = [fold(tag) for tag in values["tags"]]
    if "due_date" in values:
        due = values.pop("due_date")
        timed = hasattr(due, "hour")
        values["due_on"], values["due_at"] = (None, due) if timed else (due, None)
    return values
