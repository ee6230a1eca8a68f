"""Everything that reads tasks. The owner is every function's first argument and every statement's first condition.

Changes stand in `mutations.py`; it borrows TASK, MINE and THIS from here. Each distinct statement is built and compiled
once; `db.py` runs it.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Label, Text, Uuid, and_, bindparam, func, or_, select, true

from .db import Query, Row, database
from .errors import Forbidden, NotFound, PreconditionFailed, Problem
from .models import owners, tasks
from .pagination import Place

OWNER = bindparam("owner", type_=Text)
MINE = tasks.c.user_id == OWNER
THIS = tasks.c.id == bindparam("id", type_=Uuid(as_uuid=False))
LIVE = tasks.c.deleted_at.is_(None)
TRASHED = tasks.c.deleted_at.is_not(None)


def utc(column: ColumnElement[datetime]) -> Label[datetime]:
    """`column` as UTC without an offset, whatever time zone the connection happens to have."""
    return func.timezone("UTC", column).label(column.name)


# A task as it leaves the database; `schemas.task_out` reads these by their place.
TASK = (
    tasks.c.id,
    tasks.c.user_id,
    tasks.c.title,
    tasks.c.description,
    tasks.c.completed,
    utc(tasks.c.completed_at),
    tasks.c.priority,
    tasks.c.due_on,
    utc(tasks.c.due_at),
    tasks.c.tags,
    tasks.c.position,
    utc(tasks.c.created_at),
    utc(tasks.c.updated_at),
    utc(tasks.c.deleted_at),
    tasks.c.version,
)
VERSION = len(TASK) - 1


class Sort(NamedTuple):
    """A key to sort by: the column, the type of its values in a cursor, and whether a row may have none."""

    column: ColumnElement[Any]
    kind: type
    nullable: bool = False


SORTS = {
    "created_at": Sort(tasks.c.created_at, datetime),
    "updated_at": Sort(tasks.c.updated_at, datetime),
    "due_date": Sort(tasks.c.due_key, datetime, nullable=True),
    "priority": Sort(tasks.c.priority, int),
    "title": Sort(tasks.c.title_key, str),
    "position": Sort(tasks.c.position, float),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """Which tasks, in which order. `completed` None: both."""

    sort: str = "created_at"
    descending: bool = True
    completed: bool | None = None
    deleted: bool = False

    @property
    def kind(self) -> type:
        """The type of the sort key's values."""
        return SORTS[self.sort].kind


class Page(NamedTuple):
    """Rows of a list, where they end, and the owner's revision they belong to. `rows` None: nothing new since then."""

    revision: int
    rows: list[Row] | None
    last: Place | None


def list_tasks(owner: str, listing: Listing, limit: int, after: Place | None, known: int | None) -> Page:
    """Up to `limit` tasks behind `after`; one primary-key read when the owner's revision is still `known`."""
    query = _list_query(listing, None if after is None else after.key is not None)
    place = {"key": after.key, "id": after.id} if after else {}
    rows = database().read(owner, query, limit=limit + 1, known=known, **place)
    revision = rows[0][0]
    if revision == known:
        return Page(revision, None, None)
    found = [row[1:] for row in rows if row[1] is not None]
    last = Place(found[limit - 1][-1], found[limit - 1][0]) if len(found) > limit else None
    return Page(revision, found[:limit], last)


@cache
def _list_query(listing: Listing, after_key: bool | None) -> Query:
    """The revision and the page in one statement, so that both are of one moment: revision, *TASK, sort key.

    `after_key`: None from the start, True behind a row with a key, False behind one without.
    """
    revision = select(owners.c.revision).where(owners.c.user_id == OWNER).scalar_subquery()
    owner = select(func.coalesce(revision, 0).label("revision")).subquery("owner")
    column = SORTS[listing.sort].column
    key = utc(column) if SORTS[listing.sort].kind is datetime else column
    conditions = [MINE, TRASHED if listing.deleted else LIVE]
    if listing.completed is not None:
        conditions.append(tasks.c.completed.is_(listing.completed))
    if after_key is not None:
        conditions.append(_behind(listing, after_key))
    # Refers to nothing of the tasks, so PostgreSQL checks it once and doesn't look at them when it fails.
    conditions.append(owner.c.revision.is_distinct_from(bindparam("known", type_=BigInteger)))
    order: list[ColumnElement[Any]] = [column.desc(), tasks.c.id.desc()] if listing.descending else [column, tasks.c.id]
    if SORTS[listing.sort].nullable:
        order.insert(0, column.is_(None))
    page = select(*TASK, key.label("sort_key")).where(*conditions).order_by(*order).limit(bindparam("limit"))
    lateral = page.lateral("page")
    return Query(select(owner.c.revision, *lateral.c).select_from(owner.outerjoin(lateral, true())))


def _behind(listing: Listing, after_key: bool) -> ColumnElement[bool]:
    column, _, nullable = SORTS[listing.sort]
    value: ColumnElement[Any] = bindparam("key", type_=column.type)
    id = bindparam("id", type_=Uuid(as_uuid=False))
    behind_id = tasks.c.id < id if listing.descending else tasks.c.id > id
    if not after_key:
        return and_(column.is_(None), behind_id)
    pair, start = func.row(column, tasks.c.id), func.row(value, id)
    behind = pair < start if listing.descending else pair > start
    return or_(behind, column.is_(None)) if nullable else behind


GET = Query(select(*TASK).where(MINE, THIS, LIVE))


def get_task(owner: str, id: str) -> Row:
    """One task. Raises NotFound, or Forbidden when it is another user's."""
    rows = find_task(owner, id)
    if not rows:
        raise absence(owner, id)
    return rows[0]


def find_task(owner: str, id: str) -> list[Row]:
    """The task, if it is there and live."""
    return database().read(owner, GET, id=id)


WHOSE = Query(
    select(MINE.label("mine"), LIVE.label("live"), tasks.c.version).where(THIS).order_by(MINE.desc()).limit(1)
)


def absence(owner: str, id: str, versions: list[int] | None = None) -> Problem:
    """Why no row of `owner` matched `id` (and `versions`, from If-Match). Asked only after nothing matched.

    The only look at other users' tasks: ids are random, so the answer tells a stranger nothing that can be enumerated.
    """
    rows = database().unscoped(WHOSE, owner=owner, id=id)
    if not rows:
        return NotFound("There is no task with this id.")
    mine, live, version = rows[0]
    if not mine:
        return Forbidden("This task belongs to another user.")
    if versions is not None and version not in versions:
        return PreconditionFailed(f'The task has changed: its version is now "{version}". Read it again, then retry.')
    if not live:
        return NotFound("This task is in the trash. POST to its /restore brings it back.")
    return NotFound("There is no task with this id any more.")


def in_trash(owner: str, id: str, versions: list[int] | None) -> bool:
    """Whether the owner's task lies in the trash (and has one of `versions`)."""
    rows = database().unscoped(WHOSE, owner=owner, id=id)
    return bool(rows) and rows[0][0] and not rows[0][1] and (versions is None or rows[0][2] in versions)
