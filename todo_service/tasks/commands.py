"""What is done to tasks: by one statement where that can do it alone, else as a unit of work.

The session comes first; only its owner's tasks are changed. Every change of one task returns it as it is then, with its
entity tag. Where none of the owner's tasks matches, Missing is raised, which becomes NotFound, Forbidden or
PreconditionFailed when the transaction is over.
"""

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from ..db.session import Session
from . import ordering, statements
from .queries import COLUMNS, ChangedRow, TaskRow
from .repository import unit_of_work
from .statements import delete_task, sweep_tasks, trash_task, update_item
from .unit_of_work import State, UnitOfWork, Versions

__all__ = [
    "complete_task",
    "create_task",
    "delete_task",
    "move_task",
    "restore_task",
    "sweep_tasks",
    "trash_task",
    "update_item",
    "update_task",
]

UTC = ZoneInfo("UTC")


def create_task(session: Session, fields: dict[str, Any]) -> TaskRow:
    """Make a task, with the id that `fields` may have. Raises QuotaExceeded, Conflict."""
    row = statements.create_task(session, fields)
    ids = [fields["id"]] if "id" in fields else []
    return row or _one(session, ids, UTC, lambda unit: unit.create(fields), placed(fields))


def update_task(session: Session, id: str, fields: dict[str, Any], versions: Versions, zone: ZoneInfo) -> TaskRow:
    """Set `fields`, leave the others; `completed` None: turn it around. Raises Missing, PreconditionFailed, Invalid."""
    row = statements.update_task(session, id, fields, versions)
    return row or _one(session, [id], zone, lambda unit: unit.update(id, fields, versions), placed(fields))


def complete_task(session: Session, id: str, completed: bool | None, versions: Versions, zone: ZoneInfo) -> TaskRow:
    """Set `completed`, or turn it around when None; of a task that repeats, the next occurrence comes or goes."""
    row = statements.complete_task(session, id, completed, versions)
    return row or _one(session, [id], zone, lambda unit: unit.complete(id, completed, versions))


def restore_task(session: Session, id: str, versions: Versions) -> TaskRow:
    """Bring back from the trash; a task that isn't there stays as it is. Raises QuotaExceeded."""
    return _one(session, [id], UTC, lambda unit: unit.restore(id, versions), [])


def move_task(session: Session, id: str, behind: bool, anchor: str | None, versions: Versions) -> TaskRow:
    """Put right behind or before `anchor`; None: at the end, at the start. Raises Missing, PreconditionFailed."""
    row = ordering.move_task(session, id, behind, anchor, versions)
    ids = [id] if anchor is None else [id, anchor]
    return row or _one(session, ids, UTC, lambda unit: unit.move(id, behind, anchor, versions), [])


def placed(*tasks: dict[str, Any]) -> list[float] | None:
    """The positions that the fields of tasks ask for; None if there are none."""
    return [fields["position"] for fields in tasks if fields.get("position") is not None] or None


def _one(
    session: Session,
    ids: list[str],
    zone: ZoneInfo,
    do: Callable[[UnitOfWork], State],
    positions: list[float] | None = None,
) -> TaskRow:
    with unit_of_work(session, ids, zone, positions) as unit:
        state = do(unit)
    # As it is in the end, when the order is settled.
    return as_row(session.owner, unit, state)


def as_row(owner: str, unit: UnitOfWork, state: State) -> TaskRow:
    """A state with its columns by name, as a row of `queries.TASK` has them, and its tag."""
    row: TaskRow = ChangedRow(
        etag=unit.etag(state), **{name: owner if name == "user_id" else state[name] for name in COLUMNS}
    )
    return row
