"""How many requests a second the service answers, and how long they take, with hundreds of connections that are kept.

And what a client saves it that asks whether a list has changed: `If-None-Match`, answered by 304.
"""

from typing import Any

import click

from benchmarks.stage import MIXED, Stage, middle

POLLERS = 8


def measure(stage: Stage) -> dict[str, Any]:
    """Mixed work, for each number of connections."""
    with stage.service() as service:
        sizes = stage.size.connections
        with click.progressbar(sizes, label="load", item_show_func=lambda one: (one and str(one)) or "") as todo:
            results = [stage.load(service, MIXED, connections) for connections in todo]
    return {"mix": MIXED, "users": len(stage.users), "results": results}


def table(measured: dict[str, Any]) -> str:
    titles = ("connections", "requests/s", "p50, ms", "p99, ms", "CPU ms/req", "errors")
    lines = ["".join(f"{title:>12}" for title in titles) + f"{'all answered, s':>18}"]
    for one in measured["results"]:
        figures = f"{one['per_second']:12.0f}{one['p50']:12.1f}{one['p99']:12.1f}{one['cpu']:12.2f}"
        lines.append(f"{one['connections']:12}{figures}{errors(one):12}{one['all_answered']:18.2f}")
    return "\n".join(lines)


def errors(one: dict[str, Any]) -> int:
    return sum(one["errors"].values())


def measure_polls(stage: Stage) -> dict[str, Any]:
    """Lists in full and lists that have not changed, in turn, so that whatever else the machine does meets both."""
    rounds: list[dict[str, Any]] = []
    with stage.service() as service, click.progressbar(range(2 * stage.size.rounds), label="304") as todo:
        for number in todo:
            both = ("list", "poll") if number % 2 else ("poll", "list")
            rounds += [{kind: stage.load(service, {kind: 1}, POLLERS, stage.size.seconds / 3) for kind in both}]

    def ratio(name: str) -> float:
        # The processor's clock ticks so slowly that a short run may take none of its time.
        return middle((one["poll"][name] / (one["list"][name] or 1) for one in rounds), 2)

    ratios = {name: ratio(name) for name in ("per_second", "p50", "cpu")}
    return {"ratios": ratios, "results": [one[kind] | {"kind": kind} for one in rounds for kind in ("list", "poll")]}


def table_polls(measured: dict[str, Any]) -> str:
    lines = [f"{'':12}{'requests/s':>12}{'p50, ms':>10}{'CPU ms/req':>12}{'errors':>8}"]
    for kind, title in (("list", "in full"), ("poll", "304")):
        runs = [one for one in measured["results"] if one["kind"] == kind]
        rate, p50, cpu = (middle((one[name] for one in runs), 3) for name in ("per_second", "p50", "cpu"))
        lines.append(f"{title:12}{rate:12.0f}{p50:10.2f}{cpu:12.3f}{sum(map(errors, runs)):8}")
    ratios = measured["ratios"]
    lines.append(f"{'ratio':12}{ratios['per_second']:12.2f}{ratios['p50']:10.2f}{ratios['cpu']:12.2f}")
    return "\n".join(lines)
