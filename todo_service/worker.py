"""How gunicorn serves: a worker none of whose threads waits for a client.

The threads of gunicorn's own workers read from clients and write to them, so a few dozen clients that send half a
request, or don't read their answers, hold them all. Here one epoll waits for whatever happens next on any connection;
the thread that it wakes up does what can be done at once, and the next one waits. A thread is taken by a request when
that is there, not when it begins, and the rest of an answer is sent when its reader is ready.

What a thread does for a connection is left to `serving.py`, which thread is the next to `lead.py`, what a connection is
to `connections.py`, and what HTTP is to gunicorn.
"""

import logging
import mmap
import os
import select
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers import base

from .connections import LINGER_SECONDS, REQUEST_SECONDS, Connection, Lane
from .errands import Errands
from .lead import lead
from .replies import late
from .serving import GONE, NOTHING, READ, WRITE, Serving

log = logging.getLogger(__name__)

# All that is kept for clients who are not done with sending or reading; beyond it, those with most are given up.
MAX_KEPT = 64 * 1024 * 1024
# Under load a listener has its turn only after all the connections that have something, so some are accepted at once.
ACCEPTED_AT_ONCE = 4
# For each connection it has, so long a worker leaves a new one to the others.
YIELD_SECONDS, MAX_YIELD_SECONDS = 20e-6, 2e-3
# A leader who works this long, in seconds, has forgotten to give up the lead.
BUSY_SECONDS = 0.1


class Worker(base.Worker):
    """gunicorn's worker_class, with its settings threads, worker_connections, keepalive, max_requests."""

    # A byte of the master's (gunicorn.conf.py): whether the service stops, and doesn't just replace this worker.
    stopping: bytes | mmap.mmap = bytes(1)

    @classmethod
    def check_config(cls, config: Any, _log: Any) -> None:
        if config.is_ssl:
            raise ValueError("TLS is spoken by the proxy in front, not here.")

    def run(self) -> None:
        """The main thread's work: gives signs of life, and gives up clients, until told to stop."""
        # As plain attributes: each of the 19 that a request needs would be looked up in a table.
        vars(self.cfg).update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.listeners = {listener.fileno(): listener for listener in self.sockets}
        places = max(1, self.cfg.threads // 2)
        self.lane = Lane(places, lambda connection: self.wait_for(connection.descriptor, READ | WRITE))
        self.errands, self.serving = Errands(), Serving(self)
        self.epoll.register(self.errands.bell, select.EPOLLIN | select.EPOLLET)
        for descriptor, listener in self.listeners.items():
            listener.setblocking(False)
            self.epoll.register(descriptor, READ)
        for _ in range(self.cfg.threads):
            threading.Thread(target=self.work, daemon=True).start()
        while self.alive:
            self.look_after(1.0)
        self.finish()

    def finish(self) -> None:
        """Answer what has begun. New requests are taken for a moment longer: they may be on their way here already."""
        now = time.monotonic()
        last, closing = now + self.cfg.graceful_timeout, now + LINGER_SECONDS
        while self.listeners or (self.connections and time.monotonic() < last):
            for connection in list(self.connections.values()):
                if not connection.in_request and not connection.unsent:
                    # From when it is first seen here: one that has just been accepted has its request yet to send.
                    connection.until = min(connection.until, time.monotonic() + LINGER_SECONDS)
            self.look_after(0.1)
            if self.listeners and time.monotonic() > closing:
                for descriptor in list(self.listeners):
                    self.epoll.unregister(descriptor)
                    self.listeners.pop(descriptor).close()

    def look_after(self, seconds: float) -> None:
        self.notify()
        lead.pass_on(BUSY_SECONDS)
        if self.ppid != os.getppid():
            log.warning("the parent process is gone")
            self.alive = False
        for connection in list(self.connections.values()):
            if connection.until < time.monotonic():
                self.give_up(connection, overdue=True)
        kept = sorted(self.connections.values(), key=lambda connection: connection.size)
        while sum(connection.size for connection in kept) > MAX_KEPT:
            self.give_up(kept.pop())
        # A signal writes to this pipe.
        if select.select([self.PIPE[0]], [], [], seconds)[0]:
            os.read(self.PIPE[0], 4096)

    def give_up(self, connection: Connection, overdue: bool = False) -> None:
        """End a connection, unless a thread is at it."""
        if connection.lock.acquire(blocking=False):
            self.serving.go_on(connection, self.end_overdue if overdue else lambda _: GONE)

    def end_overdue(self, connection: Connection) -> int:
        if connection.until >= time.monotonic():
            return NOTHING
        if connection.in_request:
            return self.serving.refuse(connection, late())
        if connection.has_more():
            # It came in time; it's the threads that are late.
            connection.wait(REQUEST_SECONDS)
            return NOTHING
        return GONE

    def work(self) -> None:
        """A thread's work."""
        done = False
        while True:
            lead.take()
            # An errand, and what clients do, in turns, so that neither keeps the other waiting.
            done = bool(self.errands) and not done
            for descriptor in [self.errands.bell] if done else self.happened(0 if self.errands else -1):
                lead.begin()
                try:
                    if descriptor == self.errands.bell:
                        self.errands.do_one()
                    elif listener := self.listeners.get(descriptor):
                        self.accept(descriptor, listener)
                    elif connection := self.connections.get(descriptor):
                        self.serving.serve(connection)
                except Exception:
                    log.exception("unexpected")

    def happened(self, seconds: float) -> list[int]:
        """Where something happens next, if it does in time."""
        return [descriptor for descriptor, _ in self.epoll.poll(seconds, 1)]

    def accept(self, descriptor: int, listener: Any) -> None:
        # The fuller a worker, the later: all of them are woken by a new connection, and one with fewer should have it.
        lead.give_up()
        time.sleep(min(len(self.connections) * YIELD_SECONDS, MAX_YIELD_SECONDS))
        try:
            for _ in range(ACCEPTED_AT_ONCE):
                sock, client = listener.accept()
                self.add(sock, client, listener.getsockname())
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:
            if descriptor in self.listeners:
                log.warning("no connection can be accepted: %s", error)
                self.make_room()
                # It will be tried again at once, and there may be no room yet.
                time.sleep(MAX_YIELD_SECONDS)
        finally:
            self.wait_for(descriptor, READ)

    def add(self, sock: Any, client: Any, server: Any) -> None:
        sock.setblocking(False)
        connection = Connection(sock, client, server, self.cfg, self.lane)
        self.connections[connection.descriptor] = connection
        self.epoll.register(connection.descriptor, READ)
        if len(self.connections) > self.cfg.worker_connections:
            self.make_room()

    def make_room(self) -> None:
        """Give up the client who has been waited for the longest."""
        waiting = [connection for connection in list(self.connections.values()) if not connection.lock.locked()]
        if waiting:
            self.give_up(min(waiting, key=lambda connection: connection.since))

    def count(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            log.info("this worker has answered as many requests as it should")
            self.alive = False
            os.write(self.PIPE[1], b".")

    def wait_for(self, descriptor: int, event: int) -> None:
        with suppress(OSError):
            self.epoll.modify(descriptor, event)

    def drop(self, connection: Connection) -> None:
        self.connections.pop(connection.descriptor, None)
        connection.close()
        self.lane.call()
