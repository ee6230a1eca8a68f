"""No message to the database is waited for longer than its deadline, whatever has become of the network.

The server's own timeouts don't help when its answer, or its silence, gets lost on the way, and TCP keepalives notice a
dead peer but not one that merely says nothing. So psycopg2 waits here, where there is a clock: past the deadline the
socket is shut down, which psycopg2 meets as a lost connection. Costs some 2 µs a message. A connection with the
attribute `answer_seconds` (`session.py` sets it) has a deadline for each message; one without (migrations) only for
connecting.
"""

import os
import select
import socket
import threading
import time

from psycopg2 import extensions

# A serverless database may need several seconds to wake up.
CONNECT_SECONDS = 10

_thread = threading.local()


def missed() -> bool:
    """Whether the last message of this thread was given up: the connection was not lost, but shut down here."""
    return getattr(_thread, "missed", False)


def wait(connection: extensions.connection) -> None:
    """psycopg2's wait callback: return when `connection` has its answer, or raise OperationalError."""
    # libpq's connect_timeout doesn't count where it isn't libpq that waits.
    connecting = connection.status == extensions.STATUS_SETUP
    seconds = CONNECT_SECONDS if connecting else getattr(connection, "answer_seconds", None)
    until = time.monotonic() + seconds if seconds else None
    _thread.missed = False
    while (state := connection.poll()) != extensions.POLL_OK:
        if not ready(connection.fileno(), state, until):
            _thread.missed = True
            shut_down(connection.fileno())


def ready(descriptor: int, state: int, until: float | None) -> bool:
    """Wait until the socket can be read from or written to; False if `until` comes first."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
    return bool(poller.poll(None if until is None else max(0, until - time.monotonic()) * 1000))


def shut_down(descriptor: int) -> None:
    """End the conversation on a socket that belongs to somebody else, who will find out and close it."""
    with socket.socket(fileno=os.dup(descriptor)) as ours:
        ours.shutdown(socket.SHUT_RDWR)


extensions.set_wait_callback(wait)
