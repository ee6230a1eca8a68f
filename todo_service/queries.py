"""Everything that reads tasks. The owner is every function's first argument and every statement's first condition.

Changes stand in `mutations.py`; it borrows TASK, MINE and THIS from here. Each distinct statement is built and compiled
once; `db.py` runs it.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Label,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    literal,
    not_,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from .db import Row, database
from .errors import Forbidden, NotFound, PreconditionFailed, Problem
from .listing import SORTS, Listing
from .models import owners, tasks
from .pagination import Place
from .statements import Query

OWNER = bindparam("owner", type_=Text)
MINE = tasks.c.user_id == OWNER
THIS = tasks.c.id == bindparam("id", type_=Uuid(as_uuid=False))
LIVE = tasks.c.deleted_at.is_(None)
TRASHED = tasks.c.deleted_at.is_not(None)
DUE_FILTERS = frozenset({"due_before", "due_after", "overdue", "not_overdue"})


def utc(column: ColumnElement[datetime]) -> Label[datetime]:
    """`column` as UTC without an offset, whatever time zone the connection happens to have."""
    return func.timezone("UTC", column, type_=DateTime()).label(column.name)


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
    tasks.c.recurrence,
    tasks.c.repeat_from,
    tasks.c.position,
    utc(tasks.c.created_at),
    utc(tasks.c.updated_at),
    utc(tasks.c.deleted_at),
    tasks.c.version,
)
VERSION = len(TASK) - 1


def etag(version: ColumnElement[int], nonce: ColumnElement[str]) -> ColumnElement[str]:
    """An entity tag, without its quotes; what it's for is told in `etags.py`."""
    return cast(version, Text) + literal("-", Text) + nonce


# Stands for any entity tag.
ANY = "*"
# Behind TASK, where one task is asked for.
ETAG = etag(tasks.c.version, owners.c.nonce)
OWNED = tasks.join(owners, owners.c.user_id == tasks.c.user_id)


class Page(NamedTuple):
    """Rows of a list, where they end, and its entity tag (None: the owner has none). `rows` None: it's known."""

    etag: str | None
    total: int | None
    rows: list[Row] | None
    last: Place | None


def list_tasks(
    owner: str, listing: Listing, values: dict[str, Any], limit: int, after: Place | int, known: list[str]
) -> Page:
    """Up to `limit` tasks behind `after`, a place or a number of tasks to pass over.

    One primary-key read when the list's tag is among the `known` ones. `total` is None unless the listing counts.
    """
    behind = after.key is not None if isinstance(after, Place) else None
    query = _list_query(listing, behind, _looks_at_many(listing, after))
    place = {"key": after.key, "id": after.id, "offset": 0} if isinstance(after, Place) else {"offset": after}
    rows = database().read(owner, query, limit=limit + 1, known=known, **place, **values)
    etag, unchanged, total = rows[0][:3]
    if unchanged:
        return Page(etag, None, None, None)
    found = [row[3:] for row in rows if row[3] is not None]
    last = Place(found[limit - 1][-1], found[limit - 1][0]) if len(found) > limit else None
    return Page(etag, total, found[:limit], last)


def _looks_at_many(listing: Listing, after: Place | int) -> bool:
    """Whether PostgreSQL is likely to look at many more tasks than it gives, all by what tasks_by_creation holds."""
    passed_over = isinstance(after, int) and after > 0
    sifted = listing.sort != "created_at" or not DUE_FILTERS.isdisjoint(listing.filters)
    return not listing.deleted and (passed_over or sifted)


@lru_cache(maxsize=512)
def _list_query(listing: Listing, after_key: bool | None, index_first: bool) -> Query:
    """Tag, total and page in one statement, so that all are of one moment: tag, is it known, total, *TASK, sort key.

    `after_key`: None from the start, True behind a row with a key, False behind one without. `index_first`: find the
    page's ids on their own, which takes no more than the index, and read only these tasks; a user's tasks lie far
    apart, so each one read may be a page of the disk.
    """
    tag = select(etag(owners.c.revision, owners.c.nonce)).where(owners.c.user_id == OWNER).scalar_subquery()
    tagged = select(tag.label("etag")).subquery("tagged")
    unchanged = array([tagged.c.etag, literal(ANY, Text)]).overlap(bindparam("known", type_=ARRAY(Text)))
    owner = select(tagged.c.etag, (tagged.c.etag.is_not(None) & unchanged).label("unchanged")).subquery("owner")
    column, kind, _ = SORTS[listing.sort]
    key = utc(column) if kind is datetime else column
    conditions = [MINE, *listing.conditions()]
    counted = select(func.count()).select_from(tasks).where(*conditions).scalar_subquery()
    total = counted if listing.count else null()
    if after_key is not None:
        conditions.append(listing.behind(after_key))
    # Refers to nothing of the tasks, so PostgreSQL checks it once and doesn't look at them when it fails.
    unknown = not_(owner.c.unchanged)
    columns = (*TASK, key.label("sort_key"))
    if index_first:
        ids = _cut(select(tasks.c.id).where(*conditions).order_by(*listing.order())).correlate(None)
        page = select(*columns).where(MINE, tasks.c.id == any_(func.array(ids.scalar_subquery())), unknown)
        lateral = page.order_by(*listing.order()).lateral("page")
    else:
        lateral = _cut(select(*columns).where(*conditions, unknown).order_by(*listing.order())).lateral("page")
    return Query(select(*owner.c, total, *lateral.c).select_from(owner.outerjoin(lateral, true())))


def _cut(page: Select[Any]) -> Select[Any]:
    return page.limit(bindparam("limit")).offset(bindparam("offset"))


GET = Query(select(*TASK, ETAG).select_from(OWNED).where(MINE, THIS, LIVE))


def get_task(owner: str, id: str) -> Row:
    """One task, and its tag. Raises NotFound, or Forbidden when it is another user's."""
    rows = find_task(owner, id)
    if not rows:
        raise absence(owner, id)
    return rows[0]


def find_task(owner: str, id: str) -> list[Row]:
    """The task, if it is there and live."""
    return database().read(owner, GET, id=id)


WHOSE = Query(
    select(MINE.label("mine"), LIVE.label("live"), tasks.c.version, ETAG)
    .select_from(OWNED)
    .where(THIS)
    .order_by(MINE.desc())
    .limit(1)
)


def absence(owner: str, id: str, versions: list[str] | None = None) -> Problem:
    """Why no row of `owner` matched `id` (and `versions`, from If-Match). Asked only after nothing matched.

    The only look at other users' tasks: ids are random, so the answer tells a stranger nothing that can be enumerated.
    """
    rows = database().unscoped(WHOSE, owner=owner, id=id)
    if not rows:
        return NotFound("There is no task with this id.")
    mine, live, version, tag = rows[0]
    if not mine:
        return Forbidden("This task belongs to another user.")
    if versions is not None and {str(version), tag}.isdisjoint(versions):
        return PreconditionFailed(f'The task has changed: its version is now "{version}". Read it again, then retry.')
    if not live:
        return NotFound("This task is in the trash. POST to its /restore brings it back.")
    return NotFound("There is no task with this id any more.")
