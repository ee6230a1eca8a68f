"""One user's changes come one after the other; those that meet take their turns here, and what waited goes together.

They would wait for each other in any case (`mutations.py` says why). Here that costs less than in PostgreSQL, and no
connection; and of a burst, such as a list that is sorted anew with a request for each task, only the first is committed
alone. How changes are made, one or many, is left to those who bring them; and how somebody waits, to who calls: with
its thread (`finish`), or without one (`serving.py`).
"""

import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from .errors import Unavailable, busy
from .lead import lead

T = TypeVar("T")

# So long a change waits for its turn, in seconds: as long as those before it are made; and where they couldn't be.
PATIENCE, PATIENCE_IN_VAIN = 10, 1
# So many go together: most take a message each, to a database that may be far away, and all are answered at the end.
MAX_TOGETHER = 32

# Makes, in a database, changes of an owner's, all of them or none: what came of each, in their order. Raises what any
# of them raises. In no request's context, as they may be of many.
Make = Callable[[Any, str, Sequence[Any]], Sequence[Any]]


class Change:
    """What a request wants to have changed. Who awaits it gets what came of it, or what it failed with is raised."""

    __slots__ = ("make", "outcome", "owner", "since", "tell", "turns", "what")

    def __init__(self, turns: "Turns", owner: str, what: Any, make: Make) -> None:
        self.turns, self.owner, self.what, self.make = turns, owner, what, make
        self.since = time.monotonic()
        self.outcome: Any = None
        # Tells who waits for it that it has been made, or what group of changes it's for them to make.
        self.tell: Callable[[Group], None]

    def __await__(self) -> Generator["Change", None, Any]:
        yield self
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


# Changes of one owner that are made together.
Group = list[Change]


class Turns:
    """The turns of all users in this process: who has a change under way, and which changes wait behind that."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._waiting: dict[str, Group] = {}

    def enter(self, change: Change, tell: Callable[[Group], None]) -> Group:
        """What the caller has to `make` now: `change`, if it's its owner's turn; nothing, if it will be told later."""
        change.tell = tell
        with self._guard:
            waiting = self._waiting.get(change.owner)
            if waiting is None:
                self._waiting[change.owner] = []
                return [change]
            waiting.append(change)
            return []

    def make(self, group: Group) -> Group:
        """Make what's to be made now: what is next, if anything. Who waits for what has been made is yet to be told."""
        lead.keep_no_longer()
        outcomes = self._outcomes(group[0].owner, group[0].make, [change.what for change in group])
        for change, outcome in zip(group, outcomes, strict=True):
            change.outcome = outcome
        in_vain = isinstance(group[0].outcome, Unavailable)
        return self._following(group[0].owner, PATIENCE_IN_VAIN if in_vain else PATIENCE)

    def _outcomes(self, owner: str, make: Make, changes: list[Any]) -> Sequence[Any]:
        try:
            return make(self._database, owner, changes)
        except Unavailable as error:
            return [error] * len(changes)
        except BaseException as error:
            # Nothing is made, because of one of them, which concerns no other. Whatever it is, all have to be told.
            return [error] if len(changes) == 1 else [self._outcomes(owner, make, [one])[0] for one in changes]

    def _following(self, owner: str, patience: float) -> Group:
        latest = time.monotonic() - patience
        with self._guard:
            waiting = [change for change in self._waiting[owner] if change.since > latest]
            late = [change for change in self._waiting[owner] if change.since <= latest]
            following = [change for change in waiting if change.make == waiting[0].make][:MAX_TOGETHER]
            if following:
                taken = set(following)
                self._waiting[owner] = [change for change in waiting if change not in taken]
            else:
                del self._waiting[owner]
        for change in late:
            change.outcome = busy()
            change.tell([])
        return following

    def take(self, change: Change) -> None:
        """Return when `change` has been made, or was sent away; this thread waits, or makes it."""
        told: SimpleQueue[Group] = SimpleQueue()
        group = self.enter(change, told.put)
        if not group:
            lead.give_up()
            # As long as it takes: who is before it is kept by the database's deadlines from taking for ever.
            group = told.get()
        if group:
            following = self.make(group)
            if following:
                # First, so that the database has something to do.
                following[0].tell(following)
            for other in group:
                other.tell([])


def finish(work: Coroutine[Change, None, T], change: Change | None = None) -> T:
    """What comes of `work`, which has not begun or awaits `change`. This thread waits, or makes what is awaited."""
    try:
        while True:
            if change:
                change.turns.take(change)
            change = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
