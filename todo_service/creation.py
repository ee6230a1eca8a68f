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
from sqlalchemy import BigInteger, ColumnElement, and_, any_, bindparam, case, func, insert, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from .db import Database, Row, database
from .models import BLANK, MAX_POSITION, QUOTA, columns, owners, tasks
from .mutations import LIVE_COUNT, LOCK, given, taken
from .queries import OWNER, TASK
from .statements import Query

# The columns that the service gives a new task its values in; those of the others are made in the statement.
GIVEN = (
    *("id", "title", "title_key", "description", "description_key", "completed", "priority"),
    *("due_on", "due_at", "tags", "tag_keys", "recurrence", "repeat_from", "position"),
)


def _create(placed: bool) -> Query:
    """Of each task its GIVEN columns, its number `n` from 1, and `place`, counting those without a position from 1.

    Makes all of them, or none if there isn't room for all. `placed`: some of them have a position, which must be free
    when the owner's row is locked.
    """
    free = not_(taken(any_(bindparam("positions", type_=ARRAY(tasks.c.position.type))))) if placed else true()
    count, placeless = bindparam("count", type_=BigInteger), bindparam("placeless", type_=BigInteger)
    highest = bindparam("highest", type_=tasks.c.position.type)

    def last_position(before: ColumnElement[float] | float) -> ColumnElement[float]:
        known = func.greatest(before, highest)
        return case((placeless > 0, func.floor(known) + placeless), else_=known)

    roomy = owners.c.revision + count <= owners.c.room_until
    bump = (
        upsert(owners)
        .values(user_id=OWNER, revision=count, last_position=last_position(0.0))
        .on_conflict_do_update(
            index_elements=[owners.c.user_id],
            set_={
                "revision": owners.c.revision + count,
                "last_position": last_position(owners.c.last_position),
                "room_until": case((roomy, owners.c.room_until), else_=owners.c.revision + QUOTA - LIVE_COUNT),
            },
            where=and_(
                or_(roomy, LIVE_COUNT + count <= QUOTA), last_position(owners.c.last_position) <= MAX_POSITION, free
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
        "version": bump.c.revision - count + rows.c.n,
    }
    made = select(*values.values()).select_from(bump.join(rows, true()))
    new = insert(tasks).from_select(list(values), made).returning(*TASK)
    return Query(*LOCK, new) if placed else Query(new)


CREATE, CREATE_PLACED = _create(placed=False), _create(placed=True)


class NoPlace(Exception):
    """Whether there is room for the tasks, and where they go, takes a plan."""


async def create_task(owner: str, fields: dict[str, Any]) -> Row:
    """Make a task. Raises NoPlace."""
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
    made = db.write(
        owner,
        CREATE_PLACED if positions else CREATE,
        rows=orjson.dumps(rows).decode(),
        count=len(new),
        placeless=len(new) - len(positions),
        highest=highest,
        positions=positions,
    )
    if not made:
        raise NoPlace
    found = {row[0]: row for row in made}
    return [found[task["id"]] for task in new]
