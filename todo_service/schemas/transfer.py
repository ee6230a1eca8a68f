"""The shapes of what an import takes and of what an export gives."""

from datetime import date, datetime
from typing import Any

import marshmallow as ma
from marshmallow import fields
from marshmallow.validate import OneOf, Range

from ..db.models import MAX_OCCURRENCE
from .fields import MOMENT, YEARS, StrictInteger, TaskId, parse_due
from .tasks import ID, Task, TaskCreate

FORMATS = ("json", "csv", "ics")
SERIES = {
    "description": "Which tasks are occurrences of the same one; null before the first completion.",
    "example": ID,
}
OCCURRENCE = {"description": "Its number in the series, from 0.", "example": 0}
PLACE = ("series", "occurrence")


class Moment(fields.Field[datetime]):
    """A time with its offset, in UTC."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            moment: date = parse_due(value)
        except (ValueError, OverflowError, TypeError):
            moment = date.max
        if not isinstance(moment, datetime) or moment.year not in YEARS:
            raise ma.ValidationError("Must be a time with its offset (2026-12-31T18:00:00Z, …+05:00).")
        return moment


def moment(description: str) -> Moment:
    return Moment(allow_none=True, metadata=MOMENT | {"description": description})


class ImportTask(TaskCreate):
    """As exported; only the title is needed. `user_id` and `version` are left out of account."""

    id = TaskId(
        allow_none=True,
        metadata={"description": "A task that is there already is left as it is."},
    )
    created_at = moment("Now, if left out.")
    updated_at = moment("The same as `created_at`, if left out.")
    completed_at = moment("Completes the task, unless `completed` says otherwise.")
    deleted_at = moment("In the trash since then.")
    # A link, and nothing that the task says: it is left out where another task has this place.
    series = TaskId(allow_none=True, metadata=SERIES)
    occurrence = StrictInteger(allow_none=True, validate=Range(0, MAX_OCCURRENCE), metadata=OCCURRENCE)


class ImportFile(ma.Schema):
    """What an export gives; or only the array of tasks."""

    version = fields.Integer(metadata={"description": "Of the form; 1.", "minimum": 1, "maximum": 1, "example": 1})
    tasks = fields.List(fields.Nested(ImportTask), required=True)


class ExportTask(Task):
    """A task with all there is to it."""

    series = fields.UUID(required=True, allow_none=True, metadata=SERIES)
    occurrence = fields.Integer(required=True, allow_none=True, metadata=OCCURRENCE)


class ExportFile(ma.Schema):
    version = fields.Integer(required=True, metadata={"description": "Of the form; 1.", "example": 1})
    tasks = fields.List(fields.Nested(ExportTask), required=True)


class Imported(ma.Schema):
    created = fields.Integer(required=True, metadata={"description": "New tasks.", "example": 12})
    skipped = fields.Integer(
        required=True, metadata={"description": "Tasks that were there already, in the trash too.", "example": 3}
    )


class ExportQuery(ma.Schema):
    format = fields.String(
        load_default="json",
        validate=OneOf(FORMATS),
        metadata={
            "description": "`json`: everything, the trash too, and the only one that loses nothing. `csv`: for "
            "spreadsheets. `ics`: for calendars.",
        },
    )
