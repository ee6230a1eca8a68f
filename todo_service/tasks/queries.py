"""What reads tasks. The session comes first, whose owner is every statement's first condition.

The delta feed stands in `feed.py`, what counts tasks in `counts.py`. Changes stand in `commands.py` and
`statements.py`, which borrow TASK, MINE and THIS from here.
"""

from collections import namedtuple
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from typing import cast as cast_to

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Label,
    Row,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from ..db.models import ID, owners, tasks
from ..db.session import Session
from ..errors import Forbidden, Missing, NotFound, PreconditionFailed, Problem
from .listing import SORTS, Listing
from .paging import Place

OWNER = bindparam("owner", type_=Text)
MINE = tasks.c.user_id == OWNER
THIS = tasks.c.id == bindparam("task", type_=ID)
LIVE = tasks.c.deleted_at.is_(None)
TIME_FILTERS = frozenset(
    {
        *("due_before", "due_after", "overdue", "not_overdue"),
        *("completed_before", "completed_after", "updated_after"),
    }
)
# What If-Match names: entity tags, or a task's versions. None: any.
Versions = Collection[str] | None
# Stands for any entity tag.
ANY = "*"


def utc(column: ColumnElement[datetime]) -> Label[datetime]:
    """`column` as UTC without an offset, whatever time zone the connection happens to have."""
    return func.timezone(literal_column("'UTC'"), column, type_=DateTime()).label(column.name)


def etag(version: ColumnElement[int], nonce: ColumnElement[str]) -> Label[str]:
    """An entity tag, without its quotes; what it's for is told in `http/conditions.py`."""
    return (cast(version, Text) + literal_column("'-'", Text) + nonce).label("etag")


# A task as it leaves the database, its columns by their own names. Each row of tasks begins with them, in this order.
TASK = tuple(
    utc(column) if isinstance(column.type, DateTime) else column for column in tasks.c if column.info.get("shown", True)
)
COLUMNS = tuple(column.name for column in TASK)
TaskRow = Row[*tuple[Any, ...]]
# What stands for one where a unit of work has made it.
ChangedRow = cast_to(Any, namedtuple("ChangedRow", [*COLUMNS, "etag"]))
# Beside TASK, where one task is asked for.
ETAG = etag(tasks.c.version, owners.c.nonce)
OWNED = tasks.join(owners, owners.c.user_id == tasks.c.user_id)


class Page(NamedTuple):
    """Rows of a list, where they end, and its entity tag (None: the owner has none). `rows` None: it's known."""

    etag: str | None
    total: int | None
    rows: Sequence[TaskRow] | None
    last: Place | None


def list_tasks(
    session: Session, listing: Listing, values: dict[str, Any], limit: int, after: Place | int, known: list[str]
) -> Page:
    """Up to `limit` tasks behind `after`, a place or a number of tasks to pass over.

    One primary-key read when the list's tag is among the `known` ones. `total` is None unless the listing counts.
    """
    behind = after.key is not None if isinstance(after, Place) else None
    statement = _list_query(listing, behind, _looks_at_many(listing, after))
    place = {"key": after.key, "task": after.id, "offset": 0} if isinstance(after, Place) else {"offset": after}
    found = session.execute(statement, {"owner": session.owner, "rows": limit + 1, "known": known, **place, **values})
    rows = found.all()
    first = rows[0]
    if first.unchanged:
        return Page(first.list_etag, None, None, None)
    if first.id is None:
        return Page(first.list_etag, first.total, [], None)
    last = Place(rows[limit - 1].sort_key, rows[limit - 1].id) if len(rows) > limit else None
    return Page(first.list_etag, first.total, rows[:limit], last)


def _looks_at_many(listing: Listing, after: Place | int) -> bool:
    """Whether PostgreSQL is likely to look at many more tasks than it gives, mostly by what tasks_by_creation holds."""
    passed_over = isinstance(after, int) and after > 0
    sifted = listing.sort != "created_at" or not TIME_FILTERS.isdisjoint(listing.filters)
    return not listing.deleted and (passed_over or sifted)


@lru_cache(maxsize=512)
def _list_query(listing: Listing, after_key: bool | None, index_first: bool) -> Select[*tuple[Any, ...]]:
    """Tag, total and page in one statement, so that all are of one moment; a list without tasks is one row without id.

    `after_key`: None from the start, True behind a row with a key, False behind one without. `index_first`: find the
    page's ids on their own, which takes no more than the index, and read only these tasks; a user's tasks lie far
    apart, so each one read may be a page of the disk.
    """
    tag = select(etag(owners.c.revision, owners.c.nonce)).where(owners.c.user_id == OWNER).scalar_subquery()
    # OFFSET 0: else PostgreSQL would look it up wherever it is named.
    tagged = select(tag.label("list_etag")).offset(literal_column("0")).subquery("tagged")
    given = array([tagged.c.list_etag, literal_column(f"'{ANY}'", Text)])
    unchanged = given.overlap(bindparam("known", type_=ARRAY(Text)))
    owner = select(tagged.c.list_etag, (tagged.c.list_etag.is_not(None) & unchanged).label("unchanged")).subquery(
        "owner"
    )
    column, kind, _ = SORTS[listing.sort]
    key = utc(column) if kind is datetime else column
    conditions = [MINE, *listing.conditions()]
    counted = select(func.count()).select_from(tasks).where(*conditions).scalar_subquery()
    total = (counted if listing.count else null()).label("total")
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
    return select(*lateral.c, *owner.c, total).select_from(owner.outerjoin(lateral, true()))


def _cut(page: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    return page.limit(bindparam("rows")).offset(bindparam("offset"))


GET = select(*TASK, ETAG).select_from(OWNED).where(MINE, THIS, LIVE)


def get_task(session: Session, id: str) -> TaskRow:
    """One task, and its tag. Raises Missing."""
    row = session.execute(GET, {"owner": session.owner, "task": id}).one_or_none()
    if row is None:
        raise Missing(id)
    return row


WHOSE = (
    select(MINE.label("mine"), LIVE.label("live"), tasks.c.version, ETAG)
    .select_from(OWNED)
    .where(THIS)
    .order_by(MINE.desc())
    .limit(literal_column("1"))
    .execution_options(unscoped=True)
)


PAGE = 1000
AFTER = bindparam("after", type_=ID)
BEHIND = or_(AFTER.is_(None), tasks.c.id > AFTER)
WHOLE = select(*TASK, tasks.c.series, tasks.c.occurrence).order_by(tasks.c.id).limit(PAGE)
PAGE_OF_ALL, PAGE_OF_LIVE = WHOLE.where(MINE, BEHIND), WHOLE.where(MINE, LIVE, BEHIND)


def all_tasks(session: Session, trash: bool) -> Iterator[Sequence[TaskRow]]:
    """The owner's tasks by id, page by page, with their places in series; with those in the trash, if `trash`."""
    statement, values = PAGE_OF_ALL if trash else PAGE_OF_LIVE, {"owner": session.owner, "after": None}
    while rows := session.execute(statement, values).all():
        yield rows
        values["after"] = rows[-1].id
        if len(rows) < PAGE:
            return


def explained(session: Session, missing: Missing) -> Problem:
    """Why no row of the owner's matched. Asked only after nothing matched, and after its transaction.

    The only look at other users' tasks: ids are random, so the answer tells a stranger nothing that can be enumerated.
    """
    row = session.execute(WHOSE, {"owner": session.owner, "task": missing.id}).one_or_none()
    problem: Problem = NotFound("There is no task with this id.")
    if row is None:
        pass
    elif not row.mine:
        problem = Forbidden("This task belongs to another user.")
    elif missing.versions is not None and not holds(row.version, row.etag, missing.versions):
        problem = outdated(row.version)
    elif not row.live:
        problem = NotFound("This task is in the trash. POST to its /restore brings it back.")
    elif missing.part:
        problem = NotFound(missing.part)
    return problem.within(missing.place) if missing.place else problem


def holds(version: int, etag: str, named: Iterable[str]) -> bool:
    """Whether an If-Match that names these versions or tags is met."""
    return not {str(version), etag}.isdisjoint(named)


def outdated(version: int) -> PreconditionFailed:
    return PreconditionFailed(f'The task has changed: its version is now "{version}". Read it again, then retry.')
