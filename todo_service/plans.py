"""Changes that must see rows before they change them: locked and read, planned, saved; in three messages, always.

The first message locks the owner's row and then reads, so what it reads stays as it is until the end; `planning.py`
makes of it what is asked for; the second message saves all of that, and the third commits. What one statement can do
alone is left to `mutations.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import uuid_utils
from sqlalchemy import (
    BigInteger,
    Uuid,
    any_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    select,
    true,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from . import creation, mutations, ordering
from .db import Row, database
from .models import MAX_BATCH, QUOTA, owners, tasks
from .mutations import LIVE_COUNT, LOCK, Versions, bury, given
from .ordering import settle
from .planning import Missing, Plan, State
from .queries import OWNER, TASK, absence
from .statements import Query

STORED = tuple(str(column.name) for column in tasks.c if column.name not in ("user_id", "due_key", "version"))
IDS = bindparam("ids", type_=ARRAY(Uuid(as_uuid=False)))


def _read(order: bool) -> Query:
    """The owner's row made and locked; then revision, nonce, last position, now, live tasks, *STORED, version.

    `order`: with the tasks that have one of `positions`, or that of a task asked for.
    """
    named, following, there = tasks.alias("named"), tasks.alias("following"), tasks.alias("there")
    asked_for = (named.c.user_id == OWNER) & (named.c.id == any_(IDS))
    # What has the place in its series that each of those has or will get when it is completed, and the place behind it:
    # its next occurrence.
    series, number = func.coalesce(named.c.series, named.c.id), func.coalesce(named.c.occurrence, 0)
    same = (following.c.user_id == named.c.user_id) & (following.c.series == series)
    near = same & following.c.occurrence.in_([number, cast(number, BigInteger) + 1])
    holders = select(following.c.id).join_from(named, following, near).where(asked_for)
    found_by = [select(named.c.id).where(asked_for), holders]
    if order:
        theirs = (there.c.user_id == OWNER) & there.c.deleted_at.is_(None)
        same_place = there.c.position.in_(select(named.c.position).where(asked_for))
        given_ones = there.c.position == any_(bindparam("positions", type_=ARRAY(tasks.c.position.type)))
        found_by.append(select(there.c.id).where(theirs, given_ones | same_place))
    wanted = union(*found_by).subquery("wanted")
    rows = wanted.join(tasks, (tasks.c.user_id == OWNER) & (tasks.c.id == wanted.c.id))
    columns = [tasks.c[name] for name in (*STORED, "version")]
    found = select(*columns).select_from(rows).subquery("found")
    live = case((owners.c.revision < owners.c.room_until - MAX_BATCH, 0), else_=LIVE_COUNT)
    head = (owners.c.revision, owners.c.nonce, owners.c.last_position, func.clock_timestamp(), live)
    everything = select(*head, *found.c).select_from(owners.outerjoin(found, true())).where(owners.c.user_id == OWNER)
    return Query(*LOCK, everything)


def _save() -> Query:
    """The rows written and deleted, the owner's count brought up to date."""
    counted = {"revision": bindparam("revision", type_=BigInteger), "last_position": bindparam("last_position")}
    count = update(owners).where(owners.c.user_id == OWNER).values(counted)
    rows = select(OWNER, *given((*STORED, "version")).c)
    write = upsert(tasks).from_select(["user_id", *STORED, "version"], rows)
    again = {name: write.excluded[name] for name in (*STORED, "version") if name != "id"}
    write = write.on_conflict_do_update(index_elements=["user_id", "id"], set_=again)
    gone = delete(tasks).where(tasks.c.user_id == OWNER, tasks.c.id == any_(IDS))
    gone_ids = gone.returning(tasks.c.user_id, tasks.c.id).cte("gone")
    buried = bury(select(gone_ids.c.user_id, gone_ids.c.id, bindparam("revision", type_=BigInteger)))
    # Deleted first: a successor that is made anew must not meet the one that goes.
    return Query(select(literal(1)).select_from(gone_ids).add_cte(buried), write, count)


READ, READ_IN_ORDER, SAVE = _read(order=False), _read(order=True), _save()


@contextmanager
def planned(owner: str, ids: list[str], zone: ZoneInfo, positions: list[float] | None = None) -> Iterator[Plan]:
    """A plan with the owner's tasks `ids` and their successors; saved at the end, all of it, unless there is an error.

    `positions`: those that tasks are to get by it; None: none, or such as nobody can have yet.
    Raises what stands for a task that the plan missed: NotFound, or Forbidden for another user's.
    """
    db = database()
    try:
        with db.transaction():
            query = READ if positions is None else READ_IN_ORDER
            rows = db.read(owner, query, ids=ids, positions=positions)
            revision, nonce, last_position, now, live = map(in_utc, rows[0][:5])
            states = [dict(zip((*STORED, "version"), map(in_utc, row[5:]), strict=True)) for row in rows if row[5]]
            known = {state["id"]: state for state in states}
            room, new_id = QUOTA - live, lambda: str(uuid_utils.uuid7())
            plan = Plan(known, revision, nonce, last_position, now, zone, room, new_id)
            yield plan
            if plan.revision != revision:
                settle(owner, plan)
                save(owner, plan)
    except Missing as missing:
        problem = absence(owner, missing.id)
        raise (problem.within(missing.field) if missing.field else problem) from None


async def create_task(owner: str, fields: dict[str, Any]) -> Row:
    """Make a task. Raises QuotaExceeded."""
    try:
        return await creation.create_task(owner, fields)
    except creation.NoPlace:
        return _one(owner, [], ZoneInfo("UTC"), lambda plan: plan.create(fields), placed(fields))


async def update_task(owner: str, id: str, fields: dict[str, Any], versions: Versions, zone: ZoneInfo) -> Row:
    """Set `fields` and leave the others alone. Raises NotFound, Forbidden, PreconditionFailed, Invalid."""
    row = await mutations.update_task(owner, id, fields, versions)
    return row or _one(owner, [id], zone, lambda plan: plan.update(id, fields, versions), placed(fields))


async def complete_task(owner: str, id: str, completed: bool | None, versions: Versions, zone: ZoneInfo) -> Row:
    """Set `completed`, or turn it around when None; of a task that repeats, the next occurrence comes or goes."""
    row = await mutations.complete_task(owner, id, completed, versions)
    return row or _one(owner, [id], zone, lambda plan: plan.complete(id, completed, versions))


async def restore_task(owner: str, id: str, versions: Versions) -> Row:
    """Bring back from the trash; a task that isn't there stays as it is. Raises QuotaExceeded."""
    row = await mutations.restore_task(owner, id, versions)
    return row or _one(owner, [id], ZoneInfo("UTC"), lambda plan: plan.restore(id, versions), [])


async def move_task(owner: str, id: str, behind: bool, anchor: str | None, versions: Versions) -> Row:
    """Put right behind or before `anchor`; None: at the end, at the start.

    Raises NotFound, Forbidden, PreconditionFailed.
    """
    row = await ordering.move_task(owner, id, behind, anchor, versions)
    ids = [id] if anchor is None else [id, anchor]
    return row or _one(owner, ids, ZoneInfo("UTC"), lambda plan: plan.move(id, behind, anchor, versions), [])


def placed(*tasks: dict[str, Any]) -> list[float] | None:
    """The positions that the fields of tasks ask for; None if there are none."""
    return [fields["position"] for fields in tasks if fields.get("position") is not None] or None


def _one(
    owner: str, ids: list[str], zone: ZoneInfo, do: Callable[[Plan], State], positions: list[float] | None = None
) -> Row:
    """What comes of one operation: the task's row, and its tag."""
    with planned(owner, ids, zone, positions) as plan:
        state = do(plan)
    # As it is in the end, when the order is settled.
    return (*as_row(owner, state), plan.etag(state))


def save(owner: str, plan: Plan) -> None:
    values = {"revision": plan.revision, "last_position": plan.last_position, "ids": list(plan.removed)}
    rows = [plan.rows[id] for id in plan.saved if id in plan.rows]
    text = orjson.dumps(rows, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z).decode()
    database().write(owner, SAVE, rows=text, **values)


def in_utc(value: Any) -> Any:
    """A time in UTC, whatever time zone the connection has; anything else as it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def as_row(owner: str, state: State) -> Row:
    """A state in the form of `queries.TASK`."""
    return tuple(owner if column.name == "user_id" else state[column.name] for column in TASK)
