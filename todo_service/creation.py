"""New tasks: one statement, for one or for as many as have met (`turns.py`).

The owner's count goes up by as many, and each of the tasks gets a version of its own from it, as if they had come one
after the other; `mutations.py` says what that is for.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import orjson
import uuid_utils
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Update,
    and_,
    any_,
    bindparam,
    case,
    func,
    insert,
    not_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from .db import Database, Row, database
from .models import BLANK, MAX_POSITION, QUOTA, columns, owners, tasks
from .mutations import LIVE_COUNT, LOCK, given, taken
from .queries import OWNER, TASK, etag
from .statements import Query

# The columns that the service gives a new task its values in; those of the others are made in the statement.
GIVEN = (
    *("id", "title", "title_key", "description", "description_key", "completed", "priority"),
    *("due_on", "due_at", "tags", "tag_keys", "recurrence", "repeat_from", "position"),
)


COUNT = bindparam("count", type_=BigInteger)


def _create(placed: bool) -> Select[Any]:
    """Of each task its GIVEN columns, its number `n` from 1, and `place`, counting those without a position from 1.

    Each with its entity tag. Makes all of them, or none if it isn't certain that there is room for all: that is decided
    on the owner's row as it is when it's locked, and on nothing else, as the tasks are seen as they were before that.
    `placed`: some may have a position, which must be free; so the lock has to be held before.
    """
    free = not_(taken(any_(bindparam("positions", type_=ARRAY(tasks.c.position.type))))) if placed else true()
    placeless = bindparam("placeless", type_=BigInteger)
    highest = bindparam("highest", type_=tasks.c.position.type)

    def last_position(before: ColumnElement[float] | float) -> ColumnElement[float]:
        known = func.greatest(before, highest)
        return case((placeless > 0, func.floor(known) + placeless), else_=known)

    bump = (
        upsert(owners)
        .values(user_id=OWNER, revision=COUNT, last_position=last_position(0.0))
        .on_conflict_do_update(
            index_elements=[owners.c.user_id],
            set_={
                "revision": owners.c.revision + COUNT,
                "last_position": last_position(owners.c.last_position),
            },
            where=and_(
                owners.c.revision + COUNT <= owners.c.room_until,
                last_position(owners.c.last_position) <= MAX_POSITION,
                free,
            ),
        )
        .returning(*owners.c)
        .cte("bump")
    )
    rows = given(GIVEN, "n", "place")
    values = {name: rows.c[name] for name in GIVEN} | {
        "user_id": bump.c.user_id,
        "completed_at": case((rows.c.completed, func.now())),
        "position": func.coalesce(rows.c.position, bump.c.last_position - placeless + rows.c.place),
        "version": bump.c.revision - COUNT + rows.c.n,
    }
    made = select(*values.values()).select_from(bump.join(rows, true()))
    new = insert(tasks).from_select(list(values), made).returning(*TASK).cte("new")
    return select(*new.c, etag(new.c.version, bump.c.nonce)).select_from(new.join(bump, true()))


def _count() -> Update:
    """The tasks counted, if they have to be: until when there is room for certain, for an owner who is locked."""
    uncertain = owners.c.revision + COUNT > owners.c.room_until
    until = owners.c.revision + QUOTA - LIVE_COUNT
    return update(owners).where(owners.c.user_id == OWNER, uncertain).values(room_until=until)


CREATE, LOOK_AND_CREATE = Query(_create(placed=False)), Query(*LOCK, _count(), _create(placed=True))


class NoPlace(Exception):
    """Whether there is room for the tasks, and where they go, takes a plan."""


async def create_task(owner: str, fields: dict[str, Any]) -> Row:
    """Make a task: its row, and its tag. Raises NoPlace."""
    task = {"id": str(uuid_utils.uuid7())} | columns(BLANK | fields)
    row: Row = await database().in_turn(owner, task, create_tasks)
    return row


def create_tasks(db: Database, owner: str, new: Sequence[dict[str, Any]]) -> list[Row]:
    """Make `new`. Raises NoPlace if there isn't room for all, or if a position among them is taken."""
    places = itertools.count(1)
    rows = [
        task | {"n": n, "place": next(places) if task["position"] is None else None} for n, task in enumerate(new, 1)
    ]
    positions = [task["position"] for task in new if task["position"] is not None]
    highest = max(positions, default=None)
    if len(set(positions)) < len(positions) or math.floor(highest or 0) + len(new) > MAX_POSITION:
        raise NoPlace
    values = dict(
        rows=orjson.dumps(rows).decode(),
        count=len(new),
        placeless=len(new) - len(positions),
        highest=highest,
        positions=positions,
    )
    made = [] if positions else db.write(owner, CREATE, **values)
    made = made or db.write(owner, LOOK_AND_CREATE, **values)
    if not made:
        raise NoPlace
    found = {row[0]: row for row in made}
    return [found[task["id"]] for task in new]
