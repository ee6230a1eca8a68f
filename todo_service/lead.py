"""Which of a process's threads waits for what clients do next: one, the leader (the Leader/Followers pattern).

Only one thread of Python runs at a time. Where several have something to do, each call of the system passes the right
to run from one to the other, some 30 times a request, and the processor's caches with it; a fifth of the time goes
there. So the leader serves what has come, request after request, and the others sleep. It gives up the lead, and
another thread goes on, as soon as it has to wait for something that may take long: for a client, a commit, a database
that is far away. A database nearby answers a query sooner than threads are switched; for that the leader just waits.

Where there is no leader (the development server, gunicorn's own threads, commands), nothing here has an effect.
"""

import threading
import time
from collections.abc import Callable

# What the leader waits for without giving up the lead takes no longer, in seconds.
SHORT = 1e-3
# Whether the database is near is judged by the quickest of so many answers: many are late when there is much to do.
ANSWERS = 64


class Lead:
    """Who leads, if anybody does."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._guard = threading.Lock()
        self._leader: int | None = None
        self._busy_since: float | None = None
        self._patience = SHORT
        self._keeps = True
        self._quickest, self._answers = SHORT, 0

    def take(self) -> None:
        """Return when this thread leads, and nobody has anything to do yet."""
        if not self._mine():
            self._free.acquire()
            self._leader = threading.get_ident()
        self._busy_since = None

    def begin(self) -> None:
        """The leader has something to do."""
        self._busy_since = time.monotonic()
        self._keeps = self._patience > 0

    def keep_no_longer(self) -> None:
        """Give up the lead with the next message to the database, which may take long: it ends in a commit."""
        if self._mine():
            self._keeps = False

    def give_up(self) -> None:
        """Let another thread lead, if this one does: it's about to do something that may take long."""
        if self._mine():
            self._pass_on(self._mine)

    def pass_on(self, seconds: float) -> None:
        """Let another thread lead if the leader has been busy for longer than `seconds`, whatever it does."""
        self._pass_on(lambda: self._busy_since is not None and time.monotonic() - self._busy_since > seconds)

    def wait(self, wait: Callable[[float], bool], seconds: float) -> bool:
        """Wait for an answer of the database with `wait`, which takes seconds and says whether it came."""
        began = time.monotonic()
        came = self._keeps and self._mine() and wait(min(self._patience, seconds))
        if not came:
            self.give_up()
            came = wait(seconds)
        self._learn(time.monotonic() - began)
        return came

    def _learn(self, seconds: float) -> None:
        self._quickest, self._answers = min(self._quickest, seconds), self._answers + 1
        if self._answers >= ANSWERS:
            self._patience = SHORT if self._quickest < SHORT else 0
            self._quickest, self._answers = SHORT, 0

    def _mine(self) -> bool:
        return self._leader == threading.get_ident()

    def _pass_on(self, condition: Callable[[], bool]) -> None:
        with self._guard:
            if self._leader is not None and condition():
                self._leader = None
                self._free.release()


# A process has one.
lead = Lead()
