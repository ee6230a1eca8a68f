"""The types of fields: strict where marshmallow is kind (no "yes" for true, no 1.9 for 1).

A value that was meant otherwise is better refused than stored. Which fields a request has is left to `tasks.py`.
"""

import re
from datetime import UTC, date, datetime
from typing import Any

from flask import g
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, missing
from marshmallow.validate import Length, OneOf

from ..db.models import MAX_POSITION, MAX_TAG, MAX_TAGS, PRIORITIES
from ..tasks.recurrence import rules
from ..tasks.search import fold

# RFC 3339, section 5.6; seconds may be left out, as browsers do. ASCII digits only.
TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", flags=re.ASCII
)
DATE = re.compile(r"\d{4}-\d\d-\d\d", flags=re.ASCII)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", flags=re.ASCII | re.IGNORECASE)
YEARS = range(1970, 10_000)
# The same for the documentation.
DAY, MOMENT = (
    {"type": "string", "format": form, "pattern": "^(19[7-9]|[2-9][0-9]{2})[0-9]-"} for form in ("date", "date-time")
)
# What some languages send for an id that isn't there (RFC 9562, section 5.9).
NIL = "00000000-0000-0000-0000-000000000000"
MAX_INTEGER = (1 << 63) - 1
# With those that are there twice; more are refused before each of them is looked at.
MAX_LISTED_TAGS = 10 * MAX_TAGS
GOOD_TAG = re.compile(f"[^\0\ud800-\udfff]{{1,{MAX_TAG}}}")
UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


class Text(fields.String):
    """A string that PostgreSQL can keep: no NUL, and no half of a surrogate pair, which UTF-8 can't express."""

    def __init__(self, *, strip: bool = False, metadata: dict[str, Any] | None = None, **kwargs: Any) -> None:
        pattern = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$" if strip else r"^[^\u0000]*$"
        super().__init__(metadata={"pattern": pattern} | (metadata or {}), **kwargs)
        self.strip = strip

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if UNKEEPABLE.search(text):
            raise ValidationError("Must not contain NUL characters or unpaired surrogates.")
        return text.strip() if self.strip else text


class Category(Text):
    """Trimmed; a blank one, as forms send where nothing is chosen, is none."""

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        blank = isinstance(value, str) and not value.strip()
        return super().deserialize(None if blank else value, attr, data, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).strip()


class StrictBoolean(fields.Boolean):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


class Number(fields.Float):
    """A JSON number, no string and no boolean, up to so large that there are many others between two whole ones."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_POSITION:
            raise ValidationError(f"Must be a number between {-MAX_POSITION:.0f} and {MAX_POSITION:.0f}.")
        return float(value)


class Priority(fields.String):
    """`low`, `medium` or `high`; in any case on input, because some clients send upper case."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=OneOf(PRIORITIES), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        return text.lower()


class Due(fields.Field[date]):
    """A day (`date`) or a moment (`datetime` in UTC), told apart by how it was written."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> date:
        try:
            due = parse_due(value)
        except (ValueError, OverflowError, TypeError):
            raise ValidationError(
                "Must be a date (2026-12-31) or a time with its offset (2026-12-31T18:00:00Z, …+05:00)."
            ) from None
        if due.year not in YEARS:
            raise ValidationError(f"Must lie in the years {YEARS[0]} to {YEARS[-1]}, in UTC.")
        return due

    def _serialize(self, value: date | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if value is None:
            return None
        return value.isoformat() + ("Z" if isinstance(value, datetime) else "")


def parse_due(value: str | date) -> date:
    """A day or a moment from its RFC 3339 text, or as it is. Raises ValueError, OverflowError or TypeError."""
    if isinstance(value, date):
        return value
    if DATE.fullmatch(value):
        return date.fromisoformat(value)
    match = TIMESTAMP.fullmatch(value)
    if not match:
        raise ValueError(value)
    day, clock, fraction, offset = match.groups()
    microseconds = f".{fraction[:6]:0<6}" if fraction and clock.count(":") == 2 else ""
    return datetime.fromisoformat(f"{day}T{clock}{microseconds}{offset.upper()}").astimezone(UTC)


class Time(fields.Field[datetime]):
    """A moment in UTC; the database hands these out without an offset."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return value.isoformat() + "Z" if value else None


class Tags(fields.List[str]):
    """Trimmed strings; of those that differ only in case, the first stays."""

    def __init__(self, **kwargs: Any) -> None:
        tag = Text(strip=True, validate=Length(1, MAX_TAG), metadata={"example": "home"})
        super().__init__(tag, validate=Length(max=MAX_TAGS), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list) and len(value) > MAX_LISTED_TAGS:
            raise ValidationError(f"Must list at most {MAX_TAGS} tags, each once.")
        tags = [tag.strip() if isinstance(tag, str) else "" for tag in value] if isinstance(value, list) else [""]
        if not all(map(GOOD_TAG.fullmatch, tags)):  # the longer way says what is wrong
            tags = [str(tag) for tag in super()._deserialize(value, attr, data, **kwargs)]
        unique: dict[str, str] = {}
        for tag in tags:
            unique.setdefault(fold(tag), tag)
        return list(unique.values())


def canonical_id(text: str) -> str:
    """A task's id as it is kept, in lower case. Raises ValueError for what can't be one."""
    if not UUID.fullmatch(text):
        raise ValueError(text)
    return text.lower()


class TaskId(fields.UUID):
    """A task's id, as text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return canonical_id(value)
        except (ValueError, TypeError):
            raise ValidationError("Not a valid UUID.") from None


class NewId(TaskId):
    """An id that the client has made. What can't be one counts as left out: typed clients send "" there, or a number
    of their own; who asks for strict handling is told.
    """

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        if value in (None, NIL):
            return missing
        try:
            return super().deserialize(value, attr, data, **kwargs)
        except ValidationError:
            if g.get("strict"):
                raise
            return missing


class StrictInteger(fields.Integer):
    """A JSON integer that fits into the database's."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        # 17.0 is an integer too (JSON Schema, validation, 6.1.1).
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
            raise ValidationError("Must be a whole number.")
        return value


class Recurrence(fields.String):
    """A rule of RFC 5545, or one of its short names."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        try:
            return rules.parse(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Inner(fields.Nested):
    """A shape within a request's, as strict about unknown names as the whole: marshmallow doesn't hand that on."""

    def _load(self, value: Any, partial: Any = None) -> Any:
        return load_inner(self.schema, value, partial)


def load_inner(schema: Schema, value: Any, partial: Any = None) -> Any:
    return schema.load(value, unknown=RAISE if g.get("strict") else EXCLUDE, partial=partial)
