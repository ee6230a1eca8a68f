"""The service as it is shipped, behind nginx, on a database with users and their tasks; and a load on it.

The load comes from another process.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import psycopg2
import pytest

from benchmarks import population, server
from benchmarks.population import Group, Shape
from tests.conftest import SECRET, token
from tests.support.live import Service
from tests.support.proxy import Proxy
from todo_service.config import ROOT, processor_count

# What clients do, in percent: above all they show lists.
MIXED = {"list": 70, "get": 15, "update": 10, "create": 5}
TASKS = 100
PROCESSORS = processor_count()
UNLIMITED = "1000000000/minute"


class Size(NamedTuple):
    """How much is measured: seconds for each figure, how often it is taken, and with what."""

    seconds: float = 5
    rounds: int = 3
    users: int = 200
    connections: tuple[int, ...] = (128, 256)
    threads: tuple[int, ...] = (1, 2, 4, 8, 16)
    processes: tuple[int, ...] = (1, 2, 4)


SMOKE = Size(0.2, 1, 20, (8,), (2,), (1,))


class Stage(NamedTuple):
    """A database, who uses it, and whose code serves it."""

    url: str
    users: list[dict[str, Any]]
    checkout: Path
    size: Size

    def service(self, environment: dict[str, str] | None = None, kind: type[Service] = Service) -> Service:
        """The service, started; with a process for each processor and as many threads as it has by itself."""
        # env runs the command in its own place: the process is the service's master.
        command = ["env", "-C", str(self.checkout), sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
        settings = {"WEB_CONCURRENCY": str(PROCESSORS), "RATELIMIT_DEFAULT": UNLIMITED} | (environment or {})
        return kind(settings.pop("DATABASE_URL", self.url), SECRET, command, **settings)

    @contextmanager
    def served(self, environment: dict[str, str] | None = None) -> Iterator["Served"]:
        """The service, started, and nginx in front of it."""
        with self.service(environment) as service, proxy(service) as front:
            yield Served(service, front.port, self)


class Served(NamedTuple):
    """A running service, and the port where nginx answers for it."""

    service: Service
    port: int
    stage: Stage

    def load(self, mix: dict[str, int], connections: int) -> dict[str, Any]:
        """What `connections` clients measure; and the milliseconds of a processor that a request takes the workers."""
        seconds = self.stage.size.seconds
        asked = {"port": self.port, "connections": connections, "seconds": seconds, "mix": mix}
        before = processor(self.service.workers())
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.client"],
            input=json.dumps(asked | {"users": self.stage.users}),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds * 1.25 + 90,
        )
        if done.returncode:
            raise RuntimeError(f"the client ended with {done.returncode}: {done.stderr}")
        measured: dict[str, Any] = json.loads(done.stdout)
        used = processor(self.service.workers()) - before
        return {"connections": connections, "cpu": round(used * 1000 / max(1, measured["all"]), 3)} | measured


def proxy(service: Service) -> Proxy:
    try:
        return Proxy(service)
    except pytest.skip.Exception as missing:
        raise click.ClickException(str(missing)) from None


@contextmanager
def stage(url: str, checkout: Path, size: Size) -> Iterator[Stage]:
    """Make a database on the server at `url`, and remove it at the end."""
    name = f"load_{secrets.token_hex(4)}"
    address, _ = server.make_database(url, name)
    try:
        population.populate(address, Shape((Group("ordinary", size.users, TASKS),)), "load")
        yield Stage(address, users_of(address), checkout, size)
    finally:
        server.execute(url, f"DROP DATABASE {name} WITH (FORCE)")


def users_of(url: str) -> list[dict[str, Any]]:
    """The users of the database at `url`, with tokens and the ids of tasks that don't repeat."""
    sql = """SELECT user_id, array_agg(id::text) FROM tasks
             WHERE deleted_at IS NULL AND recurrence IS NULL GROUP BY user_id ORDER BY user_id"""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        return [{"token": token(user), "ids": ids} for user, ids in population.fetch(cursor, sql)]


def processor(pids: Iterable[int]) -> float:
    """The seconds of processor time that these processes have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def middle(values: Iterable[float], digits: int = 1) -> float:
    return round(statistics.median(values), digits)
