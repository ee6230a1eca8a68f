"""The delta feed: what has changed for a user, in the order in which it became visible.

Versions come from the owner's revision, whose row is locked until each change is committed; so a page never misses a
change that is committed later with a lower version, as pages by time or by sequence do. Deletions leave tombstones; a
client that began before the oldest tombstone kept has to start over, and so has one whose token is from another life of
the user. A token holds up to which revision the client had everything when it began this round, where in the feed it
stands (version and id), and the owner's nonce.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

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
from . import paging
from .paging import Place
from .queries import COLUMNS, OWNER, TASK

# Behind the last change of a version.
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class Token(NamedTuple):
    """`whole`: the revision up to which the client had everything; `version`, `id`: what it was sent last.

    `nonce`: that of the owner; none as long as nothing was there of them.
    """

    whole: int
    version: int
    id: str
    nonce: str = ""


class Changes(NamedTuple):
    """Rows with TASK's columns (all null for what is gone for good), `change_version` and `change_id`."""

    rows: Sequence[Row[*tuple[Any, ...]]]
    next: str
    has_more: bool


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


def changes_since(session: Session, since: str | None, limit: int) -> Changes:
    """Up to `limit` changes since a token; None: everything. Raises Invalid, or Gone for a token that is too old."""
    token = NOTHING if since is None else decode(session.owner, since)
    behind = {"behind_version": token.version, "behind_id": token.id, "rows": limit + 1}
    rows = session.execute(FEED, {"owner": session.owner, **behind}).all()
    revision, horizon, nonce = (rows[0].revision, rows[0].horizon, rows[0].nonce) if rows else (0, 0, "")
    whole = revision if since is None else token.whole
    if not horizon <= whole <= revision or (token.nonce != nonce and token != NOTHING):
        raise Gone("This token is too old: deletions since then are no longer known. Start again without `since`.")
    found = [row for row in rows if row.change_id is not None]
    page, has_more = found[:limit], len(found) > limit
    following = Token(revision, revision, LAST_ID, nonce)
    if has_more:
        following = Token(whole, page[-1].change_version, page[-1].change_id, nonce)
    return Changes(page, encode(session.owner, following), has_more)


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
