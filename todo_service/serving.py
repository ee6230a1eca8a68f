"""What a worker's thread does for one connection: takes requests, lets the app answer, sends the answers.

It never waits for the client; what it has to wait for is told to `worker.py`. A request that waits for its user's turn
(`turns.py`) is left as it stands, and whichever thread is free goes on with it when its change has been made. Whoever
does something for a connection holds its lock, from the first step up to the last, which may be another thread's.
"""

import logging
import select
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData, ParseException
from uuid_utils import uuid7

from .connections import Connection, Lane
from .errands import Errands
from .errors import Problem, busy
from .health import STOPPING
from .lead import lead
from .replies import Reply, malformed, refusal
from .service import LATER, Pending
from .turns import Group

log = logging.getLogger(__name__)

# A body of so many bytes may be much work; and so many requests with such a body may wait for their turn. Of others, as
# many as there are connections.
HEAVY, MAX_HEAVY_PENDING = 64 * 1024, 16
# What to wait for, to be woken once. Or else: the connection is over; it needs nothing now, perhaps because the lane
# wakes it; it is left to who makes the change that it waits for.
READ, WRITE = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLOUT | select.EPOLLONESHOT
GONE, NOTHING, PENDING = 0, -1, -2


class Process(Protocol):
    """The worker."""

    cfg: Config
    wsgi: Any
    alive: bool
    stopping: Any
    lane: Lane
    errands: Errands

    def count(self) -> None: ...
    def drop(self, connection: Connection) -> None: ...
    def wait_for(self, descriptor: int, event: int) -> None: ...


class Serving:
    """A worker's, for all of its connections."""

    def __init__(self, worker: Process) -> None:
        self.worker = worker
        self.pending: dict[Connection, Pending] = {}

    def serve(self, connection: Connection) -> None:
        """Something has happened on a connection."""
        connection.lock.acquire()
        self.go_on(connection, self.step)

    def go_on(self, connection: Connection, step: Callable[[Connection], int]) -> None:
        """Take a step with a connection, which is locked, unless it's closed; then let go of it."""
        event = GONE
        try:
            event = NOTHING if connection.closed else step(connection)
        except OSError:
            # The client went away, or was too slow.
            pass
        finally:
            if event != PENDING:
                if event == GONE:
                    self.worker.drop(connection)
                elif event != NOTHING:
                    self.worker.wait_for(connection.descriptor, event)
                connection.lock.release()

    def step(self, connection: Connection) -> int:
        """Do for a connection what can be done now; what to wait for next."""
        if connection.unsent and not self.sent(connection):
            return WRITE
        came = connection.receive()
        try:
            while not connection.closing and connection.is_ready():
                self.worker.cfg.pre_request(self.worker, connection.request)
                if not connection.begin():
                    return NOTHING
                connection.heavy = connection.size > HEAVY
                if connection.heavy:
                    lead.give_up()
                if not self.answer(connection, lambda: self.ask(connection)):
                    return PENDING
                if not self.sent(connection):
                    return WRITE
        except (ParseException, NoMoreData) as error:
            return self.refuse(connection, malformed(error))
        # Who has said all, and hears on, is answered first (RFC 9112, section 9.6).
        return READ if came else GONE

    def resume(self, connection: Connection) -> int:
        """Answer a request that had to wait; what to wait for next."""
        pending = self.pending.pop(connection)
        if not self.answer(connection, pending.go_on):
            return PENDING
        if not self.sent(connection):
            return WRITE
        return self.step(connection) if connection.arrived else READ

    def ask(self, connection: Connection) -> Any:
        """What the app says to a request."""
        connection.reply, environ = wsgi.create(
            connection.request, cast(Any, connection), connection.client, connection.server, self.worker.cfg, Reply
        )
        environ.update({"wsgi.multithread": True, STOPPING: self.worker.stopping[0] == 1, LATER: True})
        # It would want a real socket.
        del environ["wsgi.file_wrapper"]
        self.worker.count()
        if not self.worker.alive:
            connection.reply.force_close()
        return self.worker.wsgi(environ, connection.reply.start_response)

    def answer(self, connection: Connection, ask: Callable[[], Any]) -> bool:
        """Let the app answer; False if it will later. Raises OSError when the client will never get the end of it."""
        try:
            parts = ask()
            while isinstance(parts, Pending):
                if not self.change(connection, parts):
                    return False
                parts = parts.go_on()
            self.write(connection.reply, parts)
        except Exception as error:
            connection.end(False)
            if isinstance(error, OSError):
                raise
            log.exception("an answer could not be finished")
            raise ConnectionAbortedError from error
        connection.end(not connection.reply.should_close())
        return True

    def write(self, reply: Reply, parts: Any) -> None:
        try:
            for part in parts:
                reply.write(part)
                if reply.response_length is None:
                    # There may be much more to be made.
                    lead.give_up()
            reply.close()
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def change(self, connection: Connection, pending: Pending) -> bool:
        """Whether what a request waits for has been made; else another thread goes on with it, maybe already."""
        turns, change = pending.change.turns, pending.change
        if connection.heavy and sum(other.heavy for other in list(self.pending)) >= MAX_HEAVY_PENDING:
            change.outcome = busy()
            return True
        self.pending[connection] = pending

        def tell(group: Group) -> None:
            resume = partial(self.go_on, connection, self.resume)
            self.worker.errands.add(partial(self.make, group) if group else resume)

        if not turns.enter(change, tell):
            return False
        if following := turns.make([change]):
            change.tell([])
            self.make(following)
            return False
        del self.pending[connection]
        return True

    def make(self, group: Group) -> None:
        """Make changes; and while another thread waits for clients, also those that have come meanwhile."""
        while group:
            following = group[0].turns.make(group)
            for change in group:
                change.tell([])
            if following and not lead.taken():
                following[0].tell(following)
                break
            group = following

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
        self.worker.lane.call()
        return READ if self.sent(connection) else WRITE
