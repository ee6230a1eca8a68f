"""Does the service stay as fast when it has a hundred times as many tasks? And for a user who has very many?

    python -m benchmarks.growth                  # ten million tasks against a hundred thousand: some 20 minutes, 15 GB
    python -m benchmarks.growth --tasks 2000     # the same in small, to see that it works

Two databases lie on one server. Every operation is done in turn for users of each, so that whatever else the machine
does meets them alike: ordinary users of either, who have the same number of tasks; and in the large one a busy user
and the one who has the most. Taken are the whole request, without a network, and PostgreSQL's own account of its
statements. Times depend on the machine; what counts is how they compare.
"""

import json
import os
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import psycopg2

from benchmarks import population, server
from benchmarks.operations import Operation, Subject, TooSlowError, all_operations
from benchmarks.population import Group, Shape, user_id
from benchmarks.results import Result, as_json, growth, summary, table
from benchmarks.statements import Cost, Recorder, cost
from tests.conftest import settings_for
from todo_service import create_app

# Ordinary users are many, each asked once a round; there is one of the others.
ORDINARY = 10
TRIES = 5
PAIRS = (("small", "ordinary"), ("busy", "heavy"))


def shapes(tasks: int, users: int = 0, small: int = 0) -> tuple[Shape, Shape]:
    """The small database and the large one: one user has 1 % of the tasks, 1 % of the users have half of them.

    Unless said otherwise there is a user for a hundred tasks, and the small database has a hundredth of them.
    """
    users = users or max(tasks // 100, 2 * ORDINARY)
    busy, heavy = max(1, users // 100), max(100, tasks // 100)
    others = users - busy - 1
    each = -(-(tasks - heavy - tasks // 2) // others)
    ordinary = max((small or tasks // 100) // each, ORDINARY + 1)
    large = (Group("heavy", 1, heavy), Group("busy", busy, tasks // 2 // busy), Group("ordinary", others, each))
    return Shape((Group("ordinary", ordinary, each),)), Shape(large)


class Target:
    """One of the two databases, with the service on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app = create_app(settings_for(url, rate_limit="1000000000/minute", log_level="ERROR"))
        self.recorder = Recorder(self.app.extensions["engine"])
        self.cursor = psycopg2.connect(url).cursor()

    def close(self) -> None:
        self.cursor.connection.close()
        self.app.extensions["engine"].dispose()

    def subjects(self, group: str, users: int) -> list[Subject]:
        """The first users of a group; the stranger whose tasks they can't see comes after them."""
        stranger = user_id("ordinary", ORDINARY + 1)
        return [Subject(self.app, user_id(group, number), stranger) for number in range(1, users + 1)]

    def warm_up(self, users: list[Subject]) -> None:
        """Read all that the users have, however long that takes."""
        for user in users:
            sql = "SELECT count(description), count(title_key) FROM tasks WHERE user_id = %s"
            self.cursor.execute(sql, (user.id,))
        self.cursor.connection.rollback()

    def once(self, operation: Operation, user: Subject) -> tuple[float, Cost]:
        """Do it once: the milliseconds of the whole, and what PostgreSQL says of the statements when they run again."""
        for _ in range(TRIES):
            try:
                return self._once(operation, user)
            except TooSlowError as error:
                click.echo(f"{operation.name}: {error}", err=True)
        raise RuntimeError(f"{operation.name} is too slow")

    def _once(self, operation: Operation, user: Subject) -> tuple[float, Cost]:
        run = operation.prepare(user)
        self.recorder.sent.clear()
        began = time.perf_counter()
        result = run()
        took = time.perf_counter() - began
        messages = self.recorder.taken()
        operation.cleanup(user, result)
        return took * 1000, cost(self.cursor, messages)


def measured(operation: Operation, rounds: int, subjects: dict[str, tuple[Target, list[Subject]]]) -> Result:
    """Some rounds, each for both kinds of user that are compared; the first two only warm up.

    The two take turns at going first, and a pair has its rounds to itself: a user's statement that looks at a hundred
    thousand tasks leaves the processor's caches empty for whoever comes next.
    """
    runs: dict[str, list[tuple[float, Cost]]] = {kind: [] for kind in subjects}
    for pair in PAIRS:
        for number in range(rounds + 2):
            for kind in pair if number % 2 else pair[::-1]:
                target, users = subjects[kind]
                run = target.once(operation, users[number % len(users)])
                runs[kind] += [run] if number > 1 else []
    both = [runs["small"], runs["ordinary"]]
    ratios = {
        "request": growth(*([milliseconds for milliseconds, _ in all] for all in both)),
        "statement": growth(*([cost.milliseconds for _, cost in all] for all in both)),
    }
    return Result(operation.name, operation.kept, {kind: summary(all) for kind, all in runs.items()}, ratios)


def run(url: str, both: tuple[Shape, Shape], rounds: int, only: str, made: ExitStack) -> dict[str, Any]:
    """Make what is missing on the server at `url` and measure; what was made is removed with `made`."""
    shape = dict(zip(("small", "large"), both, strict=True))
    urls = {name: database(url, name, one, made) for name, one in shape.items()}
    with ExitStack() as stack:
        targets = {name: stack.enter_context(closing(Target(address))) for name, address in urls.items()}
        subjects = {
            "small": (targets["small"], targets["small"].subjects("ordinary", ORDINARY)),
            "ordinary": (targets["large"], targets["large"].subjects("ordinary", ORDINARY)),
            "busy": (targets["large"], targets["large"].subjects("busy", 1)),
            "heavy": (targets["large"], targets["large"].subjects("heavy", 1)),
        }
        for target, users in subjects.values():
            target.warm_up(users)
        wanted = [operation for operation in all_operations() if only in operation.name]
        with click.progressbar(wanted, label="measuring", item_show_func=lambda one: one and one.name) as todo:
            results = [measured(operation, rounds, subjects) for operation in todo]
    click.echo(table(results))
    return {
        "tasks": {name: one.tasks for name, one in shape.items()},
        "users": {group.name: group._asdict() for group in shape["large"].groups},
        "server": server.facts(urls["large"]),
        "results": [as_json(one) for one in results],
    }


def database(url: str, name: str, shape: Shape, made: ExitStack) -> str:
    """The address of a database of this shape."""
    full_name = f"growth_{name}_{shape.tasks}"
    address, missing = server.make_database(url, full_name)
    if missing:
        made.callback(server.execute, url, f"DROP DATABASE {full_name} WITH (FORCE)")
        population.populate(address, shape, name)
    return address


@click.command()
@click.option("--tasks", default=10_000_000, show_default=True, help="In the large database.")
@click.option("--users", default=0, help="In the large database; default: a hundredth of the tasks.")
@click.option("--small", default=0, help="Tasks in the small database; default: a hundredth of the tasks.")
@click.option("--rounds", default=15, show_default=True, help="How often each operation is done for each user.")
@click.option("--only", default="", help="Only operations whose name has this in it.")
@click.option("--server", "url", default=None, help="The PostgreSQL to measure on, as a URL; default: the bundled one.")
@click.option("--data", type=click.Path(path_type=Path), help="Where the bundled one keeps its data, for the next run.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where the results go.")
@click.option("--svg", type=click.Path(path_type=Path), help="Where a chart of them goes.")
def main(
    tasks: int, users: int, small: int, rounds: int, only: str, url: str | None, data: Path | None, file: Path | None,
    svg: Path | None,
) -> None:  # fmt: skip
    """Measure how the service's time grows with the number of tasks."""
    with ExitStack() as stack:
        url = url or stack.enter_context(server.bundled(data))
        made = ExitStack() if data else stack.enter_context(ExitStack())
        results = run(url, shapes(tasks, users, small), rounds, only, made)
    if file:
        file.write_text(json.dumps(results, indent=1) + os.linesep)
    if svg:
        # Needed here alone, and slow to load.
        from benchmarks import chart

        chart.draw(results, svg)


if __name__ == "__main__":
    main()
