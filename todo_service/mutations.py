"""What changes tasks: one statement each, the owner first in all of them.

A statement bumps the owner's revision and stamps the rows it touches with it, in one go:
`WITH bump AS (UPDATE owners … RETURNING …) UPDATE tasks … FROM bump …`. The bump locks the owner's row until the
commit, so one user's changes come one after the other and their versions grow in the order in which they become
visible; and as everybody takes that lock first, two changes can't wait for each other in a circle. A change that finds
nothing to do bumps nothing: its conditions stand in the bump. A statement sees the rows as they were when it began; so
the lock is taken by a statement of its own in front of it, in the same message, and what is decided is decided on what
the change before has left.

New tasks are left to `creation.py`, what becomes of trash and of users who left to `retention.py`.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Select,
    TableValuedAlias,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from .db import Database, Row, database
from .errors import PreconditionFailed
from .models import MAX_POSITION, QUOTA, columns, owners, tasks, tombstones
from .queries import ETAG, LIVE, MINE, OWNER, TASK, THIS, TRASHED, VERSION, absence, etag, find_task
from .statements import Query

Conditions = tuple[ColumnElement[bool], ...]
# What If-Match names: entity tags, or a task's versions. None: any.
Versions = list[str] | None
Change = tuple[Query, dict[str, Any]]

NOW = func.clock_timestamp()
# A task that repeats is completed by a plan (`plans.py`), which makes its next occurrence.
ONCE = tasks.c.recurrence.is_(None)
VERSIONS = bindparam("versions", type_=ARRAY(Text))
UNCHANGED = or_(cast(tasks.c.version, Text) == any_(VERSIONS), any_(VERSIONS) == ETAG)
# The tasks are counted only where it isn't certain without that; then it's certain for a while.
COUNTED = select(literal(1)).where(MINE, LIVE).limit(QUOTA).subquery()
LIVE_COUNT = select(func.count()).select_from(COUNTED).scalar_subquery()
ROOM = or_(owners.c.revision < owners.c.room_until, LIVE_COUNT < QUOTA)

# For those that look before they change (`plans.py`, `imports.py`): the owner's row made, if need be, and locked.
LOCKED = select(literal(1)).where(owners.c.user_id == OWNER).with_for_update(of=owners)
LOCK = (upsert(owners).values(user_id=OWNER).on_conflict_do_nothing(), LOCKED)


def taken(position: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a live task of the owner's has this position."""
    other = tasks.alias("other")
    there = select(literal(1)).select_from(other).where(other.c.user_id == OWNER, other.c.deleted_at.is_(None))
    return exists(there.where(other.c.position == position).correlate(tasks))


def given(names: Iterable[str], *numbers: str) -> TableValuedAlias:
    """Rows that come as JSON, bound as `rows`: first `numbers`, then the columns `names` of tasks."""
    shape = [*(Column(name, BigInteger) for name in numbers), *(Column(name, tasks.c[name].type) for name in names)]
    rows = func.jsonb_to_recordset(cast(bindparam("rows", type_=Text), JSONB)).table_valued(*shape)
    return rows.render_derived(name="given", with_types=True)


def _bump(
    *conditions: ColumnElement[bool],
    owner: Sequence[ColumnElement[bool]] = (),
    place: ColumnElement[Any] | None = None,
) -> CTE:
    """Count a change of the owner's, whose row meets `owner`, provided that a task of theirs meets `conditions`.

    `place`: the position that a task gets by it.
    """
    some_task = exists(select(literal(1)).select_from(tasks).where(MINE, *conditions).correlate(owners))
    statement = update(owners).where(owners.c.user_id == OWNER, some_task, *owner)
    last = {} if place is None else {"last_position": func.greatest(owners.c.last_position, place)}
    return statement.values(revision=owners.c.revision + 1, **last).returning(*owners.c).cte("bump")


def _value(column: str) -> ColumnElement[Any]:
    return bindparam(column, type_=tasks.c[column].type)


async def _change(owner: str, query: Query, **values: Any) -> list[Row]:
    rows: list[Row] = await database().in_turn(owner, (query, values), make_changes)
    return rows


def make_changes(db: Database, owner: str, changes: Sequence[Change]) -> list[list[Row]]:
    """Make a change, or some that have met, in one transaction."""
    if len(changes) == 1:
        [(query, values)] = changes
        return [db.write(owner, query, **values)]
    with db.transaction(repeatable=True):
        return [db.write(owner, query, **values) for query, values in changes]


def _update(
    values: dict[str, Any],
    *conditions: ColumnElement[bool],
    owner: Sequence[ColumnElement[bool]] = (),
    place: ColumnElement[Any] | None = None,
) -> Query:
    """Change this task, provided that it meets `conditions`: its row as it is then and its tag, or no row.

    `place`: the position that it gets.
    """
    bump = _bump(THIS, *conditions, owner=owner, place=place)
    if "position" in values:
        values = values | {"position": func.coalesce(_value("position"), bump.c.last_position)}
    return Query(
        LOCKED,
        update(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, THIS)
        .values(**values, updated_at=NOW, version=bump.c.revision)
        .returning(*TASK, etag(tasks.c.version, bump.c.nonce)),
    )


@cache
def _set_query(names: frozenset[str], conditional: bool) -> Query:
    values: dict[str, Any] = {name: _value(name) for name in sorted(names)}
    conditions: list[ColumnElement[bool]] = [LIVE, *_unchanged(conditional)]
    order: dict[str, Any] = {}
    if "position" in names:
        wanted = _value("position")
        place = func.coalesce(wanted, func.floor(owners.c.last_position) + 1)
        conditions.append(or_(wanted.is_(None), tasks.c.position == wanted, not_(taken(wanted))))
        order = {"place": place, "owner": [place <= MAX_POSITION]}
    if "completed" in names:
        values["completed_at"] = case((_value("completed"), func.coalesce(tasks.c.completed_at, NOW)))
        # What a task repeats like when it is completed is what this very change makes of it.
        once = and_(ONCE, _value("recurrence").is_(None)) if "recurrence" in names else ONCE
        conditions.append(or_(once, tasks.c.completed == _value("completed")))
    return _update(values, *conditions, **order)


@cache
def _complete_query(toggle: bool, conditional: bool) -> Query:
    if toggle:
        values: dict[str, Any] = {
            "completed": not_(tasks.c.completed),
            "completed_at": case((not_(tasks.c.completed), NOW)),
        }
        return _update(values, LIVE, ONCE, *_unchanged(conditional))
    values = {"completed": _value("completed"), "completed_at": case((_value("completed"), NOW))}
    return _update(values, LIVE, ONCE, tasks.c.completed != _value("completed"), *_unchanged(conditional))


@cache
def _trash_query(conditional: bool) -> Query:
    return _update({"deleted_at": NOW}, LIVE, *_unchanged(conditional))


@cache
def _restore_query(conditional: bool) -> Query:
    place, free = select(tasks.c.position).where(MINE, THIS).scalar_subquery(), not_(taken(tasks.c.position))
    return _update({"deleted_at": null()}, TRASHED, free, *_unchanged(conditional), owner=[ROOM], place=place)


@cache
def _delete_query(conditional: bool) -> Query:
    bump = _bump(THIS, *_unchanged(conditional))
    stamped = [
        func.coalesce(column, func.timezone("UTC", NOW)).label(name)
        if name == "deleted_at"
        else (bump.c.revision.label(name) if name == "version" else column)
        for name, column in ((column.name, column) for column in TASK)
    ]
    stamped.append(etag(bump.c.revision, bump.c.nonce).label("etag"))
    gone = delete(tasks).where(MINE, tasks.c.user_id == bump.c.user_id, THIS).returning(*stamped).cte("gone")
    buried = bury(select(gone.c.user_id, gone.c.id, gone.c.version))
    return Query(LOCKED, select(*gone.c).add_cte(buried))


def bury(rows: Select[Any]) -> CTE:
    """Leave a tombstone (user_id, id, version) for each of `rows`, so that clients which sync learn of the end."""
    statement = upsert(tombstones).from_select(["user_id", "id", "version"], rows)
    again = {"version": statement.excluded.version, "purged_at": func.now()}
    return statement.on_conflict_do_update(index_elements=["user_id", "id"], set_=again).cte("buried")


@cache
def _sweep_query(completed: bool, conditional: bool) -> Query:
    """How many were moved, and the list's tag as it was before."""
    conditions = (LIVE, *([tasks.c.completed] if completed else []))
    tag = etag(owners.c.revision, owners.c.nonce)
    bump = _bump(*conditions, owner=[tag == any_(VERSIONS)] if conditional else [])
    swept = (
        update(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, *conditions)
        .values(deleted_at=NOW, updated_at=NOW, version=bump.c.revision)
        .returning(tasks.c.id)
        .cte("swept")
    )
    before = select(tag).where(owners.c.user_id == OWNER).scalar_subquery()
    return Query(LOCKED, select(func.count(), before).select_from(swept))


def _unchanged(conditional: bool) -> Conditions:
    return (UNCHANGED,) if conditional else ()


async def update_task(owner: str, id: str, fields: dict[str, Any], versions: Versions) -> Row | None:
    """Set `fields`; None if that takes a plan. Raises NotFound, Forbidden, PreconditionFailed."""
    if not fields:
        return unchanged_task(owner, id, versions)
    values = columns(fields)
    query = _set_query(frozenset(values), versions is not None)
    rows = await _change(owner, query, id=id, versions=versions, **values)
    planned = not fields.keys().isdisjoint(("completed", "position"))
    return None if not rows and planned else _only(owner, id, versions, rows)


async def complete_task(owner: str, id: str, completed: bool | None, versions: Versions) -> Row | None:
    """Set `completed`, or turn it around when None; None if that takes a plan, or there is nothing to be changed."""
    query = _complete_query(completed is None, versions is not None)
    rows = await _change(owner, query, id=id, versions=versions, completed=completed)
    return rows[0] if rows else None


async def trash_task(owner: str, id: str, versions: Versions) -> Row:
    """Move to the trash, from where `restore_task` brings it back."""
    rows = await _change(owner, _trash_query(versions is not None), id=id, versions=versions)
    return _only(owner, id, versions, rows)


async def delete_task(owner: str, id: str, versions: Versions) -> Row:
    """Delete for good, from the trash or from outside it. What the task was at its end."""
    rows = await _change(owner, _delete_query(versions is not None), id=id, versions=versions)
    return _only(owner, id, versions, rows)


async def restore_task(owner: str, id: str, versions: Versions) -> Row | None:
    """Bring back from the trash; None if it isn't there, if there is no room, or if its position is taken."""
    rows = await _change(owner, _restore_query(versions is not None), id=id, versions=versions)
    return rows[0] if rows else None


async def sweep_tasks(owner: str, completed: bool, versions: Versions) -> int:
    """Move all tasks, or all completed ones, to the trash: how many. Raises PreconditionFailed if the list is newer."""
    query = _sweep_query(completed, versions is not None)
    [(count, tag)] = await _change(owner, query, versions=versions)
    if versions is not None and tag not in versions:
        raise PreconditionFailed(f'The list has changed: its ETag is now "{tag}". Read it again, then retry.')
    return int(count)


def unchanged_task(owner: str, id: str, versions: Versions) -> Row:
    """The task, where a request turned out to change nothing; its If-Match holds all the same."""
    rows = find_task(owner, id)
    held = [row for row in rows if versions is None or not {str(row[VERSION]), row[-1]}.isdisjoint(versions)]
    return _only(owner, id, versions, held)


def _only(owner: str, id: str, versions: Versions, rows: list[Row]) -> Row:
    if not rows:
        raise absence(owner, id, versions)
    return rows[0]
