"""What was measured, for reading: medians, ratios, what breaks a promise; as a table and as JSON."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.statements import Cost

# What is promised: a hundred times as many tasks, and no more than this much slower; and nobody waits longer than this.
MAX_RATIO, MAX_MILLISECONDS = 1.5, 200


class Times(NamedTuple):
    """Of an operation for one kind of user: milliseconds of the whole request and of its statements, in the middle of
    all runs and in the best; pages of the database that the statements looked at, and wrote to disk for themselves.
    """

    request: float
    statement: float
    best: float
    pages: int
    spilled: int
    scans: list[str]


class Result(NamedTuple):
    """What an operation takes, for each kind of user."""

    name: str
    kept: bool
    times: dict[str, Times]
    ratios: dict[str, float]

    def broken(self) -> list[str]:
        """The promises that this breaks. Of what a statement takes the best run counts: what is above it is noise."""
        slow = [f"{one.best:.0f} ms ({kind})" for kind, one in self.times.items() if one.best > MAX_MILLISECONDS]
        if not self.kept:
            return slow
        grown = [f"{ratio:.1f} times the {of}" for of, ratio in self.ratios.items() if ratio > MAX_RATIO]
        scans = {scan for one in self.times.values() for scan in one.scans if scan.startswith("Seq Scan")}
        return slow + grown + sorted(scans)


def growth(small: Sequence[float], large: Sequence[float]) -> float:
    """How much longer it takes an ordinary user of the large database than one of the small database.

    The two of a round follow each other closely, so whatever else the machine does meets both: they are compared
    first, and then the middle is taken.
    """
    return round(statistics.median(long / short for short, long in zip(small, large, strict=True)), 2)


def summary(runs: list[tuple[float, Cost]]) -> Times:
    requests, costs = [run[0] for run in runs], [run[1] for run in runs]
    milliseconds = [cost.milliseconds for cost in costs]
    return Times(
        round(statistics.median(requests), 3),
        round(statistics.median(milliseconds), 3),
        round(min(milliseconds), 3),
        round(statistics.median(cost.pages for cost in costs)),
        round(statistics.median(cost.spilled for cost in costs)),
        sorted(frozenset().union(*(cost.scans for cost in costs))),
    )


def table(results: list[Result]) -> str:
    """The results for a terminal: milliseconds of the request, and in brackets of its statements."""
    lines = [
        f"{'ms of the request (and of its statements)':44}"
        + "".join(f"{kind:>18}" for kind in results[0].times)
        + "   ratio"
    ]
    for one in results:
        cells = "".join(f"{times.request:9.2f} ({times.statement:6.2f})" for times in one.times.values())
        ratios = one.ratios
        lines.append(
            f"{one.name:44}{cells}{ratios['request']:8.2f} ({ratios['statement']:.2f})  {'; '.join(one.broken())}"
        )
    return "\n".join(lines)


def as_json(one: Result) -> dict[str, Any]:
    times = {kind: times._asdict() for kind, times in one.times.items()}
    return {"name": one.name, "kept": one.kept, "ratios": one.ratios, "broken": one.broken(), "times": times}
