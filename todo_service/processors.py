"""Which processor a process of the service runs on: one and the same, where the processes share them evenly.

Python lets one thread of a process run at a time. Each time that one waits for the network it hands over to another;
and where the threads are on several processors, that one has to be woken there, finds the first one running again, and
sleeps: thirty times in a request, which costs more than the request. On one processor they take turns.

Linux alone has this; what else becomes of the processes is left to the server that starts them.
"""

import fcntl
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

PROCESSORS = os.sched_getaffinity(0)
# Shared by all that a server forks: who has its lock chooses.
_choosing = os.memfd_create("choosing")


def stay_on_one(processes: int) -> None:
    """Keep this process, of so many, where the fewest of the others are; unless some would then have more to do.

    To be called before it starts threads, which are where their process was at that time. Where the system doesn't let
    it, nothing happens.
    """
    if processes % len(PROCESSORS):
        return
    with suppress(OSError):
        fcntl.lockf(_choosing, fcntl.LOCK_EX)
        there = Counter(processor for process in _siblings() for processor in _processors(process))
        os.sched_setaffinity(0, {min(PROCESSORS, key=lambda processor: there[processor])})
    fcntl.lockf(_choosing, fcntl.LOCK_UN)


def _siblings() -> list[int]:
    """Those that the server has forked, this one included."""
    server = os.getppid()
    return [int(process) for process in Path(f"/proc/{server}/task/{server}/children").read_text().split()]


def _processors(process: int) -> set[int]:
    """Where it may run; one that hasn't chosen yet, anywhere. One that has just ended, nowhere."""
    with suppress(ProcessLookupError):
        return os.sched_getaffinity(process)
    return set()
