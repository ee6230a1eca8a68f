"""What it saves PostgreSQL to know statements by their names (todo_service/db/prepared.py): its own time for each.

A request of each kind is one statement. What is counted is the processor time of the server's processes that serve the
connections, so they have to be on this machine.
"""

from collections import Counter
from typing import Any

import click

from benchmarks.stage import MIXED, Served, Stage, middle, processor
from tests.conftest import run_sql

CONNECTIONS = 32
SETTINGS = {"on": "true", "off": "false"}


def measure(stage: Stage) -> dict[str, Any]:
    """With and without in turn, so that whatever else the machine does meets both."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {(kind, how): [] for kind in MIXED for how in SETTINGS}
    rounds = [list(SETTINGS)[:: -1 if number % 2 else 1] for number in range(stage.size.rounds)]
    with click.progressbar([how for both in rounds for how in both], label="prepared") as todo:
        for how in todo:
            with stage.served({"DB_PREPARE": SETTINGS[how]}) as served:
                served.load(MIXED, CONNECTIONS)
                for kind in MIXED:
                    runs[kind, how] += [loaded(served, kind)]
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


def summary(kind: str, how: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    rate = {name: middle(one[name] for one in runs) for name in ("per_second", "p50", "p99")}
    used = {name: middle((one[name] for one in runs), 3) for name in ("cpu", "postgresql")}
    errors = sum((Counter(one["errors"]) for one in runs), Counter())
    return {"kind": kind, "prepared": how, "errors": errors} | rate | used


def table(measured: dict[str, Any]) -> str:
    lines = [f"{'CPU ms a request: PostgreSQL, service':40}{'prepared':>20}{'not prepared':>20}{'ratio':>8}"]
    found = {(one["kind"], one["prepared"]): one for one in measured["results"]}
    for kind in MIXED:
        on, off = found[kind, "on"], found[kind, "off"]
        cells = "".join(f"{one['postgresql']:12.3f}{one['cpu']:8.3f}" for one in (on, off))
        ratio = on["postgresql"] / (off["postgresql"] or 1)
        lines.append(f"{kind:40}{cells}{ratio:8.2f}")
    return "\n".join(lines)
