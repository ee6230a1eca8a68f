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
    delete,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from . import mutations
from .db import Row, database
from .models import MAX_BATCH, QUOTA, owners, tasks
from .mutations import LIVE_COUNT, LOCK, Versions, bury, given
from .planning import Missing, Plan, State
from .queries import OWNER, TASK, absence
from .statements import Query

STORED = tuple(str(column.name) for column in tasks.c if column.name not in ("user_id", "due_key", "version"))
IDS = bindparam("ids", type_=ARRAY(Uuid(as_uuid=False)))


def _read() -> Query:
    """The owner's row made and locked; then revision, nonce, last position, now, live tasks, *STORED, version."""
    named, following = tasks.alias("named"), tasks.alias("following")
    asked_for = (named.c.user_id == OWNER) & (named.c.id == any_(IDS))
    # The next occurrences of those that repeat.
    next_one = (following.c.user_id == named.c.user_id) & (following.c.series == named.c.series)
    next_one &= following.c.occurrence == named.c.occurrence + 1
    successors = select(following.c.id).join_from(named, following, next_one).where(asked_for)
    wanted = select(named.c.id).where(asked_for).union(successors).subquery("wanted")
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


READ, SAVE = _read(), _save()


@contextmanager
def planned(owner: str, ids: list[str], zone: ZoneInfo) -> Iterator[Plan]:
    """A plan with the owner's tasks `ids` and their successors; saved at the end, all of it, unless there is an error.

    Raises what stands for a task that the plan missed: NotFound, or Forbidden for another user's.
    """
    db = database()
    try:
        with db.transaction():
            rows = db.read(owner, READ, ids=ids)
            revision, nonce, last_position, now, live = map(in_utc, rows[0][:5])
            states = [dict(zip((*STORED, "version"), map(in_utc, row[5:]), strict=True)) for row in rows if row[5]]
            known = {state["id"]: state for state in states}
            room, new_id = QUOTA - live, lambda: str(uuid_utils.uuid7())
            plan = Plan(known, revision, nonce, last_position, now, zone, room, new_id)
            yield plan
            if plan.revision != revision:
                save(owner, plan)
    except Missing as missing:
        raise absence(owner, missing.id) from None


async def update_task(owner: str, id: str, fields: dict[str, Any], versions: Versions, zone: ZoneInfo) -> Row:
    """Set `fields` and leave the others alone. Raises NotFound, Forbidden, PreconditionFailed, Invalid."""
    row = await mutations.update_task(owner, id, fields, versions)
    return row or _one(owner, id, zone, lambda plan: plan.update(id, fields, versions))


async def complete_task(owner: str, id: str, completed: bool | None, versions: Versions, zone: ZoneInfo) -> Row:
    """Set `completed`, or turn it around when None; of a task that repeats, the next occurrence comes or goes."""
    row = await mutations.complete_task(owner, id, completed, versions)
    return row or _one(owner, id, zone, lambda plan: plan.complete(id, completed, versions))


async def restore_task(owner: str, id: str, versions: Versions) -> Row:
    """Bring back from the trash; a task that isn't there stays as it is. Raises QuotaExceeded."""
    row = await mutations.restore_task(owner, id, versions)
    return row or _one(owner, id, ZoneInfo("UTC"), lambda plan: plan.restore(id, versions))


def _one(owner: str, id: str, zone: ZoneInfo, do: Callable[[Plan], State]) -> Row:
    with planned(owner, [id], zone) as plan:
        state = do(plan)
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
