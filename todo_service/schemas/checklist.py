"""A task's checklist: the shapes of its items, and the field that takes all of them at once."""

import re
from typing import Any

import marshmallow as ma
from flask import g
from marshmallow import ValidationError, fields
from marshmallow.validate import Length

from ..db.models import MAX_ITEMS, MAX_TITLE
from .fields import Inner, StrictBoolean, Text

# An item's title is one line, as it is where checklists are text.
GOOD_ITEM = re.compile(f"[^\0\r\n\ud800-\udfff]{{1,{MAX_TITLE}}}")


def one_line(text: str) -> None:
    if "\n" in text or "\r" in text:
        raise ValidationError("Must be one line.")


class ItemFields(ma.Schema):
    completed = StrictBoolean(metadata={"description": "Done or not.", "example": True})


def item_title(**kwargs: Any) -> Text:
    pattern = r"^\s*[^\s\u0000\u001c-\u001f\u0085][^\u0000\r\n]*\s*$"
    told = {"description": "One line; trimmed.", "pattern": pattern, "example": "Oat milk"}
    return Text(strip=True, validate=[Length(1, MAX_TITLE), one_line], metadata=told, **kwargs)


class ChecklistItemCreate(ItemFields):
    title = item_title(required=True)


class ChecklistItemUpdate(ItemFields):
    """What is left out stays as it is."""

    title = item_title()


class ChecklistItem(ma.Schema):
    title = fields.String(required=True, validate=Length(1, MAX_TITLE), metadata={"example": "Oat milk"})
    completed = fields.Boolean(required=True, metadata={"example": True})


class Checklist(fields.List[dict[str, Any]]):
    """Items in their order."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Inner(ChecklistItemCreate), validate=Length(max=MAX_ITEMS), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        if len(value) > MAX_ITEMS:
            raise ValidationError(f"Must have at most {MAX_ITEMS} items.")
        items = [plain_item(item) for item in value]
        # The longer way says what is wrong; for good ones it takes twenty times as long.
        return super()._deserialize(value, attr, data, **kwargs) if None in items else items


def plain_item(item: Any) -> dict[str, Any] | None:
    """An item as it is kept; None if something is wrong with it."""
    if not isinstance(item, dict):
        return None
    title, completed = item.get("title"), item.get("completed", False)
    title = title.strip() if isinstance(title, str) else ""
    known = item.keys() <= {"title", "completed"} or not g.get("strict")
    good = known and isinstance(completed, bool) and GOOD_ITEM.fullmatch(title)
    return {"title": title, "completed": completed} if good else None
