"""What one thread of a worker leaves to another: to the one that waits for clients, or will be the next to do so."""

import os
import threading
from collections import deque
from collections.abc import Callable

from .lead import lead


class Errands:
    """In the order in which they came. `bell` is the descriptor of an eventfd, which rings (epoll's EPOLLET) when there
    is something to do; who hears it, or has been busy, calls `do_one`.
    """

    def __init__(self) -> None:
        self.bell = os.eventfd(0)
        self._guard = threading.Lock()
        self._errands: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._errands)

    def add(self, errand: Callable[[], None]) -> None:
        with self._guard:
            is_first = not self._errands
            self._errands.append(errand)
        if is_first:
            self._ring()

    def do_one(self) -> None:
        """Do the next errand, if there is one."""
        with self._guard:
            errand = self._errands.popleft() if self._errands else None
            more = bool(self._errands)
        # The leader will look here again before it waits, and so will who takes the lead from it.
        if more and not lead.mine():
            self._ring()
        if errand:
            errand()

    def _ring(self) -> None:
        os.eventfd_write(self.bell, 1)
