"""Delta sync: what has changed for a user since a token, in the order in which it became visible.

Versions come from the owner's revision, whose row is locked until each change is committed; so a page never misses a
change that is committed later with a lower version, as pages by time or by sequence do. A token holds up to which
revision the client had everything when it began this round, where in the feed it stands (version and id), and the
owner's nonce. Deletions leave tombstones; a client that began before the oldest tombstone kept has to start over (410),
and so has one whose token is from another life of the user.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import marshmallow as ma
from flask import Response
from marshmallow import fields
from marshmallow.validate import Range
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Subquery,
    Table,
    bindparam,
    cast,
    func,
    null,
    select,
    true,
    union_all,
)

from ..db.models import ID, owners, tasks, tombstones
from ..db.session import Session
from ..errors import Gone, Invalid
from ..http.authentication import bearer
from ..http.conditions import answer
from ..schemas.dialect import shapes
from ..schemas.parameters import QueryInteger
from ..schemas.tasks import ID as EXAMPLE_ID
from ..schemas.tasks import Task, Variant, only
from ..tasks import paging
from ..tasks.paging import Place
from ..tasks.queries import COLUMNS, OWNER, TASK, TaskRow
from .blueprint import Blueprint

LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

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

    id = fields.UUID(required=True, metadata={"example": EXAMPLE_ID})
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


class Token(NamedTuple):
    """`whole`: the revision up to which the client had everything; `version`, `id`: what it was sent last.

    `nonce`: that of the owner; none as long as nothing was there of them.
    """

    whole: int
    version: int
    id: str
    nonce: str = ""


def _page(table: Table, columns: Sequence[ColumnElement[Any]]) -> Subquery:
    """The owner's rows of `table` behind the place, in the feed's order, with `columns` beside."""
    place = func.row(bindparam("behind_version", type_=BigInteger), bindparam("behind_id", type_=ID))
    order = (table.c.version, table.c.id)
    page = select(table.c.version.label("change_version"), table.c.id.label("change_id"), *columns)
    page = page.where(table.c.user_id == OWNER, func.row(*order) > place)
    return page.order_by(*order).limit(bindparam("rows")).subquery()


def _feed() -> Select[*tuple[Any, ...]]:
    """A page of changes, and what is to be known of the owner; TASK is all null for what is gone for good."""
    changed = _page(tasks, TASK)
    buried = _page(tombstones, [cast(null(), column.type).label(column.name) for column in TASK])
    both = union_all(select(*changed.c), select(*buried.c)).subquery()
    page = select(both).order_by(both.c.change_version, both.c.change_id).limit(bindparam("rows")).lateral("page")
    head = select(owners.c.revision, owners.c.horizon, owners.c.nonce)
    owner = head.where(owners.c.user_id == OWNER).subquery("owner")
    shown = (page.c[name] for name in COLUMNS)
    return select(*shown, page.c.change_version, page.c.change_id, *owner.c).select_from(owner.outerjoin(page, true()))


FEED = _feed()
# Where a client stands that has nothing: it needs to hear of no deletion, in whichever life of the user.
NOTHING = Token(0, 0, LAST_ID)


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
    token = decode(session.owner, query["since"]) if "since" in query else NOTHING
    behind = {"behind_version": token.version, "behind_id": token.id, "rows": query["limit"] + 1}
    rows = session.execute(FEED, {"owner": session.owner, **behind}).all()
    revision, horizon, nonce = (rows[0].revision, rows[0].horizon, rows[0].nonce) if rows else (0, 0, "")
    whole = token.whole if "since" in query else revision
    if not horizon <= whole <= revision or (token.nonce != nonce and token != NOTHING):
        raise Gone("This token is too old: deletions since then are no longer known. Start again without `since`.")
    found = [row for row in rows if row.change_id is not None]
    page, has_more = found[: query["limit"]], len(found) > query["limit"]
    following = Token(revision, revision, LAST_ID, nonce)
    if has_more:
        following = Token(whole, page[-1].change_version, page[-1].change_id, nonce)
    out, following_token = shapes().out(), encode(session.owner, following)
    body = {"changes": [change(row, out) for row in page], "next": following_token, "has_more": has_more}
    return answer(body)


def change(row: Row[*tuple[Any, ...]], out: Callable[[TaskRow], dict[str, Any]]) -> dict[str, Any]:
    purged = row.id is None
    task = None if purged else out(row)
    return {"id": row.change_id, "version": row.change_version, "purged": purged, "task": task}


def encode(owner: str, token: Token) -> str:
    began = f"{token.whole}.{token.nonce}" if token.nonce else f"{token.whole}"
    return f"{paging.encode(f'{owner} changes {began}', Place(token.version, token.id))}.{began}"


def decode(owner: str, text: str) -> Token:
    """The token in `text`. Raises Invalid when it is none of `owner`'s."""
    cursor, _, began = text.partition(".")
    # Those of earlier releases have no nonce.
    found = re.fullmatch(r"(\d{1,18})(?:\.([0-9a-f]{1,32}))?", began, flags=re.ASCII)
    if not found:
        raise Invalid([("since", "Not a token of this user's; start again without one.")])
    place = paging.decode(f"{owner} changes {began}", int, cursor, name="since")
    return Token(int(found[1]), place.key if isinstance(place.key, int) else 0, place.id, found[2] or "")
