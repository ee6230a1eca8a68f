"""What operations make of tasks, one after the other: pure, on copies of the rows, `now` included.

For what one statement can't do: many operations as one, and tasks that repeat. Completing a task that repeats leaves it
completed and makes its next occurrence; opening it again removes that one, if nobody has touched it yet. Reading the
rows before and saving them after is left to `repository.py`.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..db.models import MAX_OCCURRENCE, MAX_POSITION, tasks
from ..errors import Invalid, Missing, NotFound, id_taken, no_room
from .columns import DEFAULTS, columns
from .queries import Versions, holds, outdated
from .recurrence.successor import successor

State = dict[str, Any]
# Where a task stands in the manual order: its position, its id, and a number to tell those apart that go to one place.
Key = tuple[float, str, int]
# Behind every id, as no hexadecimal digit is.
LAST_ID = "g"


class UnitOfWork:
    """The rows by id, as they are after what was done so far; times in UTC.

    `revision` counts the changes as the owner's does in the database; `nonce` is theirs; `room` is for how many more
    tasks there is. `saved` and `removed`: ids to write, to delete; `buried`: those that no task can get any more.
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
        self.now, self.zone, self.room, self._new_id = now, zone, room, new_id
        # Where those belong that got another position: behind all that have it, in the order of getting there.
        self.placed: dict[str, Key] = {}
        self.saved: dict[str, None] = {}
        self.removed: dict[str, None] = {}
        self.buried: set[str] = set()

    def create(self, fields: dict[str, Any]) -> State:
        """With the id that `fields` may have. Raises QuotaExceeded, Conflict."""
        if {fields.get("id")} & (self.rows.keys() | self.removed.keys() | self.buried):
            raise id_taken()
        values = columns(DEFAULTS | fields)
        row = self._blank() | values | {"completed_at": self.now if values["completed"] else None}
        return self._put(sound(row))

    def update(self, id: str, fields: dict[str, Any], versions: Versions) -> State:
        row = self._live(id, versions)
        if not fields:
            return row
        completed = fields.get("completed", row["completed"])
        if completed is None:
            completed = not row["completed"]
        row = sound(row | columns(fields) | {"completed": row["completed"], "updated_at": self.now})
        return self._put(row) if completed == row["completed"] else self._turn(row)

    def complete(self, id: str, completed: bool | None, versions: Versions) -> State:
        row = self._live(id, versions)
        return row if completed is row["completed"] else self._turn(row)

    def trash(self, id: str, versions: Versions) -> State:
        self.room += 1
        return self._put(self._live(id, versions) | {"deleted_at": self.now, "updated_at": self.now})

    def restore(self, id: str, versions: Versions) -> State:
        """Out of the trash; what isn't there stays as it is. Raises QuotaExceeded."""
        row = self._any(id, versions)
        if row["deleted_at"] is None:
            return row
        self._take_room()
        return self._put(row | {"deleted_at": None, "updated_at": self.now})

    def move(self, id: str, behind: bool, anchor: str | None, versions: Versions) -> State:
        """Right behind or before `anchor`; None: to the end, to the start."""
        row = self._live(id, versions)
        if anchor == id:
            return row
        position, key = (None if behind else -math.inf), None
        if anchor is not None:
            position = self._beside(anchor, "after" if behind else "before")["position"]
            key = (position, anchor, 1 if behind else -1)
        row = self._put(row | {"position": position, "updated_at": self.now})
        if key:
            self.placed[id] = key
        return row

    def delete(self, id: str, versions: Versions) -> State:
        """For good, from the trash or from outside it."""
        row = self._any(id, versions)
        self.room += row["deleted_at"] is None
        self.revision += 1
        del self.rows[id]
        self.saved.pop(id, None)
        self.removed[id] = None
        return row | {"deleted_at": row["deleted_at"] or self.now, "version": self.revision}

    def crowded(self) -> list[str]:
        """Tasks that got a position which another one has, or none that can be: those of one place, in their order."""
        here: dict[float, list[str]] = {}
        for id, row in self.rows.items():
            if row["deleted_at"] is None:
                position = row["position"]
                outside = abs(position) > MAX_POSITION
                here.setdefault(math.copysign(math.inf, position) if outside else position, []).append(id)
        for position, ids in here.items():
            new = sorted((id for id in ids if id in self.placed), key=self.placed.__getitem__)
            if new and math.isinf(position):
                return new
            if new and len(ids) > 1:
                return new if len(new) < len(ids) else new[1:]
        return []

    def order(self) -> dict[str, Key]:
        """Where its live tasks stand."""
        live = (row for row in self.rows.values() if row["deleted_at"] is None)
        return {row["id"]: self.placed.get(row["id"], (row["position"], row["id"], 0)) for row in live}

    def rearrange(self, positions: Mapping[str, float]) -> dict[str, float]:
        """Give its tasks these positions; what is left of them is for other tasks."""
        for id in positions.keys() & self.rows.keys():
            if id not in self.saved:
                self._put(self.rows[id] | {"position": positions[id]})
            # What has been answered of it, as it is in the end.
            self.rows[id]["position"] = positions[id]
            self.placed.pop(id, None)
        return {id: position for id, position in positions.items() if id not in self.rows}

    def _turn(self, row: State) -> State:
        """Complete or open again; where the task repeats, its next occurrence comes or goes."""
        completed = not row["completed"]
        turned = {"completed": completed, "completed_at": self.now if completed else None, "updated_at": self.now}
        if row["recurrence"] is None:
            return self._put(row | turned)
        row = row | turned | self._place_of(row)
        following = self._at(row["series"], row["occurrence"] + 1)
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
        self._put(
            self._blank()
            | columns(DEFAULTS)
            | {column.name: row[column.name] for column in tasks.c if column.info.get("copied")}
            | {"checklist": [item | {"completed": False} for item in row["checklist"]]}
            | {"recurrence": rule, "series": row["series"], "occurrence": row["occurrence"] + 1}
            | {"due_on": None if timed else due, "due_at": due if timed else None}
        )

    def _place_of(self, row: State) -> State:
        """The row's place in its series. It begins one of its own where it has none, or can't be counted on from.

        That has the row's id, unless a task of an earlier life of this id, or from a file, is the first of it already.
        """
        if row["series"] is not None and row["occurrence"] < MAX_OCCURRENCE:
            return {"series": row["series"], "occurrence": row["occurrence"]}
        free = row["series"] is None and self._at(row["id"], 0) is None
        return {"series": row["id"] if free else self._new_id(), "occurrence": 0}

    def _at(self, series: str, occurrence: int) -> State | None:
        """The task at this place, be it live or in the trash."""
        found = (row for row in self.rows.values() if (row["series"], row["occurrence"]) == (series, occurrence))
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
        self.room -= 1
        if self.room < 0:
            raise no_room()

    def _live(self, id: str, versions: Versions) -> State:
        row = self._any(id, versions)
        if row["deleted_at"] is not None:
            raise NotFound("This task is in the trash. POST to its /restore brings it back.")
        return row

    def _beside(self, id: str, field: str) -> State:
        """The task that `field` of the request names."""
        if id not in self.rows:
            raise Missing(id).within(field)
        try:
            return self._live(id, None)
        except NotFound as problem:
            raise problem.within(field) from None

    def _any(self, id: str, versions: Versions) -> State:
        if id not in self.rows:
            raise Missing(id)
        row = self.rows[id]
        if versions is not None and not holds(row["version"], self.etag(row), versions):
            raise outdated(row["version"])
        return row

    def _put(self, row: State) -> State:
        """Count a change and keep the row as it left it."""
        if row["position"] is None:
            row = row | {"position": float(int(self.last_position // 1) + 1)}
        self.last_position = max(self.last_position, row["position"])
        before = self.rows.get(row["id"])
        there = before is not None and before["deleted_at"] is None and before["position"] == row["position"]
        if not there:
            self.placed[row["id"]] = (row["position"], LAST_ID, self.revision)
        self.revision += 1
        self.rows[row["id"]] = row = row | {"version": self.revision}
        self.saved[row["id"]] = None
        return row


def sound(row: State) -> State:
    """`row`, if its fields go together. Raises Invalid."""
    if row["recurrence"] is not None and row["due_on"] is None and row["due_at"] is None:
        raise Invalid([("recurrence", "Needs a due_date.")])
    return row
