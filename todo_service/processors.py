"""Which processor a process of the service runs on: one and the same, where the processes share them evenly.

Python lets one thread of a process run at a time. Each time that one waits for the network it hands over to another;
and where the threads are on several processors, that one has to be woken there, finds the first one running again, and
sleeps: up to thirty times in a request, which costs more than the request. On one processor they take turns.

Linux alone has this; elsewhere nothing happens. What else becomes of the processes is left to the server that starts
them.
"""

import os
from collections.abc import Iterable
from contextlib import suppress

from .config import Settings


def stay_on_one(settings: Settings, place: int) -> None:
    """Keep this process, which has that place among all that serve, on one processor, if all then have as many.

    To be called before it starts threads, which are where their process was at that time. Where the system doesn't let
    it, nothing happens.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    # The bundled PostgreSQL is started by a process that serves, and would stay there, too.
    if settings.affinity and settings.database_url and settings.workers % len(processors) == 0:
        with suppress(OSError):
            os.sched_setaffinity(0, {processors[place % len(processors)]})


def free_place(settings: Settings, taken: Iterable[int]) -> int:
    """The first place, counted from 0, that is not taken by another one of the processes that serve."""
    return min(set(range(settings.workers)) - set(taken))
