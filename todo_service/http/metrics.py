"""What Prometheus may know of the service, at /metrics, for who sends METRICS_TOKEN as a bearer token.

Without that setting there is no such address, nothing is measured and prometheus-client is not even imported. With it,
gunicorn.conf.py, or granian.conf.py, gives the workers a folder for their numbers, so that whichever worker answers
speaks for all of them. What is measured where: requests when they are answered, statements and connections by
SQLAlchemy's events, and what `gate.py`, `tokens/keys.py` and `tokens/sessions.py` do in their `watch`.
Labels are of few values: the route's template instead of the path, known methods, the codes of `errors.py`.
"""

import hmac
import mmap
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from flask import Flask, Response, g, request
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from ..config import Settings
from ..db.deadlines import missed
from ..db.diagnosis import schema_revision
from ..db.session import Session
from ..errors import InvalidRequest, Problem, Unauthorized
from ..tasks import retention
from . import rate_limit
from .authentication import bearer_token
from .instruments import Instruments
from .tokens.authenticator import Authenticator

if TYPE_CHECKING:
    from prometheus_client import Counter

PATH = "/metrics"
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# When the database is asked again what only it knows, in whichever process: shared by those that a server forks.
ASK_AT = mmap.mmap(-1, 8)
# A minute later at the earliest, and so many times as long as it took: its work is the database's for a hundredth.
PAUSE_SECONDS, PAUSE_TIMES = 60, 100
# So long a page waits for that: there has to be one when the database doesn't answer, too.
PATIENCE = 1


def register(app: Flask, settings: Settings) -> None:
    """Measure `app` and serve what was measured, if there is a token for it."""
    token = settings.metrics_token
    if token is None:
        return
    metrics = app.extensions["metrics"] = Metrics(app.extensions["engine"])
    metrics.watch(app)

    @app.get(PATH)
    def prometheus() -> Response:
        """Metrics in Prometheus' text format"""
        try:
            if not hmac.compare_digest(bearer_token(request.headers.get("Authorization")).encode(), token.encode()):
                raise Unauthorized("the token is not the one set as METRICS_TOKEN")
        except (InvalidRequest, Unauthorized):
            rate_limit.count_stranger()
            raise
        return metrics.page()


class Metrics:
    """The numbers of a process, whose database is that of `engine`."""

    def __init__(self, engine: Engine) -> None:
        assert isinstance(engine.pool, QueuePool)
        self._engine, self._connections = engine, engine.pool.size()
        self._lock = threading.Lock()
        self._made: Instruments | None = None

    @property
    def instruments(self) -> Instruments:
        return self._made or self.begin()

    def begin(self) -> Instruments:
        """Start this process's numbers: after the fork, when the folder that the processes share is known."""
        with self._lock:
            self._made = self._made or Instruments(self._connections)
            return self._made

    def watch(self, app: Flask) -> None:
        """Have everything tell what it does."""
        app.after_request(self.observe)
        pool = self._engine.pool
        event.listen(pool, "checkout", lambda *_: self.instruments.in_use.inc())
        event.listen(pool, "checkin", lambda *_: self.instruments.in_use.dec())
        event.listen(self._engine, "before_cursor_execute", self._begin_statement, named=True)
        event.listen(self._engine, "after_cursor_execute", self._end_statement, named=True)
        event.listen(self._engine, "handle_error", self._fail)
        # There is no event for who begins to wait.
        self._connect = pool.connect
        pool.connect = self._connect_in_time  # type: ignore[method-assign]
        app.extensions["gate"].watch = lambda: self.instruments.queue.track_inprogress()
        authenticator: Authenticator = app.extensions["authenticator"]
        if authenticator.keys:
            authenticator.keys.watch = lambda: counted(self.instruments.key_fetches)
        if authenticator.sessions:
            authenticator.sessions.watch = lambda: counted(self.instruments.questions)

    def observe(self, response: Response) -> Response:
        made = self.instruments
        method = request.method if request.method in METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "none"
        made.requests.labels(method, route, response.status_code).inc()
        made.seconds.labels(method, route).observe(time.perf_counter() - g.began)
        if "failure" in g:
            code, kind = g.failure
            made.problems.labels(code).inc()
            if kind:
                (made.refused_tokens if response.status_code == 401 else made.too_many).labels(kind).inc()
        return response

    def _connect_in_time(self) -> PoolProxiedConnection:
        began = time.perf_counter()
        try:
            return self._connect()
        except PoolTimeout:
            self.instruments.failures.labels("no_connection_free").inc()
            raise
        finally:
            self.instruments.wait.observe(time.perf_counter() - began)

    def _begin_statement(self, context: Any, **_: Any) -> None:
        context.began = time.perf_counter()

    def _end_statement(self, context: Any, **_: Any) -> None:
        self.instruments.statements.labels(sender()).observe(time.perf_counter() - context.began)

    def _fail(self, failure: ExceptionContext) -> None:
        """Count a failure that is not the client's."""
        if began := getattr(failure.execution_context, "began", None):
            self.instruments.statements.labels(sender()).observe(time.perf_counter() - began)
        clients = isinstance(failure.chained_exception, Problem) and failure.chained_exception.status < 500
        if isinstance(failure.original_exception, psycopg2.Error) and not clients:
            self.instruments.failures.labels(reason(failure)).inc()

    def page(self) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self._ask()
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry = self.instruments.registry
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    def _ask(self) -> None:
        """Learn what only the database knows, unless that was asked a moment ago."""
        with self._lock:
            if time.time() < struct.unpack("d", ASK_AT)[0]:
                return
            ask_again_in(PAUSE_SECONDS)
        asking = threading.Thread(target=self._ask_database, daemon=True)
        asking.start()
        asking.join(PATIENCE)

    def _ask_database(self) -> None:
        began = time.monotonic()
        made = self.instruments
        # A failure is counted like any other.
        with suppress(Problem, SQLAlchemyError), Session(self._engine, unscoped=True) as session:
            made.schema.set(int(schema_revision(session) or 0))
            for kind, seconds in retention.overdue(session)._asdict().items():
                made.overdue.labels(kind).set(seconds)
        ask_again_in(max(PAUSE_SECONDS, PAUSE_TIMES * (time.monotonic() - began)))


def ask_again_in(seconds: float) -> None:
    ASK_AT[:] = struct.pack("d", time.time() + seconds)


@contextmanager
def counted(attempts: "Counter") -> Iterator[None]:
    """Count what is done in the block by how it ends."""
    try:
        yield
    except Exception:
        attempts.labels("failed").inc()
        raise
    attempts.labels("answered").inc()


def sender() -> str:
    """The function of ours that sends the statement which is just over, such as `queries.list_tasks`."""
    frame = sys._getframe(2)
    while frame.f_back:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("todo_service.") and not module.startswith("todo_service.db."):
            return f"{module.rpartition('.')[2]}.{frame.f_code.co_qualname.partition('.<locals>')[0]}"
        frame = frame.f_back
    return "other"


def reason(failure: ExceptionContext) -> str:
    """PostgreSQL's name for it (its documentation, appendix A), or what became of the connection."""
    if failure.connection is None:
        return "unreachable"
    if failure.is_disconnect:
        return "unanswered" if missed() else "connection_lost"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(failure.original_exception).__name__).lower()


def forget_the_dead(folder: Path) -> None:
    """Forget what only a living process has, such as connections in use; the counts of those that are gone stay."""
    for file in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except OSError:
            # Or it is somebody else's by now.
            file.unlink(missing_ok=True)
