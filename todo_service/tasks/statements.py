"""Statements that make a change alone, the owner first in all of them; `commands.py` executes them.

A statement bumps the owner's revision and stamps the rows it touches with it, in one go:
`WITH bump AS (UPDATE owners … RETURNING …) UPDATE tasks … FROM bump …`. The owner's row stays locked until the commit,
so one user's changes come one after the other and their versions grow in the order in which they become visible; and as
everybody takes that lock first, two changes can't wait for each other in a circle. A change that finds nothing to do
bumps nothing: its conditions stand in the bump. A statement sees the rows as they were when it began; so the lock is
taken by a statement of its own in front of it, in the same message (LOCK_OWNER), and what is decided is decided on what
the change before has left.

Changes that must look before they decide are left to units of work (`repository.py`), what becomes of trash to
`retention.py`.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Insert,
    Integer,
    Select,
    TableValuedAlias,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array
from sqlalchemy.dialects.postgresql import insert as upsert

from ..db.models import MAX_POSITION, QUOTA, TIME, owners, tasks, tombstones
from ..db.session import LOCK_OWNER, MAKE_OWNER, Session
from .columns import SENT
from .queries import ETAG, LIVE, MINE, OWNER, TASK, THIS, TaskRow, Versions, etag

Conditions = tuple[ColumnElement[bool], ...]

ONE: ColumnElement[int] = literal_column("1")
# When the change is made, by the service's clock.
MOMENT = bindparam("moment", type_=TIME)
MOMENT_IN_UTC = func.timezone(literal_column("'UTC'"), MOMENT, type_=DateTime())
# A task that repeats is completed by a unit of work, which makes its next occurrence.
ONCE = tasks.c.recurrence.is_(None)
VERSIONS = bindparam("versions", type_=ARRAY(Text))
UNCHANGED = or_(cast(tasks.c.version, Text) == any_(VERSIONS), any_(VERSIONS) == ETAG.element)
# The tasks are counted only where it isn't certain without that; then it's certain for a while.
COUNTED = select(ONE).where(MINE, LIVE).limit(literal_column(str(QUOTA))).subquery()
LIVE_COUNT = select(func.count()).select_from(COUNTED).scalar_subquery()
ROOMY = owners.c.revision < owners.c.room_until


def given(names: Iterable[str], *numbers: str) -> TableValuedAlias:
    """Rows that come as JSON, bound as `rows`: first `numbers`, then the columns `names` of tasks."""
    shape = [*(Column(name, BigInteger) for name in numbers), *(Column(name, tasks.c[name].type) for name in names)]
    rows = func.jsonb_to_recordset(cast(bindparam("rows", type_=Text), JSONB)).table_valued(*shape)
    return rows.render_derived(name="given", with_types=True)


def new_value(column: str) -> ColumnElement[Any]:
    """The column's new value. (A parameter with the column's own name would be taken for more than that.)"""
    return bindparam(f"new_{column}", type_=tasks.c[column].type)


def new_values(columns: dict[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in columns.items()}


# The columns that a new task's values are given for; its position is found by the statement.
CREATED_WITH = ("id", *(name for name in SENT if name != "position"), "completed_at")


def _create(named: bool) -> Select[*tuple[Any, ...]]:
    """Make a task behind all others; or none if it isn't certain that there is room for it, and for its id.

    The room is decided on the owner's row as it is when it's locked, and on nothing else. An id that the client has
    made (`named`) is looked for when the owner's row is there, and locked, already.
    """
    following = func.floor(owners.c.last_position) + ONE
    count = {"revision": owners.c.revision + ONE, "last_position": following}
    room = (ROOMY, following <= literal_column(f"{MAX_POSITION:.0f}"))
    change: Insert | Update
    if named:
        # What an upsert does with a row that is there may look at no other table (docs/scaling.md, Citus).
        same = ((table.c.user_id == OWNER, table.c.id == new_value("id")) for table in (tasks, tombstones))
        free = (not_(exists(select(ONE).where(*conditions).correlate(None))) for conditions in same)
        change = update(owners).where(owners.c.user_id == OWNER, *room, *free).values(count)
    else:
        change = (
            upsert(owners)
            .values(user_id=OWNER, revision=ONE, last_position=ONE)
            .on_conflict_do_update(index_elements=[owners.c.user_id], set_=count, where=and_(*room))
        )
    bump = change.returning(*owners.c).cte("bump")
    values = {name: new_value(name) for name in CREATED_WITH} | {
        "user_id": bump.c.user_id,
        "position": bump.c.last_position,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "version": bump.c.revision,
    }
    new = insert(tasks).from_select(list(values), select(*values.values()).select_from(bump))
    made = new.returning(*TASK).cte("made")
    row = select(*made.c, etag(made.c.version, bump.c.nonce)).select_from(made.join(bump, true()))
    return row.execution_options(first=MAKE_OWNER) if named else row


CREATE, CREATE_NAMED = _create(named=False), _create(named=True)


def _bump(*conditions: ColumnElement[bool], owner: Sequence[ColumnElement[bool]] = ()) -> CTE:
    """Count a change of the owner's, whose row meets `owner`, provided that a task of theirs meets `conditions`."""
    some_task = exists(select(ONE).select_from(tasks).where(MINE, *conditions).correlate(owners))
    statement = update(owners).where(owners.c.user_id == OWNER, some_task, *owner)
    return statement.values(revision=owners.c.revision + ONE).returning(*owners.c).cte("bump")


def _update(values: dict[str, Any], *conditions: ColumnElement[bool]) -> Update:
    """Change this task, provided that it meets `conditions`: its row as it is then and its tag, or no row."""
    bump = _bump(THIS, *conditions)
    return (
        update(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, THIS)
        .values(**values, updated_at=MOMENT, version=bump.c.revision)
        .returning(*TASK, etag(tasks.c.version, bump.c.nonce))
        .execution_options(first=LOCK_OWNER)
    )


@cache
def set_columns(names: frozenset[str], conditional: bool) -> Update:
    values: dict[str, Any] = {name: new_value(name) for name in sorted(names)}
    if "completed" not in names:
        return _update(values, LIVE, *if_match_holds(conditional))
    values["completed_at"] = case((new_value("completed"), func.coalesce(tasks.c.completed_at, MOMENT)))
    # What a task repeats like when it is completed is what this very change makes of it.
    once = and_(ONCE, new_value("recurrence").is_(None)) if "recurrence" in names else ONCE
    return _update(values, LIVE, or_(once, tasks.c.completed == new_value("completed")), *if_match_holds(conditional))


@cache
def set_completed(toggle: bool, conditional: bool) -> Update:
    completed = not_(tasks.c.completed) if toggle else new_value("completed")
    values: dict[str, Any] = {"completed": completed, "completed_at": case((completed, MOMENT))}
    differs = () if toggle else (tasks.c.completed != completed,)
    return _update(values, LIVE, ONCE, *differs, *if_match_holds(conditional))


@cache
def set_item(conditional: bool) -> Update:
    """Merge `new_item` into the item with this number, if there is one."""
    number = bindparam("number", type_=Integer)
    item = tasks.c.checklist[number].op("||")(bindparam("new_item", type_=JSONB))
    values = {"checklist": func.jsonb_set(tasks.c.checklist, array([cast(number, Text)]), item)}
    return _update(values, LIVE, func.jsonb_array_length(tasks.c.checklist) > number, *if_match_holds(conditional))


@cache
def move_to_trash(conditional: bool) -> Update:
    return _update({"deleted_at": MOMENT}, LIVE, *if_match_holds(conditional))


@cache
def delete_for_good(conditional: bool) -> Select[*tuple[Any, ...]]:
    bump = _bump(THIS, *if_match_holds(conditional))
    gone = delete(tasks).where(MINE, tasks.c.user_id == bump.c.user_id, THIS).returning(*TASK).cte("gone")
    counted = gone.join(bump, gone.c.user_id == bump.c.user_id)
    buried = bury(select(gone.c.user_id, gone.c.id, bump.c.revision).select_from(counted))
    last: dict[str, ColumnElement[Any]] = {
        "deleted_at": func.coalesce(gone.c.deleted_at, MOMENT_IN_UTC),
        "version": bump.c.revision,
    }
    row = [last.get(column.name, column).label(column.name) for column in gone.c]
    tagged = select(*row, etag(bump.c.revision, bump.c.nonce)).add_cte(buried)
    return tagged.select_from(counted).execution_options(first=LOCK_OWNER)


def bury(rows: Select[*tuple[Any, ...]]) -> CTE:
    """Leave a tombstone (user_id, id, version) for each of `rows`, so that clients which sync learn of the end."""
    statement = upsert(tombstones).from_select(["user_id", "id", "version", "purged_at"], rows.add_columns(MOMENT))
    again = {name: statement.excluded[name] for name in ("version", "purged_at")}
    return statement.on_conflict_do_update(index_elements=["user_id", "id"], set_=again).cte("buried")


@cache
def sweep(completed: bool, conditional: bool) -> Select[*tuple[Any, ...]]:
    """How many were moved, and the list's tag as it was before."""
    conditions = (LIVE, *([tasks.c.completed] if completed else []))
    tag = etag(owners.c.revision, owners.c.nonce)
    bump = _bump(*conditions, owner=[tag.element == any_(VERSIONS)] if conditional else [])
    swept = (
        update(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, *conditions)
        .values(deleted_at=MOMENT, updated_at=MOMENT, version=bump.c.revision)
        .returning(tasks.c.id)
        .cte("swept")
    )
    before = select(tag).where(owners.c.user_id == OWNER).scalar_subquery().label("before")
    return select(func.count().label("moved"), before).select_from(swept).execution_options(first=LOCK_OWNER)


def if_match_holds(conditional: bool) -> Conditions:
    return (UNCHANGED,) if conditional else ()


def change_task(
    session: Session,
    statement: Update | Select[*tuple[Any, ...]],
    id: str,
    versions: Versions,
    values: dict[str, Any] | None = None,
) -> TaskRow | None:
    """What `statement` makes of the task; None if it meets none that its conditions let it change."""
    known = {"owner": session.owner, "task": id, "versions": list(versions or ()), "moment": datetime.now(UTC)}
    return session.execute(statement, known | (values or {})).one_or_none()
