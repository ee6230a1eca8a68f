"""Measure all that can be measured by the service alone: tables here, JSON and charts into this folder.

make bench                                # all of it, with a million tasks: some 25 minutes
make bench ARGS="--only load"             # some of it: half a minute
make bench ARGS="--only threads --seconds 2 --rounds 1"
make bench ARGS="--only growth --tasks 10000000"       # half an hour, 15 GB
make bench ARGS="--only cost --checkout ../before --out /tmp/before"   # another version, to compare with
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks import cost, growth, load, scaling, server, settings, threads, writes
from benchmarks.stage import PROCESSORS, SMOKE, Size, Stage, stage
from todo_service.config import ROOT


class Benchmark(NamedTuple):
    """Something that is measured under load, and how it is shown."""

    measure: Callable[[Stage], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]


UNDER_LOAD = {
    "load": Benchmark(load.measure, load.table),
    "threads": Benchmark(threads.measure, threads.table),
    "scaling": Benchmark(scaling.measure, scaling.table),
    "settings": Benchmark(settings.measure, settings.table),
    "cost": Benchmark(cost.measure, cost.table),
}
ON_MANY_TASKS = {"growth": growth.main, "writes": writes.main}
PACKAGES = ("flask", "gunicorn", "psycopg2-binary", "SQLAlchemy")


def facts(url: str) -> dict[str, Any]:
    """What figures depend on."""
    known = server.facts(url)["settings"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "processors": PROCESSORS,
        "versions": {"python": platform.python_version(), "postgresql": known["server_version"]}
        | {name: version(name) for name in PACKAGES},
        "fsync": known["fsync"],
    }


def under_load(names: list[str], url: str | None, checkout: Path, size: Size, out: Path) -> int:
    """Measure these; how many requests went wrong."""
    wrong = 0
    with ExitStack() as stack:
        url = url or stack.enter_context(server.bundled(None, {}))
        on_stage = stack.enter_context(stage(url, checkout, size))
        for name in names:
            measured = UNDER_LOAD[name].measure(on_stage)
            click.echo(f"\n{UNDER_LOAD[name].table(measured)}\n")
            text = json.dumps(facts(url) | measured, indent=1)
            (out / f"{name}.json").write_text(text + os.linesep)
            wrong += sum(map(load.errors, measured["results"]))
            if name == "threads":
                # Needed here alone, and slow to load.
                from benchmarks import chart

                chart.draw_threads(measured, out / "threads.svg")
    return wrong


def on_many_tasks(context: click.Context, names: list[str], url: str | None, tasks: int, tiny: bool, out: Path) -> None:
    """Measure these in one database."""
    with tempfile.TemporaryDirectory(prefix="todo-bench-") as folder:
        data = None if url else Path(folder)
        common: dict[str, Any] = {"tasks": tasks, "url": url, "data": data} | ({"rounds": 1} if tiny else {})
        few = {"writes": "both"} if tiny else {}
        for name in names:
            more = {"svg": out / "growth.svg"} if name == "growth" else {}
            file = out / f"{name}.json"
            context.invoke(ON_MANY_TASKS[name], **common, **more, file=file, only=few.get(name, ""))


@click.command()
@click.option("--only", type=click.Choice([*UNDER_LOAD, *ON_MANY_TASKS]), multiple=True, help="Measure this alone.")
@click.option("--tasks", default=1_000_000, show_default=True, help="In the large database of growth and writes.")
@click.option("--smoke", is_flag=True, help="All of it, but tiny, to see that it works; writes to a temporary folder.")
@click.option("--seconds", default=float(Size().seconds), show_default=True, help="Under load, for each figure.")
@click.option("--rounds", default=Size().rounds, show_default=True, help="Under load, of which the median is taken.")
@click.option("--server", "url", default=None, help="The PostgreSQL to measure on, as a URL; default: the bundled one.")
@click.option(
    "--checkout",
    type=click.Path(exists=True, path_type=Path),
    default=ROOT,
    help="Serve another version, with the same schema (load, threads, scaling, settings, cost).",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where results go; default: here.")
@click.pass_context
def main(
    context: click.Context, only: tuple[str, ...], tasks: int, smoke: bool, seconds: float, rounds: int,
    url: str | None, checkout: Path, out: Path | None,
) -> None:  # fmt: skip
    """Measure how fast the service is, what it costs, and how that grows."""
    with ExitStack() as stack:
        if smoke:
            out = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-")))
        out = out or Path(__file__).parent
        out.mkdir(parents=True, exist_ok=True)
        size = SMOKE if smoke else Size(seconds, rounds)
        loads = [name for name in UNDER_LOAD if name in (only or UNDER_LOAD)]
        wrong = under_load(loads, url, checkout.resolve(), size, out) if loads else 0
        many = [name for name in ON_MANY_TASKS if name in (only or ON_MANY_TASKS)]
        on_many_tasks(context, many, url, 2000 if smoke else tasks, smoke, out)
    if wrong:
        raise click.ClickException(f"{wrong} requests went wrong")


if __name__ == "__main__":
    main()
