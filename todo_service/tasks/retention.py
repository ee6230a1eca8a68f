"""What is removed for good: trash after 30 days, tombstones after 90, answers kept for retries, users who left.

And what ends when the database is put back to an earlier state: the entity tags and sync tokens given out since.

Purging takes the owners that it can lock, and comes back to those who were busy, be it with changes or because another
purge is at them: it may run on several machines at once. It goes in small steps, so that no user has to wait for it.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    ScalarSelect,
    Select,
    Table,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
    true,
    tuple_,
    update,
)

from ..db.models import ANSWER_HOURS, BYTES, answers, owners, tasks, tombstones
from ..db.session import Session
from .queries import OWNER
from .statements import ONE, bury

TRASH_DAYS = 30
# A client that synced less than this long ago learns of every deletion; an older one has to start over.
TOMBSTONE_DAYS = 90
RENEWED_A_STEP = 1000
OWNERS_A_STEP = 100
TASKS_A_STEP = 5000
ANSWERS_A_STEP = 1000
# How long a purge comes back to who was busy, and how often, in seconds.
PATIENCE, PAUSE = 30, 0.2


def _older(moment: ColumnElement[datetime], age: str) -> ColumnElement[bool]:
    return moment < func.now() - text(f"interval '{age}'")


TRASH = _older(tasks.c.deleted_at, f"{TRASH_DAYS} days")
TOMBSTONES = _older(tombstones.c.purged_at, f"{TOMBSTONE_DAYS} days")
ANSWERS = _older(answers.c.created_at, f"{ANSWER_HOURS} hours")


def _free(due: Select[tuple[str]]) -> CTE:
    """Lock up to a step's worth of the owners in `due`, passing over those that are locked already."""
    some = select(owners.c.user_id).where(owners.c.user_id.in_(due)).limit(OWNERS_A_STEP)
    return some.with_for_update(skip_locked=True).cte("free")


def _purge_trash() -> Select[*tuple[Any, ...]]:
    free = _free(select(tasks.c.user_id).where(TRASH))
    # One user may have a hundred thousand of them, more than can be removed within a statement's deadline.
    some = select(tasks.c.user_id, tasks.c.id).where(tasks.c.user_id == free.c.user_id, TRASH).limit(TASKS_A_STEP)
    some_tasks = some.cte("some")
    bump = (
        update(owners)
        .where(owners.c.user_id.in_(select(some_tasks.c.user_id)))
        .values(revision=owners.c.revision + ONE)
        .returning(owners.c.user_id, owners.c.revision)
        .cte("bump")
    )
    # Whether one is still in the trash is asked in a way that no index answers: where the statistics say that there is
    # none, PostgreSQL would take them all by that index for each of `some`, instead of each by its key.
    gone = (
        delete(tasks)
        .where(tasks.c.user_id == bump.c.user_id, tasks.c.user_id == some_tasks.c.user_id)
        .where(tasks.c.id == some_tasks.c.id, TRASH.is_(true()))
        .returning(tasks.c.user_id, tasks.c.id, bump.c.revision)
        .cte("gone")
    )
    buried = bury(select(gone.c.user_id, gone.c.id, gone.c.revision))
    return select(func.count()).select_from(gone).add_cte(buried)


def _drop_tombstones() -> Select[*tuple[Any, ...]]:
    free = _free(select(tombstones.c.user_id).where(TOMBSTONES))
    gone = (
        delete(tombstones)
        .where(tombstones.c.user_id == free.c.user_id, TOMBSTONES)
        .returning(tombstones.c.user_id, tombstones.c.version)
        .cte("gone")
    )
    newest = select(gone.c.user_id, func.max(gone.c.version).label("version")).group_by(gone.c.user_id).subquery()
    moved = (
        update(owners)
        .where(owners.c.user_id == newest.c.user_id)
        .values(horizon=func.greatest(owners.c.horizon, newest.c.version))
        .returning(ONE)
        .cte("moved")
    )
    return select(func.count()).select_from(gone).add_cte(moved)


def _drop_answers() -> Select[*tuple[Any, ...]]:
    key = tuple_(answers.c.user_id, answers.c.key)
    some = select(*key.clauses).where(ANSWERS).limit(ANSWERS_A_STEP).with_for_update(skip_locked=True)
    gone = delete(answers).where(key.in_(some)).returning(ONE).cte("gone")
    return select(func.count()).select_from(gone)


def _renew() -> Select[*tuple[Any, ...]]:
    """Another nonce for the next owners after `after`, by their ids; the last of these ids."""
    after = bindparam("after", type_=BYTES)
    some = select(owners.c.user_id).where(owners.c.user_id > after).order_by(owners.c.user_id).limit(RENEWED_A_STEP)
    ids = some.with_for_update().cte("some")
    renewed = (
        update(owners)
        .where(owners.c.user_id == ids.c.user_id)
        .values(nonce=text("DEFAULT"))
        .returning(owners.c.user_id)
        .cte("renewed")
    )
    return select(func.max(renewed.c.user_id).label("last"), func.count().label("renewed"))


RENEW = _renew()
PURGE_TRASH, DROP_TOMBSTONES, DROP_ANSWERS = _purge_trash(), _drop_tombstones(), _drop_answers()


def _due() -> Select[*tuple[Any, ...]]:
    """How many there are of each whose time is over."""
    return select(*(select(func.count()).where(old).scalar_subquery() for old in (TRASH, TOMBSTONES, ANSWERS)))


def _overdue() -> Select[*tuple[Any, ...]]:
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


def _remove(table: Table) -> Select[*tuple[Any, ...]]:
    """All of an owner's; how many."""
    gone = delete(table).where(table.c.user_id == OWNER).returning(ONE).cte("gone")
    return select(func.count()).select_from(gone)


DUE, OVERDUE = _due(), _overdue()
FORGET = tuple(_remove(table) for table in (tasks, tombstones, answers, owners))


class Counts(NamedTuple):
    """How many, or how long, of each."""

    tasks: int
    tombstones: int
    answers: int

    def __str__(self) -> str:
        return f"{self.tasks} tasks, {self.tombstones} tombstones, {self.answers} Idempotency-Keys"


def purge(session: Session) -> Counts:
    """Remove what is too old; how many. What is left of it then (`due`) is that of users who were busy all the time."""
    removed, until = Counts(0, 0, 0), time.monotonic() + PATIENCE
    while True:
        step = [sum(_counts(session, step)) for step in (PURGE_TRASH, DROP_TOMBSTONES, DROP_ANSWERS)]
        removed = Counts(*map(sum, zip(removed, step, strict=True)))
        if not any(due(session)) or time.monotonic() > until:
            return removed
        time.sleep(PAUSE)


def due(session: Session) -> Counts:
    """What is too old, and still there."""
    return Counts(*session.execute(DUE).one())


def overdue(session: Session) -> Counts:
    """For how many seconds the oldest of each should have been removed; 0 if there is none such."""
    return Counts(*(int(seconds or 0) for seconds in session.execute(OVERDUE).one()))


def _counts(session: Session, step: Select[*tuple[Any, ...]]) -> Iterator[int]:
    """How many rows each repetition of `step` removed, until one finds no more."""
    while count := session.execute(step, {"moment": datetime.now(UTC)}).scalar_one():
        yield count


def renew(session: Session) -> int:
    """Give every owner another nonce: how many. Safe to repeat."""
    last, total = "", 0
    while True:
        step = session.execute(RENEW, {"after": last}).one()
        if not step.renewed:
            return total
        last, total = step.last, total + step.renewed


def forget(session: Session) -> Counts | None:
    """Remove all of the session's owner, who deleted their account; None if there was nothing. Safe to repeat."""
    *removed, known = [session.execute(query, {"owner": session.owner}).scalar_one() for query in FORGET]
    return Counts(*removed) if known or any(removed) else None
