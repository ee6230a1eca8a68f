"""What is done to tasks: by one statement where that can do it alone, else as a unit of work.

The session comes first; only its owner's tasks are changed. Every change of one task returns it as it is then, with its
entity tag. Where none of the owner's tasks matches, Missing is raised, which becomes NotFound, Forbidden or
PreconditionFailed when the transaction is over.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import uuid_utils

from ..db.session import Session
from ..errors import NO_ITEM, Missing, PreconditionFailed
from . import ordering, statements
from .columns import DEFAULTS, columns
from .queries import COLUMNS, ChangedRow, TaskRow, Versions, get_task, holds
from .repository import unit_of_work
from .statements import change_task, new_values
from .unit_of_work import State, UnitOfWork

IN_UTC = ZoneInfo("UTC")


def create_task(session: Session, fields: dict[str, Any]) -> TaskRow:
    """Make a task, with the id that `fields` may have. Raises QuotaExceeded, Conflict."""
    row = _create_last(session, fields) if fields.get("position") is None else None
    ids = [fields["id"]] if "id" in fields else []
    return row or _one(session, ids, IN_UTC, lambda unit: unit.create(fields), placed(fields))


def _create_last(session: Session, fields: dict[str, Any]) -> TaskRow | None:
    """Make a task behind all others; None where it takes a unit of work to tell whether there is room for it."""
    moment = datetime.now(UTC)
    new = {"id": str(uuid_utils.uuid7())} | columns(DEFAULTS | fields)
    del new["position"]
    new["completed_at"] = moment if new["completed"] else None
    statement = statements.CREATE_NAMED if "id" in fields else statements.CREATE
    return session.execute(statement, new_values(new) | {"owner": session.owner, "moment": moment}).one_or_none()


def update_task(session: Session, id: str, fields: dict[str, Any], versions: Versions, zone: ZoneInfo) -> TaskRow:
    """Set `fields`, leave the others; `completed` None: turn it around. Raises Missing, PreconditionFailed, Invalid."""
    if not fields:
        return _unchanged(session, id, versions)
    row = None
    if "position" not in fields and fields.get("completed", False) is not None:
        values = columns(fields)
        statement = statements.set_columns(frozenset(values), versions is not None)
        row = change_task(session, statement, id, versions, new_values(values))
        if row is None and "completed" not in fields:
            raise Missing(id, versions)
    return row or _one(session, [id], zone, lambda unit: unit.update(id, fields, versions), placed(fields))


def update_item(session: Session, id: str, number: int, fields: dict[str, Any], versions: Versions) -> TaskRow:
    """Set `fields` of an item of the task's checklist, counted from 0. Raises Missing."""
    statement, values = statements.set_item(versions is not None), {"number": number, "new_item": fields}
    row = change_task(session, statement, id, versions, values) if fields else _unchanged(session, id, versions)
    if row is None or number >= len(row.checklist):
        raise Missing(id, versions, NO_ITEM)
    return row


def complete_task(session: Session, id: str, completed: bool | None, versions: Versions, zone: ZoneInfo) -> TaskRow:
    """Set `completed`, or turn it around when None; of a task that repeats, the next occurrence comes or goes."""
    statement = statements.set_completed(completed is None, versions is not None)
    row = change_task(session, statement, id, versions, {"new_completed": completed})
    return row or _one(session, [id], zone, lambda unit: unit.complete(id, completed, versions))


def trash_task(session: Session, id: str, versions: Versions) -> TaskRow:
    """Move to the trash, from where `restore_task` brings it back. Raises Missing."""
    return _found(change_task(session, statements.move_to_trash(versions is not None), id, versions), id, versions)


def delete_task(session: Session, id: str, versions: Versions) -> TaskRow:
    """Delete for good, from the trash or from outside it. What the task was at its end. Raises Missing."""
    return _found(change_task(session, statements.delete_for_good(versions is not None), id, versions), id, versions)


def sweep_tasks(session: Session, completed: bool, versions: Versions) -> int:
    """Move all tasks, or all completed ones, to the trash: how many. Raises PreconditionFailed if the list is newer."""
    values = {"owner": session.owner, "moment": datetime.now(UTC), "versions": list(versions or ())}
    row = session.execute(statements.sweep(completed, versions is not None), values).one()
    if versions is not None and row.before not in versions:
        # Who has never made a task has no revision.
        now = f': its ETag is now "{row.before}"' if row.before else ""
        raise PreconditionFailed(f"The list has changed{now}. Read it again, then retry.")
    return int(row.moved)


def restore_task(session: Session, id: str, versions: Versions) -> TaskRow:
    """Bring back from the trash; a task that isn't there stays as it is. Raises QuotaExceeded."""
    return _one(session, [id], IN_UTC, lambda unit: unit.restore(id, versions), [])


def move_task(session: Session, id: str, behind: bool, anchor: str | None, versions: Versions) -> TaskRow:
    """Put right behind or before `anchor`; None: at the end, at the start. Raises Missing, PreconditionFailed."""
    row = ordering.move_task(session, id, behind, anchor, versions)
    ids = [id] if anchor is None else [id, anchor]
    return row or _one(session, ids, IN_UTC, lambda unit: unit.move(id, behind, anchor, versions), [])


def _unchanged(session: Session, id: str, versions: Versions) -> TaskRow:
    """The task, where a request turned out to change nothing; its If-Match holds all the same. Raises Missing."""
    row = get_task(session, id)
    if versions is not None and not holds(row.version, row.etag, versions):
        raise Missing(id, versions)
    return row


def _found(row: TaskRow | None, id: str, versions: Versions) -> TaskRow:
    if row is None:
        raise Missing(id, versions)
    return row


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
