"""What there is of a user, for the operator: how much, since when, how large; nothing of what it says."""

from typing import Any

from sqlalchemy import DateTime, Row, Select, func, literal_column, select, true

from ..db.models import answers, owners, tasks, tombstones
from ..db.session import Session
from .queries import LIVE, OWNER


def _kept() -> Select[*tuple[Any, ...]]:
    size = func.coalesce(func.sum(func.pg_column_size(literal_column("tasks.*"))), literal_column("0"))
    numbers = (
        func.count().filter(LIVE, ~tasks.c.completed).label("pending"),
        func.count().filter(LIVE, tasks.c.completed).label("completed"),
        func.count(tasks.c.deleted_at).label("trashed"),
        func.timezone(literal_column("'UTC'"), func.min(tasks.c.created_at), type_=DateTime()).label("first"),
        func.timezone(literal_column("'UTC'"), func.max(tasks.c.updated_at), type_=DateTime()).label("last"),
        size.label("size"),
    )
    counted = select(*numbers).where(tasks.c.user_id == OWNER).subquery("counted")
    others = (
        select(func.count()).where(table.c.user_id == OWNER).scalar_subquery().label(table.name)
        for table in (tombstones, answers)
    )
    everything = select(*counted.c, *others, owners.c.revision).join_from(owners, counted, true())
    return everything.where(owners.c.user_id == OWNER)


KEPT = _kept()


def kept(session: Session) -> Row[*tuple[Any, ...]] | None:
    """Counts, dates in UTC, the size in bytes of the session's owner's tasks; None if nothing is kept."""
    return session.execute(KEPT, {"owner": session.owner}).one_or_none()
