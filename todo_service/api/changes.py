"""Delta sync: what has changed for a user since a token. Which changes those are is left to `tasks/feed.py`."""

from collections.abc import Callable
from typing import Any, ClassVar

import marshmallow as ma
from flask import Response
from marshmallow import fields
from marshmallow.validate import Range
from sqlalchemy import Row

from ..db.session import Session
from ..http.authentication import bearer
from ..http.conditions import answer
from ..schemas.dialect import shapes
from ..schemas.parameters import QueryInteger
from ..schemas.tasks import ID, Task, Variant, only
from ..tasks.feed import changes_since
from ..tasks.queries import TaskRow
from .blueprint import Blueprint

FIELDS = ("id", "version", "purged", "task")

blueprint = Blueprint("sync", description="Follow a user's changes: what is new, what has changed, what is gone.")


class ChangesQuery(ma.Schema):
    since = fields.String(metadata={"description": "The `next` of an earlier answer; leave it out to start."})
    limit = QueryInteger(
        load_default=1000, validate=Range(1, 1000), metadata={"description": "How many changes an answer has at most."}
    )


class Change(ma.Schema):
    """What has become of a task: changed, and as it is now; or purged, and without."""

    discriminator = "purged"
    variants: ClassVar = {
        "Changed": Variant(FIELDS, (), {"purged": only(False), "task": {"$ref": "#/components/schemas/Task"}}),
        "Purged": Variant(FIELDS, (), {"purged": only(True), "task": {"type": "null"}}),
    }

    id = fields.UUID(required=True, metadata={"example": ID})
    version = fields.Integer(required=True, metadata={"example": 17})
    purged = fields.Boolean(required=True, metadata={"description": "Gone for good: forget it.", "example": False})
    task = fields.Nested(
        Task, required=True, allow_none=True, metadata={"description": "As it is now; null if purged."}
    )


class Changes(ma.Schema):
    changes = fields.List(fields.Nested(Change), required=True)
    next = fields.String(
        required=True, metadata={"description": "Send this as `since` the next time.", "example": "WyIw…"}
    )
    has_more = fields.Boolean(required=True, metadata={"description": "Ask again at once.", "example": False})


@blueprint.get("/tasks/changes")
@bearer
@blueprint.arguments(ChangesQuery(), location="query")
@blueprint.response(200, Changes)
def list_changes(session: Session, query: dict[str, Any]) -> Response:
    """What has changed since a token

    Without `since`: everything, to start from. Then send `next` as `since`, at once while `has_more` is true. A task
    comes as it is now, in the trash too (`deleted_at`); one that is gone for good comes as `purged`. Answered by 410
    when the token is older than the deletions that are still known: start again without one.
    """
    found, out = changes_since(session, query.get("since"), query["limit"]), shapes().out()
    body = {"changes": [change(row, out) for row in found.rows], "next": found.next, "has_more": found.has_more}
    return answer(body)


def change(row: Row[*tuple[Any, ...]], out: Callable[[TaskRow], dict[str, Any]]) -> dict[str, Any]:
    purged = row.id is None
    task = None if purged else out(row)
    return {"id": row.change_id, "version": row.change_version, "purged": purged, "task": task}
