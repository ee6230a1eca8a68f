"""What more processes answer, and what they take: requests a second by processes, with and without Redis for limits.

Service, nginx, database, Redis and clients share the machine's processors; so more processes than there are of these
tell what being many costs, not what more machines would answer.
"""

from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import Any

import click
import pytest

from benchmarks.settings import serving
from benchmarks.stage import MIXED, Stage, middle
from tests.support.compose import redis_server

LIMITS = ("memory", "redis")


def measure(stage: Stage) -> dict[str, Any]:
    """Rounds with all numbers meet the same noise."""
    runs: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    clients = stage.size.connections[0]
    with ExitStack() as stack:
        try:
            redis = stack.enter_context(redis_server())
        except pytest.skip.Exception as missing:
            raise click.ClickException(str(missing)) from None
        storage = {"memory": "memory://", "redis": redis.url}
        todo = [(n, limits) for _ in range(stage.size.rounds) for n in stage.size.processes for limits in LIMITS]
        for n, limits in stack.enter_context(click.progressbar(todo, label="scaling", item_show_func=shown)):
            settings = {"WEB_CONCURRENCY": str(n), "RATELIMIT_STORAGE_URI": storage[limits]}
            with stage.served(settings) as served:
                measured = served.load(MIXED, clients)
                runs[n, limits] += [measured | {"database": len(serving(stage.url))}]
    return {"mix": MIXED, "clients": clients, "results": [summary(*key, all) for key, all in sorted(runs.items())]}


def shown(one: tuple[int, str] | None) -> str:
    return f"{one[0]} processes, limits in {one[1]}" if one else ""


def summary(processes: int, limits: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {name: middle(one[name] for one in runs) for name in ("per_second", "p50", "p99")}
    figures["cpu"] = middle((one["cpu"] for one in runs), 3)
    errors = sum((Counter(one["errors"]) for one in runs), Counter())
    most = max(one["database"] for one in runs)
    return {"processes": processes, "limits": limits, "database_connections": most, "errors": errors} | figures


def table(measured: dict[str, Any]) -> str:
    titles = ("requests/s", "p50, ms", "p99, ms", "CPU ms/req", "connections")
    lines = [f"{'processes':10}{'limits in':10}" + "".join(f"{title:>13}" for title in titles)]
    for one in measured["results"]:
        figures = f"{one['per_second']:13.0f}{one['p50']:13.1f}{one['p99']:13.1f}{one['cpu']:13.2f}"
        lines.append(f"{one['processes']:<10}{one['limits']:10}{figures}{one['database_connections']:13}")
    return "\n".join(lines)
