"""How gunicorn serves: a worker none of whose threads waits for a client.

The threads of gunicorn's own workers read from clients and write to them, so a few dozen clients that send half a
request, or don't read their answers, hold them all. Here one epoll waits for whatever happens next on any connection;
the thread that it wakes up does what can be done at once, and the next one waits. A thread is taken by a request when
that is there, not when it begins, and the rest of an answer is sent when its reader is ready. No request is handed from
one thread to another.

Which thread is the next is left to `lead.py`, what is the matter with a single connection to `connections.py`, what is
sent to `replies.py`, and what HTTP is to gunicorn.
"""

import logging
import mmap
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.workers import base
from uuid_utils import uuid7

from .connections import LINGER_SECONDS, REQUEST_SECONDS, Connection, Lane
from .errors import Problem
from .health import STOPPING
from .lead import lead
from .replies import Reply, late, malformed, refusal

log = logging.getLogger(__name__)

# All that is kept for clients who are not done with sending or reading; beyond it, those with most are given up.
MAX_KEPT = 64 * 1024 * 1024
# Under load a listener has its turn only after all the connections that have something, so some are accepted at once.
ACCEPTED_AT_ONCE = 4
# For each connection it has, so long a worker leaves a new one to the others.
YIELD_SECONDS, MAX_YIELD_SECONDS = 20e-6, 2e-3
# A body of so many bytes may be much work, and a leader who works this long, in seconds, has forgotten to give it up.
LARGE, BUSY_SECONDS = 64 * 1024, 0.1
# What to wait for: to be woken once; or nothing, because the connection is over, or woken by the lane.
READ, WRITE = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLOUT | select.EPOLLONESHOT
GONE, QUEUED = 0, -1


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
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.listeners = {listener.fileno(): listener for listener in self.sockets}
        places = max(1, self.cfg.threads // 2)
        self.lane = Lane(places, lambda connection: self.wait_for(connection.descriptor, READ | WRITE))
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
        if not connection.lock.acquire(blocking=False):
            return
        try:
            if connection.closed or (overdue and connection.until >= time.monotonic()):
                return
            if overdue and connection.in_request:
                self.go_on(connection, lambda: self.refuse(connection, late()))
            elif overdue and connection.has_more():
                # It came in time; it's the threads that are late.
                connection.wait(REQUEST_SECONDS)
            else:
                self.drop(connection)
        finally:
            connection.lock.release()

    def work(self) -> None:
        """A thread's work."""
        while True:
            lead.take()
            for descriptor, _ in self.epoll.poll(-1, 1):
                lead.begin()
                try:
                    if listener := self.listeners.get(descriptor):
                        self.accept(descriptor, listener)
                    elif connection := self.connections.get(descriptor):
                        self.serve(connection)
                except Exception:
                    log.exception("unexpected")

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

    def serve(self, connection: Connection) -> None:
        with connection.lock:
            if not connection.closed:
                self.go_on(connection, lambda: self.step(connection))

    def go_on(self, connection: Connection, step: Callable[[], int]) -> None:
        try:
            event = step()
        except OSError:
            # The client went away, or was too slow.
            event = GONE
        if event == GONE:
            self.drop(connection)
        elif event != QUEUED:
            self.wait_for(connection.descriptor, event)

    def step(self, connection: Connection) -> int:
        """Do for a connection what can be done now; what to wait for next."""
        if connection.unsent and not self.sent(connection):
            return WRITE
        came = connection.receive()
        try:
            while not connection.closing and connection.is_ready():
                self.cfg.pre_request(self, connection.request)
                if not connection.begin():
                    return QUEUED
                if connection.size > LARGE:
                    lead.give_up()
                self.answer(connection)
                if not self.sent(connection):
                    return WRITE
        except (ParseException, NoMoreData) as error:
            return self.refuse(connection, malformed(error))
        # Who has said all, and hears on, is answered first (RFC 9112, section 9.6).
        return READ if came else GONE

    def answer(self, connection: Connection) -> None:
        """Let the app answer. Raises OSError when the client doesn't take it, or will never get the end of it."""
        request, keep = connection.request, False
        try:
            response, environ = wsgi.create(
                request, cast(Any, connection), connection.client, connection.server, self.cfg, Reply
            )
            environ.update({"wsgi.multithread": True, STOPPING: self.stopping[0] == 1})
            # It would want a real socket.
            del environ["wsgi.file_wrapper"]
            self.count()
            if not self.alive:
                response.force_close()
            parts = self.wsgi(environ, cast(Any, response.start_response))
            try:
                for part in parts:
                    response.write(part)
                    if response.response_length is None:
                        # There may be much more to be made.
                        lead.give_up()
                response.close()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
            keep = not response.should_close()
        except OSError:
            raise
        except Exception as error:
            log.exception("an answer could not be finished")
            raise ConnectionAbortedError from error
        finally:
            connection.end(keep)

    def count(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            log.info("this worker has answered as many requests as it should")
            self.alive = False
            os.write(self.PIPE[1], b".")

    def sent(self, connection: Connection) -> bool:
        """Whether the client has taken all there is for it."""
        if not connection.flush():
            return False
        connection.rest()
        return True

    def refuse(self, connection: Connection, problem: Problem) -> int:
        """Answer a client whose request doesn't get to the app; what to wait for next."""
        request_id = str(uuid7())
        log.info("%s from %s: %s id=%s", problem.status, connection.client, problem.detail, request_id)
        connection.sendall(refusal(problem, request_id))
        connection.closing = True
        self.lane.call()
        return READ if self.sent(connection) else WRITE

    def wait_for(self, descriptor: int, event: int) -> None:
        with suppress(OSError):
            self.epoll.modify(descriptor, event)

    def drop(self, connection: Connection) -> None:
        self.connections.pop(connection.descriptor, None)
        connection.close()
        self.lane.call()
