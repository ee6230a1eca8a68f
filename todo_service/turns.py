"""One user's changes come one after the other; those that meet take their turns here, and what waited goes together.

They would wait for each other in any case (`mutations.py` says why). Here that costs less than in PostgreSQL, and no
connection; and of a burst, such as a list that is sorted anew with a request for each task, only the first is committed
alone. How changes are made, one or many, is left to those who bring them.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from .errors import Unavailable, busy
from .lead import lead

# How long a change waits for its turn, in seconds.
PATIENCE = 1

# Makes changes of an owner's, all of them or none: what came of each, in their order. Raises what any of them raises.
Make = Callable[[str, Sequence[Any]], Sequence[Any]]


class Change:
    """One that waits until it is `told`: that it has been made, or to make its `group`, itself included."""

    __slots__ = ("group", "make", "outcome", "told", "what")

    def __init__(self, what: Any, make: Make) -> None:
        self.what, self.make = what, make
        self.group: list[Change] = []
        self.outcome: Any = None
        self.told = threading.Lock()
        self.told.acquire()


class Turns:
    """The turns of all users in this process: who has a change under way, and which changes wait behind that."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[str, list[Change]] = {}

    def take(self, owner: str, what: Any, make: Make) -> Any:
        """What came of `what`, made when it's `owner`'s turn. Raises what it failed with, or Unavailable."""
        mine = Change(what, make)
        with self._guard:
            waiting = self._waiting.get(owner)
            if waiting is None:
                self._waiting[owner], mine.group = [], [mine]
            else:
                waiting.append(mine)
        if not mine.group:
            self._wait(owner, mine)
        if mine.group:
            try:
                self._make(owner, mine.group)
            finally:
                self._pass_on(owner, mine.group)
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def _wait(self, owner: str, mine: Change) -> None:
        lead.give_up()
        if mine.told.acquire(timeout=PATIENCE):
            return
        with self._guard:
            waiting = self._waiting.get(owner, [])
            if mine in waiting:
                waiting.remove(mine)
                raise busy()
        # Too late to withdraw: somebody makes it already, whom the database's deadlines keep from taking for ever.
        mine.told.acquire()

    def _make(self, owner: str, group: list[Change]) -> None:
        lead.keep_no_longer()
        outcomes: Sequence[Any] = [Unavailable("The change was broken off; please try again.")] * len(group)
        try:
            outcomes = self._outcomes(owner, group[0].make, [change.what for change in group])
        finally:
            for change, outcome in zip(group, outcomes, strict=True):
                change.outcome = outcome

    def _outcomes(self, owner: str, make: Make, changes: list[Any]) -> Sequence[Any]:
        try:
            return make(owner, changes)
        except Unavailable as error:
            return [error] * len(changes)
        except Exception as error:
            # Nothing is made, because of one of them, which concerns no other.
            return [error] if len(changes) == 1 else [self._outcomes(owner, make, [one])[0] for one in changes]

    def _pass_on(self, owner: str, group: list[Change]) -> None:
        """The next turn first, so that the database has something to do."""
        with self._guard:
            waiting = self._waiting[owner]
            following = [change for change in waiting if change.make == waiting[0].make]
            if following:
                self._waiting[owner] = [change for change in waiting if change.make != following[0].make]
            else:
                del self._waiting[owner]
        if following:
            following[0].group = following
            following[0].told.release()
        for change in group[1:]:
            change.told.release()
