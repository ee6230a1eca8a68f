"""How many requests a second the service answers, and how long they take: mixed work, and each kind of it alone.

Through nginx, from connections that are kept, of many users.
"""

from typing import Any

import click

from benchmarks.stage import MIXED, Stage

# For each kind alone.
CONNECTIONS = 32


def measure(stage: Stage) -> dict[str, Any]:
    kinds = [(kind, {kind: 1}, min(CONNECTIONS, *stage.size.connections)) for kind in MIXED]
    todo = [("mixed", MIXED, connections) for connections in stage.size.connections] + kinds
    with stage.served() as served, click.progressbar(todo, label="load", item_show_func=shown) as works:
        results = [{"work": work} | served.load(mix, connections) for work, mix, connections in works]
    return {"mix": MIXED, "users": len(stage.users), "results": results}


def shown(one: tuple[str, dict[str, int], int] | None) -> str:
    return f"{one[0]}, {one[2]} connections" if one else ""


def table(measured: dict[str, Any]) -> str:
    titles = ("connections", "requests/s", "p50, ms", "p99, ms", "CPU ms/req", "errors")
    lines = [f"{'work':8}" + "".join(f"{title:>12}" for title in titles) + f"{'all answered, s':>18}"]
    for one in measured["results"]:
        figures = f"{one['per_second']:12.0f}{one['p50']:12.1f}{one['p99']:12.1f}{one['cpu']:12.2f}"
        lines.append(f"{one['work']:8}{one['connections']:12}{figures}{errors(one):12}{one['all_answered']:18.2f}")
    return "\n".join(lines)


def errors(one: dict[str, Any]) -> int:
    return sum(one["errors"].values())
