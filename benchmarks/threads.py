"""How many threads and connections a process should have: what it answers with each number, the database near and far.

Threads share one interpreter, so that more of them help only as long as they wait for the database. A far one is the
same, with some milliseconds added to each round trip, as within a data centre or between two of a region.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import click
import psycopg2
from psycopg2.extensions import parse_dsn

from benchmarks.delay import delayed
from benchmarks.stage import MIXED, Stage, middle
from tests.support.servers import dsn_url

# Seconds that a round trip takes longer.
PLACES = {"near": 0.0, "1 ms": 0.001, "5 ms": 0.005}


def measure(stage: Stage) -> dict[str, Any]:
    """Requests a second for each number of threads; rounds with all numbers meet the same noise."""
    most, connections = max(stage.size.threads), stage.size.connections[0]
    # A connection for each thread; and the most threads with fewer.
    numbers = [(threads, threads) for threads in stage.size.threads] + [(most, few) for few in stage.size.threads[:-1]]
    runs: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
    with ExitStack() as stack:
        urls = {place: stack.enter_context(at(stage.url, delay)) for place, delay in PLACES.items()}
        trips = {place: round_trip(url) for place, url in urls.items()}
        todo = [(place, *number) for _ in range(stage.size.rounds) for number in numbers for place in urls]
        bar = stack.enter_context(click.progressbar(todo, label="threads", item_show_func=shown))
        for place, threads, pool in bar:
            settings = {"WEB_THREADS": str(threads), "DB_POOL_SIZE": str(pool), "DATABASE_URL": urls[place]}
            with stage.served(settings) as served:
                runs[place, threads, pool] += [served.load(MIXED, connections)]
    results = [summary(*key, all) for key, all in sorted(runs.items())]
    return {"round_trip": trips, "connections": connections, "results": results}


def shown(one: tuple[str, int, int] | None) -> str:
    return f"{one[0]}, {one[1]} threads, {one[2]} connections" if one else ""


@contextmanager
def at(url: str, delay: float) -> Iterator[str]:
    """The address by which the database at `url` is `delay` seconds farther away."""
    if not delay:
        yield url
        return
    target = parse_dsn(url)
    with delayed(target, delay) as port:
        yield dsn_url({**target, "host": "127.0.0.1", "port": str(port)})


def summary(place: str, threads: int, pool: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {name: middle(one[name] for one in runs) for name in ("per_second", "p50", "p99")}
    figures["cpu"] = middle((one["cpu"] for one in runs), 3)
    errors = sum((Counter(one["errors"]) for one in runs), Counter())
    rates = [one["per_second"] for one in runs]
    return {"place": place, "threads": threads, "pool": pool, "runs": rates, "errors": errors} | figures


def round_trip(url: str) -> float:
    """The milliseconds of the shortest statement."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        took = []
        for _ in range(40):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            took.append((time.perf_counter() - began) * 1000)
    return middle(took, 2)


def table(measured: dict[str, Any]) -> str:
    trips = measured["round_trip"]
    titles = [f"{place} ({trip} ms)" for place, trip in trips.items()]
    lines = [f"{'threads, connections; requests/s, p99 ms':42}" + "".join(f"{title:>22}" for title in titles)]
    found = {(one["place"], one["threads"], one["pool"]): one for one in measured["results"]}
    for threads, pool in sorted({key[1:] for key in found}):
        cells = [found[place, threads, pool] for place in trips]
        figures = "".join(f"{one['per_second']:14.0f}{one['p99']:8.0f}" for one in cells)
        lines.append(f"{threads:21}{pool:21}{figures}")
    return "\n".join(lines)
