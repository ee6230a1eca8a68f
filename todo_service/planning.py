"""What operations make of tasks, one after the other: pure, on copies of the rows, `now` included.

For what one statement can't do: many operations as one, and tasks that repeat. Completing a task that repeats leaves it
completed and makes its next occurrence; opening it again removes that one, if nobody has touched it yet. `plans.py`
reads the rows before and saves them after.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from .errors import Invalid, NotFound, PreconditionFailed, full
from .models import BLANK, columns
from .recurrence import successor

State = dict[str, Any]
Versions = list[str] | None


class Missing(Exception):
    """No row of the owner's has this id; why, only the database can say."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id


class Plan:
    """The rows by id, as they are after what was done so far; times in UTC.

    `revision` counts the changes as the owner's does in the database; `nonce` is theirs. `saved` and `removed`: ids to
    write, to delete.
    """

    def __init__(
        self,
        rows: dict[str, State],
        revision: int,
        nonce: str,
        last_position: float,
        now: datetime,
        zone: ZoneInfo,
        room: int,
        new_id: Callable[[], str],
    ) -> None:
        self.rows, self.revision, self.nonce, self.last_position = rows, revision, nonce, last_position
        self.now, self.zone, self._room, self._new_id = now, zone, room, new_id
        self.saved: dict[str, None] = {}
        self.removed: dict[str, None] = {}

    def create(self, fields: dict[str, Any]) -> State:
        values = columns(BLANK | fields)
        row = self._blank() | values | {"completed_at": self.now if values["completed"] else None}
        return self._put(sound(row))

    def update(self, id: str, fields: dict[str, Any], versions: Versions) -> State:
        row = self._live(id, versions)
        if not fields:
            return row
        completed = fields.get("completed", row["completed"])
        row = sound(row | columns(fields) | {"completed": row["completed"], "updated_at": self.now})
        return self._put(row) if completed == row["completed"] else self._turn(row)

    def complete(self, id: str, completed: bool | None, versions: Versions) -> State:
        row = self._live(id, versions)
        return row if completed is row["completed"] else self._turn(row)

    def trash(self, id: str, versions: Versions) -> State:
        self._room += 1
        return self._put(self._live(id, versions) | {"deleted_at": self.now, "updated_at": self.now})

    def restore(self, id: str, versions: Versions) -> State:
        """Out of the trash; what isn't there stays as it is. Raises QuotaExceeded."""
        row = self._any(id, versions)
        if row["deleted_at"] is None:
            return row
        self._take_room()
        return self._put(row | {"deleted_at": None, "updated_at": self.now})

    def delete(self, id: str, versions: Versions) -> State:
        """For good, from the trash or from outside it."""
        row = self._any(id, versions)
        self._room += row["deleted_at"] is None
        self.revision += 1
        del self.rows[id]
        self.saved.pop(id, None)
        self.removed[id] = None
        return row | {"deleted_at": row["deleted_at"] or self.now, "version": self.revision}

    def _turn(self, row: State) -> State:
        """Complete or open again; where the task repeats, its next occurrence comes or goes."""
        completed = not row["completed"]
        turned = {"completed": completed, "completed_at": self.now if completed else None, "updated_at": self.now}
        if row["recurrence"] is None:
            return self._put(row | turned)
        row = row | turned | {"series": row["series"] or row["id"], "occurrence": row["occurrence"] or 0}
        following = self._next_of(row)
        if completed and following is None:
            self._repeat(row)
        elif not completed and following and following["created_at"] == following["updated_at"]:
            self.delete(following["id"], None)
        return self._put(row)

    def _repeat(self, row: State) -> None:
        following = successor(
            row["recurrence"], row["due_on"] or row["due_at"], row["repeat_from"], self.now, self.zone
        )
        if following is None:
            return
        rule, due = following
        timed = isinstance(due, datetime)
        kept = ("title", "title_key", "description", "description_key", "priority", "tags", "tag_keys", "repeat_from")
        self._put(
            self._blank()
            | {name: row[name] for name in kept}
            | {"recurrence": rule, "series": row["series"], "occurrence": row["occurrence"] + 1}
            | {"due_on": None if timed else due, "due_at": due if timed else None, "completed": False}
        )

    def _next_of(self, row: State) -> State | None:
        place = row["series"], row["occurrence"] + 1
        found = (other for other in self.rows.values() if (other["series"], other["occurrence"]) == place)
        return next(found, None)

    def _blank(self) -> State:
        """What a new task starts from. Raises QuotaExceeded."""
        self._take_room()
        times = {"created_at": self.now, "updated_at": self.now, "completed_at": None, "deleted_at": None}
        return times | {"id": self._new_id(), "series": None, "occurrence": None, "position": None}

    def etag(self, row: State) -> str:
        """As `queries.etag` has it."""
        return f"{row['version']}-{self.nonce}"

    def _take_room(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise full()

    def _live(self, id: str, versions: Versions) -> State:
        row = self._any(id, versions)
        if row["deleted_at"] is not None:
            raise NotFound("This task is in the trash. POST to its /restore brings it back.")
        return row

    def _any(self, id: str, versions: Versions) -> State:
        if id not in self.rows:
            raise Missing(id)
        row = self.rows[id]
        if versions is not None and {str(row["version"]), self.etag(row)}.isdisjoint(versions):
            raise PreconditionFailed(f'The task has changed: its version is now "{row["version"]}".')
        return row

    def _put(self, row: State) -> State:
        """Count a change and keep the row as it left it."""
        if row["position"] is None:
            row = row | {"position": float(int(self.last_position // 1) + 1)}
        self.last_position = max(self.last_position, row["position"])
        self.revision += 1
        self.rows[row["id"]] = row = row | {"version": self.revision}
        self.saved[row["id"]] = None
        return row


def sound(row: State) -> State:
    """`row`, if its fields go together. Raises Invalid."""
    if row["recurrence"] is not None and row["due_on"] is None and row["due_at"] is None:
        raise Invalid([("recurrence", "Needs a due_date.")])
    return row
