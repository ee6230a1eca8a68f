"""Every number that /metrics has, by name; docs/metrics.md lists the same. Who counts is `metrics.py`."""

from ..config import VERSION
from ..db.models import REVISION

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)


class Instruments:
    """The numbers of a process that has up to `connections` to the database; of few labels' values each."""

    def __init__(self, connections: int) -> None:
        # Importing it settles whether the processes share their numbers.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = here = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"todo_{name}", meaning, labels, registry=here)

        def times(name: str, meaning: str, *labels: str) -> Histogram:
            return Histogram(f"todo_{name}_seconds", meaning, labels, buckets=SECONDS, registry=here)

        def sum_of_all(name: str, meaning: str) -> Gauge:
            return Gauge(f"todo_{name}", meaning, registry=here, multiprocess_mode="livesum")

        def latest(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"todo_{name}", meaning, labels, registry=here, multiprocess_mode="mostrecent")

        self.requests = counter("requests", "Requests answered.", "method", "route", "status")
        self.seconds = times("request", "Time to the answer.", "method", "route")
        self.problems = counter("problems", "Requests that failed, by problem code.", "code")
        self.refused_tokens = counter(
            "refused_tokens", "Requests without a valid token (401), by what their answer says.", "reason"
        )
        self.too_many = counter("too_many_requests", "Requests refused by 429, by what there was too much of.", "limit")
        self.queue = sum_of_all("gate_waiting", "Changes that wait until others of the same user are done.")
        self.key_fetches = counter("key_fetches", "Fetches of the public keys that tokens are verified by.", "outcome")
        self.questions = counter("session_questions", "Questions to Better Auth, whose a session is.", "outcome")

        # There from the start, so that the first time is seen as a change.
        self.problems.labels("internal-error")
        for outcome in ("answered", "failed"):
            self.key_fetches.labels(outcome)
            self.questions.labels(outcome)

        self.in_use = sum_of_all("database_connections_in_use", "Connections that a request is using.")
        self.size = sum_of_all("database_connections_max", "As many are in use at most.")
        self.size.set(connections)
        self.wait = times("database_wait", "Time until a request has a connection, be it by connecting anew.")
        self.statements = times("statement", "Time of a statement, by the function that sends it.", "statement")
        self.failures = counter("database_failures", "Statements and connections that failed, by reason.", "reason")

        self.overdue = latest(
            "purge_overdue_seconds", "For how long the purge should have removed the oldest row of a kind.", "kind"
        )
        self.schema = latest("schema_revision", "Revision that the database's schema has.")
        self.needed = latest("schema_revision_needed", "Revision that this version is made for.")
        self.needed.set(int(REVISION))
        self.info = Gauge(
            "todo_info", "The service's version; 1.", ["version"], registry=here, multiprocess_mode="livemax"
        )
        self.info.labels(VERSION).set(1)
