"""The manual order: where a task goes between two others, and how room is made where there is none left.

Tasks stand in the order of (position, id). Between two positions there is another one, until they are next to each
other as floating-point numbers are; beyond MAX_POSITION there is none. Then a stretch of the order gets new positions,
evenly spaced: no longer than it must be, as each task in it is a change that others have to hear of. What is decided
about the order is decided while the owner's row is locked.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Update,
    any_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    not_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..db.models import ID, MAX_POSITION, owners, tasks
from ..db.session import LOCK_OWNER, Session
from .queries import LIVE, MINE, OWNER, TASK, THIS, TaskRow, Versions, etag
from .statements import MOMENT, ONE, change_task, given, if_match_holds
from .unit_of_work import LAST_ID, Key, UnitOfWork

# A stretch has room when so many numbers lie between two neighbours at least: enough for twenty halvings.
ROOM = 2.0**20
# So many tasks are read to each side of a place at first; each further time, so many times more.
NEAR_BY, MORE = 32, 8

LAST = bindparam("new_last_position", type_=owners.c.last_position.type)


@cache
def _move(behind: bool, anchored: bool, conditional: bool) -> Update:
    """Put this task next to the anchor, or at the end or the start: its row then; none where there is no room."""
    other, further = tasks.alias("other"), tasks.alias("further")

    def line(table: Any) -> Sequence[ColumnElement[bool]]:
        return (table.c.user_id == OWNER, table.c.deleted_at.is_(None), table.c.id != THIS.right)

    def order(table: Any, upwards: bool) -> list[ColumnElement[Any]]:
        return [column.asc() if upwards else column.desc() for column in (table.c.position, table.c.id)]

    near = select(other.c.user_id, other.c.position, other.c.id).where(*line(other))
    if anchored:
        near = near.where(other.c.id == bindparam("anchor", type_=ID))
    else:
        near = near.order_by(*order(other, not behind)).limit(ONE)
    beside = near.cte("near")
    place, last = func.row(further.c.position, further.c.id), func.row(beside.c.position, beside.c.id)
    beyond = select(further.c.position).where(*line(further), place > last if behind else place < last)
    far = beyond.order_by(*order(further, behind)).limit(ONE).lateral("far")
    outside = func.floor(beside.c.position) + ONE if behind else func.ceil(beside.c.position) - ONE
    wanted = case((far.c.position.is_(None), outside), else_=(beside.c.position + far.c.position) / literal_column("2"))
    ends = func.coalesce(far.c.position, wanted + ONE if behind else wanted - ONE)
    between = (beside.c.position < wanted, wanted < ends) if behind else (ends < wanted, wanted < beside.c.position)
    room = select(beside.c.user_id, wanted.label("position")).select_from(beside.outerjoin(far, true()))
    free = room.where(*between, func.abs(wanted) <= literal_column(f"{MAX_POSITION:.0f}")).cte("free")
    conditions = (LIVE, *if_match_holds(conditional))
    some_task = exists(select(ONE).select_from(tasks).where(MINE, THIS, *conditions).correlate(owners))
    highest = func.greatest(owners.c.last_position, free.c.position)
    bump = (
        update(owners)
        .where(owners.c.user_id == OWNER, owners.c.user_id == free.c.user_id, some_task)
        .values(revision=owners.c.revision + ONE, last_position=highest)
        .returning(owners.c.user_id, owners.c.revision, owners.c.nonce, free.c.position)
        .cte("bump")
    )
    moved = (
        update(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, THIS)
        .values(position=bump.c.position, updated_at=MOMENT, version=bump.c.revision)
        .returning(*TASK, etag(tasks.c.version, bump.c.nonce))
    )
    return moved.execution_options(first=LOCK_OWNER)


def move_task(session: Session, id: str, behind: bool, anchor: str | None, versions: Versions) -> TaskRow | None:
    """Put the task right behind or before `anchor`; None: at the end, the start. None if that takes a unit of work."""
    statement = _move(behind, anchor is not None, versions is not None)
    return change_task(session, statement, id, versions, {"anchor": anchor})


def _near() -> CompoundSelect[Any]:
    """Up to `count` of the owner's live tasks to each side of `position`, but none of `ids`: id, position."""
    position, count = bindparam("at", type_=tasks.c.position.type), bindparam("most", type_=BigInteger)
    unknown = not_(tasks.c.id == any_(bindparam("ids", type_=ARRAY(ID))))
    line = select(tasks.c.id, tasks.c.position).where(MINE, LIVE, unknown)
    below = line.where(tasks.c.position <= position).order_by(tasks.c.position.desc(), tasks.c.id.desc())
    above = line.where(tasks.c.position > position).order_by(tasks.c.position, tasks.c.id)
    return below.limit(count).union_all(above.limit(count))


def _respace() -> Update:
    """`rows` with another position, each with a version of its own behind `start`, which the owner's goes on from."""
    rows, start = given(("id", "position"), "n"), bindparam("start", type_=BigInteger)
    counted = {"revision": start + bindparam("number", type_=BigInteger), "last_position": LAST}
    bump = update(owners).where(owners.c.user_id == OWNER).values(counted).returning(owners.c.user_id).cte("bump")
    return (
        update(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, tasks.c.id == rows.c.id)
        .values(position=rows.c.position, version=start + rows.c.n)
    )


REVISION = select(owners.c.revision).where(owners.c.user_id == OWNER)
NEAR, RESPACE = _near(), _respace()


def respace(session: Session, positions: Mapping[str, float], revision: int, last_position: float) -> int:
    """Give tasks other positions; nothing else of them changes. The owner's revision, `revision` before, after that."""
    rows = [{"id": id, "position": position, "n": n} for n, (id, position) in enumerate(positions.items(), 1)]
    values = {"start": revision, "number": len(rows), "new_last_position": last_position}
    session.execute(RESPACE, values | {"owner": session.owner, "rows": orjson.dumps(rows).decode()})
    return revision + len(rows)


def settle(session: Session, unit: UnitOfWork) -> None:
    """Let no two live tasks have one position because of what `unit` has changed, and none one that can't be."""
    while group := unit.crowded():
        positions, last = make_room(session, unit.order(), [*unit.rows, *unit.removed], group)
        unit.last_position = unit.last_position if last is None else last
        if others := unit.rearrange(positions):
            unit.revision = respace(session, others, unit.revision, unit.last_position)


def make_room(
    session: Session, held: Mapping[str, Key], others: Collection[str], group: Sequence[str]
) -> tuple[dict[str, float], float | None]:
    """New positions for `group` and as few tasks around it as there have to be; and the last position, if it is new.

    `held`: where tasks stand that may differ from what is stored, among them those of `group`, which come one after the
    other. What is stored of these, and of `others`, counts for nothing.
    """
    at, count = held[group[0]][0], NEAR_BY
    while True:
        values = {"owner": session.owner, "at": at, "most": count, "ids": [*held, *others]}
        found = session.execute(NEAR, values).all()
        below = [row for row in found if row.position <= at]
        whole_start, whole_end = len(below) < count, len(found) - len(below) < count
        stored = sorted((row.position, row.id, 0) for row in found)
        # Where not all is known, what is held may lie beyond what was read, with others in between.
        first = None if whole_start else stored[0]
        last = None if whole_end else stored[-1]
        line = [(key, id) for id, key in held.items() if (not first or first < key) and (not last or key < last)]
        line += [(key, key[1]) for key in stored]
        line.sort()
        ids = [id for _, id in line]
        here = ids.index(group[0])
        positions = [key[0] for key, _ in line]
        if stretch := respaced(positions, here, here + len(group) - 1, whole_start, whole_end):
            begin, new = stretch
            at_the_end = begin + len(new) == len(line) and whole_end
            return dict(zip(ids[begin : begin + len(new)], new, strict=True)), new[-1] if at_the_end else None
        count *= MORE


def at_the_end(session: Session, positions: Mapping[str, float | None], last_position: float) -> dict[str, float]:
    """Positions of new tasks: those they have, the next ones behind all others for those that have none."""
    known = {id: float(position) for id, position in positions.items() if position is not None}
    end = math.floor(max([last_position, *known.values()]))
    new = [id for id, position in positions.items() if position is None]
    found = known | {id: float(end + n) for n, id in enumerate(new, 1)}
    if not new or end + len(new) <= MAX_POSITION:
        return found
    held = {id: (position, id, 0) for id, position in known.items()}
    held |= {id: (math.inf, LAST_ID, n) for n, id in enumerate(new)}
    moved, last = make_room(session, held, (), new)
    others = {id: position for id, position in moved.items() if id not in positions}
    revision = session.execute(REVISION, {"owner": session.owner}).scalar_one()
    respace(session, others, revision, last_position if last is None else last)
    return found | {id: moved[id] for id in moved.keys() & positions.keys()}


def respaced(
    positions: Sequence[float], first: int, last: int, whole_start: bool, whole_end: bool
) -> tuple[int, list[float]] | None:
    """New positions for a stretch of `positions`, in order, with those from `first` to `last` in it; and its beginning.

    It grows by doubling until there is room. None where that takes positions before or behind those given, if they are
    not the whole order.
    """
    reach = 0
    while True:
        begin, end = max(first - reach, 0), min(last + 1 + reach, len(positions))
        if (begin == 0 and not whole_start) or (end == len(positions) and not whole_end):
            return None
        low = positions[begin - 1] if begin else None
        high = positions[end] if end < len(positions) else None
        if new := spread(low, high, end - begin):
            return begin, new
        reach = 2 * reach + 1


def spread(low: float | None, high: float | None, count: int) -> list[float] | None:
    """`count` positions between `low` and `high`, with room between them; None if there isn't. None: no bound."""
    if low is not None and high is not None:
        low, high = max(low, -MAX_POSITION), min(high, MAX_POSITION)
        gap = (high - low) / (count + 1)
        roomy = gap >= ROOM * math.ulp(max(abs(low), abs(high)))
        return [low + gap * n for n in range(1, count + 1)] if roomy else None
    start = math.floor(low) if low is not None else 0 if high is None else math.ceil(high) - count - 1
    fits = start + 1 >= -MAX_POSITION and start + count <= MAX_POSITION
    return [float(start + n) for n in range(1, count + 1)] if fits else None
