"""What is removed for good: trash after 30 days, tombstones after 90, answers kept for retries, users who left.

And what ends when the database is put back to an earlier state: the entity tags and sync tokens given out since.

Purging takes the owners that it can lock and leaves out those that another purge is at, so it may run on several
machines at once; and it goes in small steps, so that no user has to wait for it.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import CTE, ColumnElement, Select, bindparam, delete, func, literal, select, text, tuple_, update

from .db import Database
from .models import ANSWER_HOURS, BYTES, answers, owners, tasks, tombstones
from .mutations import bury
from .queries import OWNER
from .statements import Query

TRASH_DAYS = 30
# A client that synced less than this long ago learns of every deletion; an older one has to start over.
TOMBSTONE_DAYS = 90
RENEWED_A_STEP = 1000
OWNERS_A_STEP = 100
TASKS_A_STEP = 5000
ANSWERS_A_STEP = 1000


def _older(moment: ColumnElement[datetime], age: str) -> ColumnElement[bool]:
    return moment < func.now() - text(f"interval '{age}'")


def _free(due: Select[tuple[str]]) -> CTE:
    """Lock up to a step's worth of the owners in `due`, passing over those that are locked already."""
    some = select(owners.c.user_id).where(owners.c.user_id.in_(due)).limit(OWNERS_A_STEP)
    return some.with_for_update(skip_locked=True).cte("free")


def _purge_trash() -> Query:
    old = _older(tasks.c.deleted_at, f"{TRASH_DAYS} days")
    free = _free(select(tasks.c.user_id).where(old))
    # One user may have a hundred thousand of them, more than can be removed within a statement's deadline.
    some = select(tasks.c.user_id, tasks.c.id).where(tasks.c.user_id == free.c.user_id, old).limit(TASKS_A_STEP)
    some_tasks = some.cte("some")
    bump = (
        update(owners)
        .where(owners.c.user_id.in_(select(some_tasks.c.user_id)))
        .values(revision=owners.c.revision + 1)
        .returning(owners.c.user_id, owners.c.revision)
        .cte("bump")
    )
    gone = (
        delete(tasks)
        .where(tasks.c.user_id == bump.c.user_id, tasks.c.user_id == some_tasks.c.user_id)
        .where(tasks.c.id == some_tasks.c.id, old)
        .returning(tasks.c.user_id, tasks.c.id, bump.c.revision)
        .cte("gone")
    )
    buried = bury(select(gone.c.user_id, gone.c.id, gone.c.revision))
    return Query(select(func.count()).select_from(gone).add_cte(buried))


def _drop_tombstones() -> Query:
    old = _older(tombstones.c.purged_at, f"{TOMBSTONE_DAYS} days")
    free = _free(select(tombstones.c.user_id).where(old))
    gone = (
        delete(tombstones)
        .where(tombstones.c.user_id == free.c.user_id, old)
        .returning(tombstones.c.user_id, tombstones.c.version)
        .cte("gone")
    )
    newest = select(gone.c.user_id, func.max(gone.c.version).label("version")).group_by(gone.c.user_id).subquery()
    moved = (
        update(owners)
        .where(owners.c.user_id == newest.c.user_id)
        .values(horizon=func.greatest(owners.c.horizon, newest.c.version))
        .returning(literal(1))
        .cte("moved")
    )
    return Query(select(func.count()).select_from(gone).add_cte(moved))


def _drop_answers() -> Query:
    key = tuple_(answers.c.user_id, answers.c.key)
    old = _older(answers.c.created_at, f"{ANSWER_HOURS} hours")
    some = select(*key.clauses).where(old).limit(ANSWERS_A_STEP).with_for_update(skip_locked=True)
    gone = delete(answers).where(key.in_(some)).returning(literal(1)).cte("gone")
    return Query(select(func.count()).select_from(gone))


def _renew() -> Query:
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
    return Query(select(func.max(renewed.c.user_id), func.count()))


RENEW = _renew()
PURGE_TRASH, DROP_TOMBSTONES, DROP_ANSWERS = _purge_trash(), _drop_tombstones(), _drop_answers()
FORGET = tuple(Query(delete(table).where(table.c.user_id == OWNER)) for table in (tasks, tombstones, answers, owners))


class Purged(NamedTuple):
    """How many of each were removed."""

    tasks: int
    tombstones: int
    answers: int


def purge(db: Database) -> Purged:
    """Remove what is too old."""
    return Purged(*(sum(_counts(db, step)) for step in (PURGE_TRASH, DROP_TOMBSTONES, DROP_ANSWERS)))


def _counts(db: Database, step: Query) -> Iterator[int]:
    """How many rows each repetition of `step` removed, until one finds no more."""
    while count := db.unscoped(step)[0][0]:
        yield count


def renew(db: Database) -> int:
    """Give every owner another nonce: how many. Safe to repeat."""
    last, total = "", 0
    while True:
        [(last, count)] = db.unscoped(RENEW, after=last)
        if not count:
            return total
        total += count


def forget(db: Database, owner: str) -> None:
    """Remove everything of a user who deleted their account. Safe to repeat."""
    for query in FORGET:
        db.write(owner, query)
