"""The shapes of requests and answers, as marshmallow schemas: the contract, and the source of the documentation.

What a client may not set is not in the schemas for input: it is ignored, or refused when the client asks for that
(`http/parsing.py`). `task_out` is the fast way out; a test holds it equal to dumping with the schema `Task`. The types
of single fields are left to `schemas/fields.py`, checklists to `schemas/checklist.py`.
"""

from collections.abc import Collection
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

import marshmallow as ma
from marshmallow import fields
from marshmallow.validate import Length, OneOf, Range

from ..db.models import MAX_CATEGORY, MAX_DESCRIPTION, MAX_ITEMS, MAX_POSITION, MAX_TITLE, PRIORITIES, REPEAT_FROM
from ..tasks.queries import COLUMNS, TaskRow
from .checklist import Checklist, ChecklistItem
from .fields import (
    DAY,
    MOMENT,
    Category,
    Due,
    NewId,
    Number,
    Priority,
    Recurrence,
    StrictBoolean,
    Tags,
    TaskId,
    Text,
    Time,
)

DUE_TYPE = {"anyOf": [DAY, MOMENT, {"type": "null"}]}
ID = "0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10"


class Variant(NamedTuple):
    """One of several forms that a schema's objects have: the fields it needs, and those it may have besides.

    `told` is what the document says otherwise of a field for this form. A schema with `variants`, by their names, and a
    `discriminator`, the field whose value tells them apart (None: it's the fields themselves), is documented as `oneOf`
    them; what it loads is its own business.
    """

    needed: Collection[str]
    optional: Collection[str]
    told: dict[str, Any]


def only(value: str | bool) -> dict[str, Any]:
    """A field that has this value, in the document."""
    return {"type": "boolean" if isinstance(value, bool) else "string", "enum": [value], "example": value}


class TaskFields(ma.Schema):
    """What a client may set. `null` empties a field, or puts its default back where it can't be empty."""

    completed = StrictBoolean(metadata={"description": "Done or not.", "example": False})
    description = Text(
        allow_none=True,
        validate=Length(max=MAX_DESCRIPTION),
        metadata={"description": "More about it.", "example": "Oat, not almond"},
    )
    priority = Priority(
        allow_none=True,
        metadata={"description": "`medium` unless said otherwise; any case on input.", "example": "high"},
    )
    due_date = Due(
        allow_none=True,
        metadata=DUE_TYPE
        | {
            "description": "A day (`2026-12-31`), or a moment with its offset (`2026-12-31T18:00:00+01:00`), which is "
            "returned in UTC. Years 1970 to 9999.",
            "example": "2026-12-31",
        },
    )
    category = Category(
        allow_none=True,
        validate=Length(max=MAX_CATEGORY),
        metadata={"description": "One for each task; trimmed, and null if blank.", "example": "Groceries"},
    )
    tags = Tags(
        allow_none=True, metadata={"description": "Compared without regard to case.", "example": ["shopping", "home"]}
    )
    checklist = Checklist(allow_none=True, metadata={"description": "All items, in their order."})
    recurrence = Recurrence(
        allow_none=True,
        metadata={
            "description": "How the task repeats: `daily`, `weekly`, `monthly`, `yearly`, or a rule of FREQ, "
            "BYDAY, BYMONTHDAY, BYMONTH, COUNT, UNTIL, INTERVAL. Needs a due date.",
            "format": "rrule",
            "example": "FREQ=WEEKLY;BYDAY=MO,TH",
        },
    )
    repeat_from = fields.String(
        allow_none=True,
        validate=OneOf(REPEAT_FROM),
        metadata={"description": "Whether the next due date counts from this one, or from its completion."},
    )
    position = Number(
        allow_none=True,
        validate=Range(-MAX_POSITION, MAX_POSITION),
        metadata={"description": "Place in the manual order; a new task goes to the end.", "example": 1.5},
    )


class TaskCreate(TaskFields):
    id: TaskId = NewId(
        allow_none=True,
        metadata={
            "description": "A UUID of the client's own, for tasks made offline: 409 if the user has a task with it, or "
            "had one. Anything else is ignored, and the service makes one.",
            "example": ID,
        },
    )
    title = Text(
        required=True,
        strip=True,
        validate=Length(1, MAX_TITLE),
        metadata={"description": "What is to be done; trimmed.", "example": "Buy milk"},
    )


class TaskUpdate(TaskFields):
    """Fields that are left out stay as they are."""

    title = Text(
        strip=True,
        validate=Length(1, MAX_TITLE),
        metadata={"description": "What is to be done; trimmed.", "example": "Buy oat milk"},
    )


class Task(ma.Schema):
    """A task as the service answers it: every field is always there."""

    id = fields.UUID(
        required=True, metadata={"description": "Made by the service (UUIDv7), or by the client.", "example": ID}
    )
    user_id = fields.String(required=True, metadata={"description": "Whose task it is.", "example": "t7ELSW0lEp39uxq5"})
    title = fields.String(required=True, validate=Length(1, MAX_TITLE), metadata={"example": "Buy milk"})
    description = fields.String(
        required=True, allow_none=True, validate=Length(max=MAX_DESCRIPTION), metadata={"example": "Oat, not almond"}
    )
    completed = fields.Boolean(required=True, metadata={"example": False})
    completed_at = Time(
        required=True, allow_none=True, metadata={"description": "When it was completed.", "example": None}
    )
    priority = fields.String(required=True, validate=OneOf(PRIORITIES), metadata={"example": "medium"})
    due_date = Due(
        required=True,
        allow_none=True,
        metadata=DUE_TYPE
        | {"description": "In the form given: a day, or a moment in UTC.", "example": "2026-12-31T17:00:00Z"},
    )
    category = fields.String(
        required=True, allow_none=True, validate=Length(1, MAX_CATEGORY), metadata={"example": "Groceries"}
    )
    tags = fields.List(fields.String(), required=True, metadata={"example": ["shopping", "home"]})
    checklist = fields.List(fields.Nested(ChecklistItem), required=True, validate=Length(max=MAX_ITEMS))
    checklist_done = fields.Integer(required=True, metadata={"description": "How many items are done.", "example": 1})
    checklist_total = fields.Integer(required=True, metadata={"description": "How many there are.", "example": 1})
    recurrence = fields.String(required=True, allow_none=True, metadata={"example": "FREQ=WEEKLY;BYDAY=MO,TH"})
    repeat_from = fields.String(required=True, validate=OneOf(REPEAT_FROM), metadata={"example": "due"})
    position = fields.Float(required=True, metadata={"description": "Place in the manual order.", "example": 7})
    created_at = Time(required=True, metadata={"example": "2025-07-02T05:38:05.743000Z"})
    updated_at = Time(required=True, metadata={"example": "2025-07-03T17:20:00Z"})
    deleted_at = Time(
        required=True, allow_none=True, metadata={"description": "When it was moved to the trash.", "example": None}
    )
    version = fields.Integer(
        required=True, metadata={"description": "Grows with every change; in quotes, for If-Match.", "example": 17}
    )


FIELDS = tuple(Task().fields)
# Fields that are made of a column, where it isn't that of their name.
MADE_OF = {"due_date": "due_on", "checklist_done": "checklist", "checklist_total": "checklist"}
_values = itemgetter(*(COLUMNS.index(MADE_OF.get(name, name)) for name in FIELDS))


def task_out(row: TaskRow) -> dict[str, Any]:
    """A row that begins with the columns of `queries.TASK` as the JSON object that Task describes."""
    task = dict(zip(FIELDS, _values(row), strict=False))
    task["priority"] = PRIORITIES[task["priority"] - 1]
    task["due_date"] = task["due_date"] or row.due_at
    if items := task["checklist"]:
        task["checklist_done"], task["checklist_total"] = sum(item["completed"] for item in items), len(items)
    else:
        task["checklist_done"] = task["checklist_total"] = 0
    return task


class Completion(ma.Schema):
    """Without `completed` the task is toggled."""

    body_optional = True

    completed = StrictBoolean(
        metadata={"description": "True or false to set; leave it out to toggle.", "example": True}
    )


class Move(ma.Schema):
    """One of both."""

    variants: ClassVar = {"MoveAfter": Variant({"after"}, (), {}), "MoveBefore": Variant({"before"}, (), {})}
    discriminator = None

    after = TaskId(
        allow_none=True, metadata={"description": "The task to come right behind; null: the end.", "example": ID}
    )
    before = TaskId(
        allow_none=True, metadata={"description": "The task to come right before; null: the start.", "example": ID}
    )

    @ma.validates_schema
    def one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ma.ValidationError("Must have either `after` or `before`.")


class Deleted(ma.Schema):
    deleted = fields.Integer(required=True, metadata={"description": "How many tasks were moved.", "example": 3})


class FieldError(ma.Schema):
    field = fields.String(required=True, metadata={"example": "title"})
    message = fields.String(required=True, metadata={"example": "Length must be between 1 and 200."})


class ProblemDetails(ma.Schema):
    """An error (RFC 9457): `detail` is for people, `code` for programs."""

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True, metadata={"example": "Unprocessable Entity"})
    status = fields.Integer(required=True, metadata={"example": 422})
    detail = fields.String(required=True, metadata={"example": "title: Length must be between 1 and 200."})
    message = fields.String(required=True, metadata={"description": "The same as `detail`."})
    code = fields.String(required=True, metadata={"description": "Stable, kebab-case.", "example": "invalid"})
    errors = fields.List(fields.Nested(FieldError), required=True, metadata={"description": "One for each bad field."})
    request_id = fields.String(
        required=True, allow_none=True, metadata={"description": "Finds it in the log.", "example": ID}
    )
