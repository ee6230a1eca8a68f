"""Many tasks at once, out of a file: all of them or none, and none that is there already.

The owner's row is locked first, as by every change. Then the tasks go out in steps, each one statement of the form that
`statements.py` explains, with a version of its own for each task; a step is small enough to keep the statement's
deadline, and the last one's commit makes all of them visible together.
"""

from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    case,
    exists,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)

from ..db.models import QUOTA, owners, tasks
from ..db.session import MAKE_OWNER, Session
from ..errors import no_room
from . import ordering
from .queries import OWNER
from .repository import STORED
from .statements import LIVE_COUNT, ONE, given

STEP = 2000
NAMES = tuple(name for name in STORED if name != "version")
PLACE = ("series", "occurrence")


def _locked_owner() -> Select[*tuple[Any, ...]]:
    """The owner's row, locked; and how many live tasks there are."""
    owner = select(owners.c.last_position, LIVE_COUNT.label("live")).where(owners.c.user_id == OWNER)
    return owner.execution_options(first=MAKE_OWNER)


def _add() -> Select[*tuple[Any, ...]]:
    """The rows that are not there yet inserted, each with the next version: how many, and how many of them live.

    What is there already is known for certain, because nobody else changes this owner's tasks meanwhile.
    """
    rows = given(NAMES, "n")
    there = exists(select(ONE).select_from(tasks).where(tasks.c.user_id == OWNER, tasks.c.id == rows.c.id))
    number = func.row_number().over(order_by=rows.c.n).label("number")
    # A task whose place in its series is taken comes without one, as if it had never been completed. Of two in the
    # step, the first has it.
    same_place = (tasks.c.series == rows.c.series) & (tasks.c.occurrence == rows.c.occurrence)
    taken = exists(select(ONE).select_from(tasks).where(tasks.c.user_id == OWNER, same_place))
    rank = func.row_number().over(partition_by=[rows.c.series, rows.c.occurrence], order_by=rows.c.n)
    free = (rank == ONE) & ~taken
    kept = {name: case((free, rows.c[name])) if name in PLACE else rows.c[name] for name in NAMES}
    fresh = select(number, *(column.label(name) for name, column in kept.items())).where(~there).cte("fresh")
    count = select(func.count()).select_from(fresh).scalar_subquery()
    last = select(func.max(fresh.c.position)).scalar_subquery()
    counted: dict[str, ColumnElement[Any]] = {
        "revision": owners.c.revision + count,
        "last_position": func.greatest(owners.c.last_position, last),
    }
    # An import that finds nothing new changes nothing: lists stay unchanged for those who ask with their ETag.
    bump = (
        update(owners)
        .where(owners.c.user_id == OWNER, count > literal_column("0"))
        .values(counted)
        .returning(*owners.c)
        .cte("bump")
    )
    values: dict[str, ColumnElement[Any]] = {name: fresh.c[name] for name in NAMES}
    values |= {"user_id": bump.c.user_id, "version": bump.c.revision - count + fresh.c.number}
    made_of = select(*values.values()).select_from(bump.join(fresh, true()))
    made = insert(tasks).from_select(list(values), made_of).returning(tasks.c.deleted_at).cte("made")
    live = func.count().filter(made.c.deleted_at.is_(None))
    return select(func.count().label("added"), live.label("added_live")).select_from(made)


LOCKED_OWNER, ADD = _locked_owner(), _add()


def add_tasks(session: Session, rows: list[dict[str, Any]]) -> int:
    """Keep those of `rows` (of `entries.rows`) whose ids are new to the owner. How many. Raises QuotaExceeded."""
    if not rows:
        return 0
    created, owner = 0, {"owner": session.owner}
    with session.transaction():
        last_position, live = session.execute(LOCKED_OWNER, owner).one()
        places = ordering.at_the_end(session, {row["id"]: row["position"] for row in rows}, last_position)
        placed = [row | {"n": n, "position": places[row["id"]]} for n, row in enumerate(rows, 1)]
        for start in range(0, len(placed), STEP):
            step = orjson.dumps(placed[start : start + STEP]).decode()
            done = session.execute(ADD, owner | {"rows": step}).one()
            created, live = created + done.added, live + done.added_live
            if done.added_live and live > QUOTA:
                raise no_room()
    return created
