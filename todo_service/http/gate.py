"""One user's changes don't hold up the others': at most a few of them are at work in a process, and few wait.

They would wait for each other in any case, for the lock on the owner's row; but there each would hold a thread and a
connection that others need. Here they wait before they take a connection, for a moment, and are then sent away with a
429, which is told when to try again. nginx queues what one client sends at once (`deploy/nginx.conf`).
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ..errors import TooManyRequests

# So long a change waits for those before it, in seconds.
PATIENCE = 1


class Gate:
    """Lets `at_work` changes of each user in at once, while up to `waiting` more wait, each in a `watch`."""

    watch: Callable[[], AbstractContextManager[object]] = nullcontext

    def __init__(self, at_work: int, waiting: int) -> None:
        self.at_work, self.waiting = at_work, waiting
        self._changed = threading.Condition()
        self._inside: Counter[str] = Counter()
        self._outside: Counter[str] = Counter()

    @contextmanager
    def enter(self, owner: str) -> Iterator[None]:
        """Hold one of the owner's places for the length of a block. Raises TooManyRequests."""
        with self._changed:
            if self._inside[owner] >= self.at_work:
                self._wait(owner)
            self._inside[owner] += 1
        try:
            yield
        finally:
            with self._changed:
                take_one(self._inside, owner)
                self._changed.notify_all()

    def _wait(self, owner: str) -> None:
        free = False
        if self._outside[owner] < self.waiting:
            self._outside[owner] += 1
            with self.watch():
                free = self._changed.wait_for(lambda: self._inside[owner] < self.at_work, PATIENCE)
            take_one(self._outside, owner)
        if not free:
            raise TooManyRequests("Too many changes at once; try again in a moment.", 1, "at-once", "too-many-at-once")


def gate_for(threads: int, connections: int) -> Gate:
    """A gate for a process with so many of each: one user's changes leave others a quarter of both, one at
    least where there are two.

    Two at work, of which one has the lock and the other is read and checked meanwhile; more would only wait.
    """
    at_work = max(1, min(2, connections - max(1, connections // 4)))
    return Gate(at_work, max(1, threads * 3 // 4 - at_work))


def take_one(counter: Counter[str], name: str) -> None:
    """Count one less, and forget who has none."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
