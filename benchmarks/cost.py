"""What the service takes before it does anything: time to start, and memory.

Memory is the proportional set size: what processes share counts for each in part (proc(5), smaps_rollup).
"""

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from benchmarks.load import errors
from benchmarks.stage import MIXED, Stage, middle
from tests.support.live import READY_SECONDS, Service

PSS = re.compile(r"^Pss: +(\d+) kB", re.MULTILINE)
IMPORT = "import time; began = time.perf_counter(); import todo_service; print(time.perf_counter() - began)"


class Timed(Service):
    """Knows how many seconds it took to start: from exec to the first answer that it lives."""

    started_in = 0.0

    def wait_until_ready(self) -> None:
        began = time.perf_counter()
        while self.process.poll() is None and time.perf_counter() < began + READY_SECONDS:
            try:
                urllib.request.urlopen(f"{self.url}/health/live", timeout=2).close()  # noqa: S310
            except OSError:
                time.sleep(0.002)
            else:
                self.started_in = time.perf_counter() - began
                return
        super().wait_until_ready()


def measure(stage: Stage) -> dict[str, Any]:
    starts: list[float] = []
    imports: list[float] = []
    with click.progressbar(range(stage.size.rounds), label="cost: starts") as rounds:
        for _ in rounds:
            with stage.service(kind=Timed) as service:
                assert isinstance(service, Timed)
                starts.append(service.started_in * 1000)
            imports.append(float(python(stage.checkout, IMPORT)) * 1000)
    click.echo("cost: memory")
    connections = max(stage.size.connections)
    with stage.served() as served:
        workers = served.service.workers()
        idle = settled(workers)
        loaded = served.load(MIXED, connections)
        after = memory(workers)
        master = memory([served.service.process.pid])
    return {
        "start_ms": middle(starts),
        "import_ms": middle(imports),
        "worker_idle_mb": idle,
        "worker_after_load_mb": after,
        "master_mb": master,
        "results": [loaded],
    }


def python(folder: Path, code: str) -> str:
    """What Python prints, run in `folder`."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout  # noqa: S603


def settled(pids: Iterable[int]) -> float:
    """The same when it doesn't change any more: the first worker answers while others still start."""
    before, now, deadline = 0.0, memory(pids), time.monotonic() + READY_SECONDS
    while now != before and time.monotonic() < deadline:
        time.sleep(0.5)
        before, now = now, memory(pids)
    return now


def memory(pids: Iterable[int]) -> float:
    """The megabytes of one of these processes."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return middle(int(PSS.search(text)[1]) / 1024 for text in texts)  # type: ignore[index]


def table(measured: dict[str, Any]) -> str:
    [loaded] = measured["results"]
    rows = {
        "start to the first 200, ms": measured["start_ms"],
        "import todo_service, ms": measured["import_ms"],
        "memory of a worker, idle, MB": measured["worker_idle_mb"],
        f"... after {loaded['all']} requests, MB": measured["worker_after_load_mb"],
        "memory of the master, MB": measured["master_mb"],
        "errors": errors(loaded),
    }
    return "\n".join(f"{name:36}{value:10}" for name, value in rows.items())
