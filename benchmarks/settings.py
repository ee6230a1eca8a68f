"""What two settings save, each against being off: the service's processor time for a request, and PostgreSQL's.

`DB_PREPARE` (todo_service/db/prepared.py) and `WEB_AFFINITY` (todo_service/processors.py). A request of each kind is
one statement. PostgreSQL's time is that of its processes that serve the connections; they have to be on this machine.
"""

from collections import Counter
from typing import Any

import click

from benchmarks.stage import MIXED, Served, Stage, middle, processor
from tests.conftest import run_sql

CONNECTIONS = 32
WAYS = {"both on": {}, "DB_PREPARE=off": {"DB_PREPARE": "off"}, "WEB_AFFINITY=off": {"WEB_AFFINITY": "off"}}


def measure(stage: Stage) -> dict[str, Any]:
    """Each in turn, so that whatever else the machine does meets all."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {(kind, way): [] for kind in MIXED for way in WAYS}
    rounds = [list(WAYS)[:: -1 if number % 2 else 1] for number in range(stage.size.rounds)]
    with click.progressbar([way for each in rounds for way in each], label="settings") as todo:
        for way in todo:
            with stage.served(WAYS[way]) as served:
                served.load(MIXED, CONNECTIONS)
                for kind in MIXED:
                    runs[kind, way] += [loaded(served, kind)]
    return {"connections": CONNECTIONS, "results": [summary(*key, all) for key, all in runs.items()]}


def loaded(served: Served, kind: str) -> dict[str, Any]:
    """What clients measure, and PostgreSQL's milliseconds for a request."""
    before = processor(serving(served.stage.url))
    measured = served.load({kind: 1}, CONNECTIONS)
    used = processor(serving(served.stage.url)) - before
    return measured | {"postgresql": round(used * 1000 / max(1, measured["all"]), 3)}


def serving(url: str) -> list[int]:
    """The server's processes that the service's connections have."""
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'todo_service'"
    return [pid for (pid,) in run_sql(url, sql)]


def summary(kind: str, way: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    rate = {name: middle(one[name] for one in runs) for name in ("per_second", "p50", "p99")}
    used = {name: middle((one[name] for one in runs), 3) for name in ("cpu", "postgresql")}
    errors = sum((Counter(one["errors"]) for one in runs), Counter())
    return {"kind": kind, "way": way, "errors": errors} | rate | used


def table(measured: dict[str, Any]) -> str:
    lines = [f"{'requests/s; CPU ms a request: service, PostgreSQL':52}" + "".join(f"{way:>26}" for way in WAYS)]
    found = {(one["kind"], one["way"]): one for one in measured["results"]}
    for kind in MIXED:
        of_kind = [found[kind, way] for way in WAYS]
        cells = (f"{one['per_second']:10.0f}{one['cpu']:8.3f}{one['postgresql']:8.3f}" for one in of_kind)
        lines.append(f"{kind:52}{''.join(cells)}")
    return "\n".join(lines)
