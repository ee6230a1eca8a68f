"""What is removed for good: trash after 30 days, tombstones after 90, answers kept for retries, users who left.

Purging looks for owners who have something to lose, and takes it from one after the other, if it can lock them; it
comes back to those who were busy, be it with changes or because another purge is at them: it may run on several
machines at once. It goes in small steps, so that no user has to wait for it.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    ScalarSelect,
    Select,
    Table,
    Text,
    all_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..db.models import ANSWER_HOURS, TIME, answers, owners, tasks, tombstones
from ..db.session import Session
from .queries import MINE, OWNER
from .statements import ONE, bury

Statement = Select[*tuple[Any, ...]]

TRASH_DAYS = 30
# A client that synced less than this long ago learns of every deletion; an older one has to start over.
TOMBSTONE_DAYS = 90
OWNERS_A_STEP = 100
ROWS_A_STEP = 5000
ANSWERS_A_STEP = 1000
# How long a purge comes back to who was busy, and how often, in seconds.
PATIENCE, PAUSE = 30, 0.2


def _older(column: Column[Any], name: str) -> ColumnElement[bool]:
    return column < bindparam(f"{name}_before", type_=TIME)


TRASH = _older(tasks.c.deleted_at, "trash")
TOMBSTONES = _older(tombstones.c.purged_at, "tombstones")
ANSWERS = _older(answers.c.created_at, "answers")
# The owner of a step, locked, unless somebody else has them.
FREE = select(owners.c.user_id).where(owners.c.user_id == OWNER).with_for_update(skip_locked=True)


def _owners(table: Table, old: ColumnElement[bool]) -> Statement:
    """Some owners of what is `old` in `table`, none of `busy`."""
    busy = bindparam("busy", type_=ARRAY(Text))
    return (
        select(table.c.user_id).where(old, table.c.user_id != all_(busy)).group_by(table.c.user_id).limit(OWNERS_A_STEP)
    )


def _purge_trash() -> Statement:
    """What an owner has too long in the trash; or a step's worth of it. How many."""
    free = FREE.cte("free")
    # One user may have a hundred thousand of them, more than can be removed within a statement's deadline.
    some = select(tasks.c.id).where(MINE, tasks.c.user_id == free.c.user_id, TRASH).limit(ROWS_A_STEP).cte("some")
    bump = (
        update(owners)
        .where(owners.c.user_id == OWNER, exists(select(ONE).select_from(some)))
        .values(revision=owners.c.revision + ONE)
        .returning(owners.c.user_id, owners.c.revision)
        .cte("bump")
    )
    # Whether one is still in the trash is asked in a way that no index answers: where the statistics say that there is
    # none, PostgreSQL would take them all by that index for each of `some`, instead of each by its key.
    gone = (
        delete(tasks)
        .where(MINE, tasks.c.user_id == bump.c.user_id, tasks.c.id == some.c.id, TRASH.is_(true()))
        .returning(tasks.c.user_id, tasks.c.id, bump.c.revision)
        .cte("gone")
    )
    buried = bury(select(gone.c.user_id, gone.c.id, gone.c.revision))
    return select(func.count()).select_from(gone).add_cte(buried)


def _drop_tombstones() -> Statement:
    """An owner's old ones; or a step's worth, the oldest changes first, as `horizon` counts those. How many."""
    free, key = FREE.cte("free"), tombstones.c.user_id == OWNER
    some = select(tombstones.c.id).where(key, tombstones.c.user_id == free.c.user_id, TOMBSTONES)
    oldest = some.order_by(tombstones.c.version).limit(ROWS_A_STEP).cte("some")
    gone = (
        delete(tombstones)
        .where(key, tombstones.c.id == oldest.c.id)
        .returning(tombstones.c.user_id, tombstones.c.version)
        .cte("gone")
    )
    newest = select(gone.c.user_id, func.max(gone.c.version).label("version")).group_by(gone.c.user_id).subquery()
    moved = (
        update(owners)
        .where(owners.c.user_id == OWNER, owners.c.user_id == newest.c.user_id)
        .values(horizon=func.greatest(owners.c.horizon, newest.c.version))
        .returning(ONE)
        .cte("moved")
    )
    return select(func.count()).select_from(gone).add_cte(moved)


def _oldest_answers() -> Statement:
    """From when the last of a step's worth of old ones is; null without any."""
    some = select(answers.c.created_at).where(ANSWERS).order_by(answers.c.created_at).limit(ANSWERS_A_STEP)
    return select(func.max(some.subquery("some").c.created_at))


def _drop_answers() -> Statement:
    gone = delete(answers).where(answers.c.created_at <= bindparam("until", type_=TIME)).returning(ONE).cte("gone")
    return select(func.count()).select_from(gone)


OWNERS_OF_TRASH, OWNERS_OF_TOMBSTONES = _owners(tasks, TRASH), _owners(tombstones, TOMBSTONES)
PURGE_TRASH, DROP_TOMBSTONES = _purge_trash(), _drop_tombstones()
OLDEST_ANSWERS, DROP_ANSWERS = _oldest_answers(), _drop_answers()


def _due() -> Statement:
    """How many there are of each whose time is over."""
    return select(*(select(func.count()).where(old).scalar_subquery() for old in (TRASH, TOMBSTONES, ANSWERS)))


def _overdue() -> Statement:
    """For how many seconds the oldest of each should have been gone; null without any.

    Two are found at once by their index; of the trash, the index of all that is in it is read.
    """

    def since(moment: ColumnElement[datetime], old: ColumnElement[bool], hours: int) -> ScalarSelect[Any]:
        age = func.extract("epoch", func.now() - func.min(moment)) - literal_column(str(hours * 3600))
        return select(age).where(old).scalar_subquery()

    return select(
        since(tasks.c.deleted_at, TRASH, TRASH_DAYS * 24),
        since(tombstones.c.purged_at, TOMBSTONES, TOMBSTONE_DAYS * 24),
        since(answers.c.created_at, ANSWERS, ANSWER_HOURS),
    )


def _remove(table: Table, key: Column[Any]) -> Statement:
    """A step's worth of an owner's; how many."""
    some = select(key).where(table.c.user_id == OWNER).limit(ROWS_A_STEP).cte("some")
    gone = delete(table).where(table.c.user_id == OWNER, key == some.c[key.name]).returning(ONE).cte("gone")
    return select(func.count()).select_from(gone)


DUE, OVERDUE = _due(), _overdue()
REMOVE = [_remove(tasks, tasks.c.id), _remove(tombstones, tombstones.c.id), _remove(answers, answers.c.key)]
LOCK = select(owners.c.user_id).where(owners.c.user_id == OWNER).with_for_update()


class Counts(NamedTuple):
    """How many, or how long, of each."""

    tasks: int
    tombstones: int
    answers: int

    def __str__(self) -> str:
        return f"{self.tasks} tasks, {self.tombstones} tombstones, {self.answers} Idempotency-Keys"


def purge(session: Session, done: Callable[[int], object] = lambda _: None) -> Counts:
    """Remove what is too old; how many. What is left of it then (`due`) is that of users who were busy all the time.

    `done` is told of each step.
    """
    removed, until = Counts(0, 0, 0), time.monotonic() + PATIENCE
    while True:
        step = (
            told(done, _taken(session, OWNERS_OF_TRASH, PURGE_TRASH)),
            told(done, _taken(session, OWNERS_OF_TOMBSTONES, DROP_TOMBSTONES)),
            told(done, _answers(session)),
        )
        removed = Counts(*map(sum, zip(removed, step, strict=True)))
        if not any(due(session)) or time.monotonic() > until:
            return removed
        time.sleep(PAUSE)


def told(done: Callable[[int], object], steps: Iterator[int]) -> int:
    """The sum of `steps`, with `done` called for each."""
    total = 0
    for step in steps:
        done(step)
        total += step
    return total


def ages() -> dict[str, datetime]:
    """From when what is kept for a while is too old."""
    now = datetime.now(UTC)
    return {
        "trash_before": now - timedelta(days=TRASH_DAYS),
        "tombstones_before": now - timedelta(days=TOMBSTONE_DAYS),
        "answers_before": now - timedelta(hours=ANSWER_HOURS),
        "moment": now,
    }


def due(session: Session) -> Counts:
    """What is too old, and still there."""
    return Counts(*session.execute(DUE, ages()).one())


def overdue(session: Session) -> Counts:
    """For how many seconds the oldest of each should have been removed; 0 if there is none such."""
    return Counts(*(int(seconds or 0) for seconds in session.execute(OVERDUE, ages()).one()))


def _taken(session: Session, of: Statement, step: Statement) -> Iterator[int]:
    """How many rows each repetition of `step` removed, of all the owners whom `of` finds; the busy ones left out."""
    values: dict[str, Any] = ages() | {"busy": []}
    while found := session.execute(of, values).scalars().all():
        for owner in found:
            count = session.execute(step, values | {"owner": owner}).scalar_one()
            values["busy"] += [owner] if count == 0 else []
            yield count


def _answers(session: Session) -> Iterator[int]:
    values = ages()
    while until := session.execute(OLDEST_ANSWERS, values).scalar_one():
        yield session.execute(DROP_ANSWERS, {"until": until}).scalar_one()


def forget(session: Session) -> Counts | None:
    """Remove all of the session's owner, who deleted their account; None if there was nothing. Safe to repeat."""
    removed = Counts(*(_all(session, query) for query in REMOVE))
    # What has come meanwhile goes with the owner's row, behind whose lock nothing more comes.
    with session.transaction():
        known = session.execute(LOCK, {"owner": session.owner}).first()
        rest = [_all(session, query) for query in REMOVE]
        session.execute(delete(owners).where(owners.c.user_id == OWNER), {"owner": session.owner})
    return Counts(*map(sum, zip(removed, rest, strict=True))) if known or any(removed) else None


def _all(session: Session, step: Statement) -> int:
    """How many rows `step`, repeated, has removed of the owner's."""
    removed = 0
    while count := session.execute(step, {"owner": session.owner}).scalar_one():
        removed += count
    return int(removed)
