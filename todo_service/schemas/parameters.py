"""What can be asked for in an address: the parameters that more than one feature has, and those of the task list."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import marshmallow as ma
from marshmallow import fields
from marshmallow.validate import Length, OneOf, Range

from ..db.models import MAX_CATEGORY, MAX_TAG, MAX_TAGS, MAX_TITLE, PRIORITIES
from ..tasks.listing import SORT_NAMES, SORTS
from ..tasks.search import MAX_WORDS, words
from ..tasks.zones import zone
from .fields import DAY, MOMENT, Due, Priority, Text

# Other names of the list's parameters that clients send.
LIST_ALIASES = {
    "q": "search",
    "sort_by": "sort",
    "sortBy": "sort",
    "sort_order": "order",
    "sortOrder": "order",
    "filter_status": "status",
}
DUE_TYPE = {"type": "string", "anyOf": [DAY, MOMENT]}


class QueryFlag(fields.Boolean):
    """`true` or `false`; also 1 and 0, as they come in a query string."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(truthy={"true", "1"}, falsy={"false", "0"}, **kwargs)


class QueryInteger(fields.Integer):
    """Plain ASCII digits; marshmallow would take `1_0` and digits of other scripts."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"\d{1,9}", value, flags=re.ASCII):
            raise ma.ValidationError("Not a valid integer.")
        return int(value)


class QueryList(fields.List[str]):
    """A parameter that may be repeated."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        return [self.inner.deserialize(value, attr, data, **kwargs)]


class TimeZone(fields.Field[ZoneInfo]):
    """A time zone by its IANA name."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> ZoneInfo:
        try:
            return zone(value)
        except (ValueError, TypeError):
            raise ma.ValidationError("Must be the name of a time zone, like Europe/Berlin.") from None


def bound(description: str) -> Due:
    return Due(metadata=DUE_TYPE | {"description": description})


def few_words(search: str) -> None:
    if len(words(search)) > MAX_WORDS:
        raise ma.ValidationError(f"Must have at most {MAX_WORDS} words.")


def time_zone() -> TimeZone:
    return TimeZone(
        load_default=lambda: ZoneInfo("UTC"),
        metadata={
            "description": "The time zone in which days begin and end, such as `Europe/Berlin`; UTC by default.",
            "type": "string",
            "format": "time-zone",
        },
    )


class Aliased(ma.Schema):
    """Parameters that have other names, too; those in the documentation win."""

    aliases: ClassVar[Mapping[str, str]] = {}

    @ma.pre_load
    def resolve_aliases(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {self.aliases[name]: value for name, value in data.items() if name in self.aliases} | {
            name: value for name, value in data.items() if name not in self.aliases
        }

    def handle_error(self, error: ma.ValidationError, data: Any, **_: Any) -> None:
        """Call a parameter in `error` what the client called it."""
        sent = {self.aliases[name]: name for name in data if name in self.aliases and self.aliases[name] not in data}
        error.messages = {sent.get(name, name): messages for name, messages in error.messages_dict.items()}


class ListQuery(Aliased):
    aliases = LIST_ALIASES

    status = fields.String(
        validate=OneOf(["all", "pending", "completed"]), metadata={"description": "Which tasks; `all` by default."}
    )
    completed = QueryFlag(metadata={"description": "The same as `status`, as a flag; `status` wins."})
    priority = QueryList(
        Priority(),
        validate=Length(max=len(PRIORITIES)),
        metadata={"description": "Only tasks of this priority; may be repeated: then of any of them."},
    )
    category = Text(
        strip=True,
        validate=Length(1, MAX_CATEGORY),
        metadata={"description": "Only tasks of this category, written the same."},
    )
    tag = QueryList(
        Text(validate=Length(1, MAX_TAG)),
        validate=Length(max=MAX_TAGS),
        metadata={"description": "Only tasks with this tag; may be repeated: then with all of them. Any case."},
    )
    search = Text(
        validate=[Length(max=MAX_TITLE), few_words],
        metadata={"description": "Every word must occur in the title or the description; any case, also inside words."},
    )
    due_before = bound("Due before this day (`2026-12-31`) or moment (`…T18:00:00Z`).")
    due_after = bound("Due after this day or moment.")
    completed_before = bound("Completed before this day or moment.")
    completed_after = bound("Completed after this day or moment.")
    updated_after = bound("Last changed after this day or moment.")
    created_after = bound("Created after this day or moment.")
    overdue = QueryFlag(metadata={"description": "Only tasks that are open and late (or, with `false`, all others)."})
    tz = time_zone()
    sort = fields.String(
        validate=OneOf(list(SORT_NAMES)),
        # The other spellings work, and stay out of the documentation.
        metadata={
            "description": "The sort key, `created_at` by default. Tasks without one come last.",
            "enum": [*SORTS],
        },
    )
    order = fields.String(
        validate=OneOf(["asc", "desc"]),
        metadata={"description": "By default due dates, titles and positions go up, all others down."},
    )
    limit = QueryInteger(
        load_default=1000, validate=Range(1, 1000), metadata={"description": "How many tasks a page has at most."}
    )
    cursor = fields.String(metadata={"description": "Where the page starts: taken from the `Link` header."})
    offset = QueryInteger(
        load_default=0,
        metadata={
            "description": "How many tasks to pass over; a `cursor` is faster and wins.",
            "minimum": 0,
            "maximum": 999_999_999,
        },
    )
    deleted = QueryFlag(load_default=False, metadata={"description": "The trash instead of the live tasks."})
    count = QueryFlag(load_default=False, metadata={"description": "Add the number of all matches: `X-Total-Count`."})

    @ma.post_load(pass_original=True)
    def note_ignored(self, data: dict[str, Any], original: dict[str, Any], **_: Any) -> dict[str, Any]:
        """`ignored`: the names that nobody knows."""
        known = {field.data_key or name for name, field in self.fields.items()} | self.aliases.keys()
        return data | {"ignored": [name for name in original if name not in known]}


class SweepQuery(ma.Schema):
    status = fields.String(
        required=True,
        validate=OneOf(["completed", "all"]),
        metadata={"description": "Which tasks to move to the trash.", "example": "completed"},
    )


class DeleteQuery(ma.Schema):
    permanent = QueryFlag(load_default=False, metadata={"description": "For good, instead of to the trash."})


class TimeZoneQuery(ma.Schema):
    tz = time_zone()
