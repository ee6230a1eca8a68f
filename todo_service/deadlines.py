"""No message to the database is waited for longer than its deadline, whatever has become of the network.

The server's own timeouts don't help when its answer, or its silence, gets lost on the way, and TCP keepalives notice a
dead peer but not one that merely says nothing. So psycopg2 waits here, where there is a clock: past the deadline the
socket is shut down, which psycopg2 meets as a lost connection. Costs some 2 µs a message. How long the deadlines are is
left to `db.py`; without one (migrations) only connecting has a deadline, and the rest takes as long as it takes.
"""

import math
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import extensions

from .lead import lead

# For whoever connects without saying how long that may take.
CONNECT_SECONDS = 10

_thread = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give up what this thread waits for inside, `seconds` from now."""
    _thread.until = time.monotonic() + seconds
    _thread.missed = False
    try:
        yield
    finally:
        _thread.until = None


def missed() -> bool:
    """Whether this thread's last `within` was too short: the connection was not lost but given up."""
    return getattr(_thread, "missed", False)


def wait(connection: extensions.connection) -> None:
    """psycopg2's wait callback: return when `connection` has its answer, or raise OperationalError."""
    until: float | None = getattr(_thread, "until", None)
    if until is None and connection.status == extensions.STATUS_SETUP:
        # libpq's connect_timeout doesn't count where it isn't libpq that waits.
        until = time.monotonic() + CONNECT_SECONDS
    while (state := connection.poll()) != extensions.POLL_OK:
        if not ready(connection.fileno(), state, until):
            _thread.missed = True
            shut_down(connection.fileno())


def ready(descriptor: int, state: int, until: float | None) -> bool:
    """Wait until the socket can be read from or written to; False if `until` comes first."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
    left = math.inf if until is None else max(0, until - time.monotonic())
    return lead.wait(lambda seconds: bool(poller.poll(None if seconds == math.inf else seconds * 1000)), left)


def shut_down(descriptor: int) -> None:
    """End the conversation on a socket that belongs to somebody else, who will find out and close it."""
    with socket.socket(fileno=os.dup(descriptor)) as ours:
        ours.shutdown(socket.SHUT_RDWR)


extensions.set_wait_callback(wait)
