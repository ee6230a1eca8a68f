"""What Prometheus may know of the service, at /metrics, for who sends METRICS_TOKEN as a bearer token.

Without that setting there is no such address, nothing is measured and prometheus-client is not even imported. With it,
gunicorn.conf.py, or granian.conf.py, gives the workers a folder for their numbers, so that whichever worker answers
speaks for all of them.
Labels are of few values: the route's template instead of the path, known methods, the codes of `errors.py`.
"""

import hmac
import os
import threading
import time
from pathlib import Path

from flask import Flask, Response, g, request
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool, QueuePool

from ..config import Settings
from ..errors import InvalidRequest, Unauthorized
from . import rate_limit
from .authentication import bearer_token

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)


def register(app: Flask, settings: Settings) -> None:
    """Measure `app` and serve what was measured, if there is a token for it."""
    token = settings.metrics_token
    if token is None:
        return
    engine: Engine = app.extensions["engine"]
    metrics = app.extensions["metrics"] = Metrics(engine.pool)
    app.after_request(metrics.observe)

    @app.get("/metrics")
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
    """The numbers of a process; those of its database connections as seen by `pool`."""

    def __init__(self, pool: Pool) -> None:
        assert isinstance(pool, QueuePool)
        self._pool = pool
        self._lock = threading.Lock()
        self._made: Instruments | None = None
        event.listen(pool, "checkout", lambda *_: self.instruments.in_use.inc())
        event.listen(pool, "checkin", lambda *_: self.instruments.in_use.dec())

    @property
    def instruments(self) -> "Instruments":
        return self._made or self.begin()

    def begin(self) -> "Instruments":
        """Start this process's numbers: after the fork, when the folder that the processes share is known."""
        with self._lock:
            self._made = self._made or Instruments(self._pool.size())
            return self._made

    def observe(self, response: Response) -> Response:
        made = self.instruments
        method = request.method if request.method in METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "none"
        made.requests.labels(method, route, response.status_code).inc()
        made.seconds.labels(method, route).observe(time.perf_counter() - g.began)
        if "failure" in g:
            made.problems.labels(g.failure).inc()
        return response

    def page(self) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry = self.instruments.registry
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def forget_the_dead(folder: Path) -> None:
    """Forget what only a living process has, such as connections in use; the counts of those that are gone stay."""
    for file in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except OSError:
            # Or it is somebody else's by now.
            file.unlink(missing_ok=True)


class Instruments:
    """What is measured."""

    def __init__(self, pool_size: int) -> None:
        # Importing it settles whether the processes share their numbers.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = here = CollectorRegistry()
        self.requests = Counter("todo_requests", "Requests answered.", ["method", "route", "status"], registry=here)
        self.seconds = Histogram(
            "todo_request_seconds", "Time to the answer.", ["method", "route"], buckets=SECONDS, registry=here
        )
        self.problems = Counter("todo_problems", "Requests that failed, by problem code.", ["code"], registry=here)
        self.in_use = Gauge(
            "todo_database_connections_in_use",
            "Connections that a request is using.",
            registry=here,
            multiprocess_mode="livesum",
        )
        size = Gauge(
            "todo_database_connections_max",
            "As many are in use at most.",
            registry=here,
            multiprocess_mode="livesum",
        )
        size.set(pool_size)
