"""Which of a process's threads waits for what clients do next: one, the leader (the Leader/Followers pattern).

Only one thread of Python runs at a time. Where several have something to do, each call of the system passes the right
to run from one to the other, some 30 times a request, and the processor's caches with it; a fifth of the time goes
there. So the leader serves what has come, request after request, and the others sleep. It gives up the lead, and
another thread goes on, as soon as it has to wait for something that may take long: for a client, a commit, a query that
takes its time. A database nearby answers most of them sooner than threads are switched; for that the leader just waits.

With a database that is far away every query takes long, and all threads wait for clients: nobody leads. The same goes
for where there is no worker of ours (the development server, gunicorn's own threads, commands).
"""

import threading
import time
from collections.abc import Callable

# What the leader waits for without giving up the lead takes no longer, in seconds.
SHORT = 2e-4
# A database is near if, of so many answers, the quickest took less, in seconds: most are late if there is much to do.
NEAR, ANSWERS = 5e-4, 64


class Lead:
    """Who leads, if anybody does."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._leader: int | None = None
        # Who would lead, and what wakes it up; the last to come is the next to lead, as the caches know it best.
        self._followers: list[tuple[int, threading.Lock]] = []
        self._busy_since: float | None = None
        self._keeps = True
        self._far = False
        self._quickest, self._answers = NEAR, 0

    def take(self) -> None:
        """Return when it's for this thread to wait for clients."""
        me, turn = threading.get_ident(), None
        with self._guard:
            if self._far:
                return
            if self._leader is None:
                self._leader = me
            if self._leader == me:
                self._busy_since = None
            else:
                turn = threading.Lock()
                turn.acquire()
                self._followers.append((me, turn))
        if turn:
            turn.acquire()

    def begin(self) -> None:
        """The leader has something to do."""
        self._busy_since = time.monotonic()
        self._keeps = True

    def keep_no_longer(self) -> None:
        """Give up the lead with the next message to the database, which may take long: it ends in a commit."""
        if self.mine():
            self._keeps = False

    def give_up(self) -> None:
        """Let another thread lead, if this one does: it's about to do something that may take long."""
        if self.mine():
            self._pass_on(self.mine)

    def pass_on(self, seconds: float) -> None:
        """Let another thread lead if the leader has been busy for longer than `seconds`, whatever it does."""
        self._pass_on(lambda: self._busy_since is not None and time.monotonic() - self._busy_since > seconds)

    def wait(self, wait: Callable[[float], bool], seconds: float) -> bool:
        """Wait for an answer of the database with `wait`, which takes seconds and says whether it came."""
        began = time.monotonic()
        came = self._keeps and self.mine() and wait(min(SHORT, seconds))
        if not came:
            self.give_up()
            came = wait(seconds)
        self._learn(time.monotonic() - began)
        return came

    def _learn(self, seconds: float) -> None:
        self._quickest, self._answers = min(self._quickest, seconds), self._answers + 1
        if self._answers >= ANSWERS:
            self._far = self._quickest >= NEAR
            self._quickest, self._answers = NEAR, 0
            if self._far:
                self._disband()

    def _disband(self) -> None:
        with self._guard:
            self._leader = None
            while self._followers:
                self._followers.pop()[1].release()

    def taken(self) -> bool:
        """Whether any thread leads."""
        return self._leader is not None

    def mine(self) -> bool:
        """Whether this thread leads."""
        return self._leader == threading.get_ident()

    def _pass_on(self, condition: Callable[[], bool]) -> None:
        with self._guard:
            if self._leader is None or not condition():
                return
            self._leader, self._busy_since = None, None
            if self._followers:
                self._leader, turn = self._followers.pop()
                turn.release()


# A process has one.
lead = Lead()
