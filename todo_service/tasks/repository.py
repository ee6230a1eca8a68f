"""Units of work, loaded and saved: in three messages as a rule, however many tasks they change.

The first message locks the owner's row and then reads, so what it reads stays as it is until the end; `unit_of_work.py`
makes of it what is asked for; the second message saves all of that, and the last commits. Tasks deleted for good take
one more, and so do places in the order where there is no room left. What one statement can do alone is left to
`statements.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import uuid_utils
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Insert,
    Select,
    any_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    null,
    select,
    true,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.dialects.postgresql import insert as upsert

from ..db.models import ID, MAX_BATCH, QUOTA, owners, tasks, tombstones
from ..db.session import MAKE_OWNER, Session
from .ordering import settle
from .queries import OWNER
from .statements import LIVE_COUNT, ONE, bury, given
from .unit_of_work import UnitOfWork

STORED = tuple(str(column.name) for column in tasks.c if column.name != "user_id" and not column.computed)
IDS = bindparam("ids", type_=ARRAY(ID))
REVISION = bindparam("new_revision", type_=BigInteger)


def _each(*conditions: ColumnElement[bool]) -> Any:
    """The owner's tasks that meet the conditions, looked up anew for each row of what those name.

    OFFSET 0 keeps PostgreSQL from joining in another way: of a user it knows nothing of, it expects so few tasks that
    it would go through all of them for each of the ids.
    """
    found = select(*(tasks.c[name] for name in STORED)).where(tasks.c.user_id == OWNER, *conditions)
    return found.offset(literal_column("0")).lateral()


def _read(order: bool) -> Select[*tuple[Any, ...]]:
    """What is to be known of the owner, and the STORED columns of the tasks; one row without id where there are none.

    `buried`: which of the ids were those of tasks that are gone for good.

    `order`: with the tasks that have one of `positions`, or that of a task asked for.
    """
    asked_for = func.unnest(IDS).table_valued(Column("id", ID)).render_derived(name="asked_for")
    named = _each(tasks.c.id == asked_for.c.id)
    there = tasks.alias("there")
    # What has the place in its series that each of those has or will get when it is completed, and the place behind it:
    # its next occurrence.
    number = cast(func.coalesce(named.c.occurrence, literal_column("0")), BigInteger)
    same_series = tasks.c.series == func.coalesce(named.c.series, named.c.id)
    following = _each(same_series, tasks.c.occurrence == any_(array([number, number + ONE])))
    those = asked_for.join(named, true())
    found_by = [select(asked_for.c.id), select(following.c.id).select_from(those.join(following, true()))]
    if order:
        theirs = (there.c.user_id == OWNER) & there.c.deleted_at.is_(None)
        same_place = there.c.position.in_(select(named.c.position).select_from(those))
        given_ones = there.c.position == any_(bindparam("positions", type_=ARRAY(tasks.c.position.type)))
        found_by.append(select(there.c.id).where(theirs, given_ones | same_place))
    wanted = union(*found_by).subquery("wanted")
    row = _each(tasks.c.id == wanted.c.id)
    found = select(*(row.c[name] for name in STORED)).select_from(wanted.join(row, true())).subquery("found")
    # The tasks are counted only where it isn't certain that there is room.
    roomy = owners.c.revision < owners.c.room_until - literal_column(str(MAX_BATCH))
    same_id = (tombstones.c.user_id == OWNER) & (tombstones.c.id == any_(IDS))
    buried = select(func.array_agg(tombstones.c.id, type_=ARRAY(ID))).where(same_id).scalar_subquery()
    head = (
        buried.label("buried"),
        owners.c.revision,
        owners.c.nonce,
        owners.c.last_position,
        case((roomy, null()), else_=LIVE_COUNT).label("live"),
    )
    everything = select(*head, *found.c).select_from(owners.outerjoin(found, true())).where(owners.c.user_id == OWNER)
    return everything.execution_options(first=MAKE_OWNER)


def _write() -> Insert:
    """The rows written, the owner's counts brought up to date."""
    counted = {
        "revision": REVISION,
        "last_position": bindparam("new_last_position", type_=owners.c.last_position.type),
        "room_until": func.coalesce(bindparam("new_room_until", type_=BigInteger), owners.c.room_until),
    }
    count = update(owners).where(owners.c.user_id == OWNER).values(counted).returning(owners.c.user_id).cte("counted")
    rows = given(STORED)
    owned = select(count.c.user_id, *rows.c).select_from(count.join(rows, true()))
    write = upsert(tasks).from_select(["user_id", *STORED], owned)
    again = {name: write.excluded[name] for name in STORED if name != "id"}
    return write.on_conflict_do_update(index_elements=["user_id", "id"], set_=again)


def _remove() -> Select[*tuple[Any, ...]]:
    gone = delete(tasks).where(tasks.c.user_id == OWNER, tasks.c.id == any_(IDS))
    gone_ids = gone.returning(tasks.c.user_id, tasks.c.id).cte("gone")
    return select(ONE).select_from(gone_ids).add_cte(bury(select(gone_ids.c.user_id, gone_ids.c.id, REVISION)))


READ, READ_IN_ORDER, WRITE, REMOVE = _read(order=False), _read(order=True), _write(), _remove()


@contextmanager
def unit_of_work(
    session: Session, ids: list[str], zone: ZoneInfo, positions: list[float] | None = None
) -> Iterator[UnitOfWork]:
    """With the owner's tasks `ids` and their successors; saved at the end, all of it, unless there is an error.

    `positions`: those that tasks are to get by it; None: none, or such as nobody can have yet.
    """
    with session.transaction():
        statement = READ if positions is None else READ_IN_ORDER
        values = {"owner": session.owner, "ids": ids} | ({} if positions is None else {"positions": positions})
        rows = session.execute(statement, values).all()
        owner, room = rows[0], QUOTA - (rows[0].live or 0)
        states = [{name: in_utc(getattr(row, name)) for name in STORED} for row in rows if row.id is not None]
        known = {state["id"]: state for state in states}
        head = (owner.revision, owner.nonce, owner.last_position)
        unit = UnitOfWork(known, *head, datetime.now(UTC), zone, room, lambda: str(uuid_utils.uuid7()))
        unit.buried.update(owner.buried or ())
        yield unit
        if unit.revision != owner.revision:
            settle(session, unit)
            save(session, unit, counted=owner.live is not None)


def save(session: Session, unit: UnitOfWork, counted: bool) -> None:
    """`counted`: the owner's tasks were, so it is known until when there is room for certain."""
    counts = {"owner": session.owner, "new_revision": unit.revision}
    # First: a successor that is made anew must not meet the one that goes.
    if unit.removed:
        session.execute(REMOVE, counts | {"ids": list(unit.removed), "moment": unit.now})
    rows = [unit.rows[id] for id in unit.saved if id in unit.rows]
    text = orjson.dumps(rows, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z).decode()
    until = unit.revision + unit.room if counted else None
    session.execute(WRITE, counts | {"rows": text, "new_last_position": unit.last_position, "new_room_until": until})


def in_utc(value: Any) -> Any:
    """A time in UTC, whatever time zone the connection has; anything else as it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value
