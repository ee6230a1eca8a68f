"""Everything that can fail, on one stage, and how it is made to: for `chaos.py`, which says what must hold then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.conftest import SECRET
from tests.support.live import Service
from tests.support.servers import Server, pgbouncer_server, postgres_server
from tests.support.wire import Wire
from todo_service import cli

# How long a network that holds everything back does so.
HOLD = 10.0
# How long a worker may take to be replaced.
PATIENCE = 16
DROPPED = {"dropped", "reset"}
UNAVAILABLE = {"503", "409"}


@dataclass
class Stage:
    """Everything that can fail. `url` is the database's own address."""

    server: Server
    pool: Server
    wire: Wire
    service: Service

    @property
    def url(self) -> str:
        return self.server.dsn


@contextmanager
def stage() -> Iterator[Stage]:
    with postgres_server() as server, pgbouncer_server(server.dsn) as pool, Wire(pool.dsn) as wire:
        cli.upgrade(pool.dsn)
        with Service(wire.dsn(), SECRET, RATELIMIT_DEFAULT="1000000/minute", GUNICORN_CMD_ARGS="") as service:
            yield Stage(server, pool, wire, service)


# The causes: each returns when what it has caused is over, or raises RuntimeError where that went wrong.


def kill_a_worker(stage: Stage) -> None:
    before = stage.service.workers()
    stage.service.kill_worker(min(before))
    wait_for_new_workers(stage, {min(before)})


def hold_the_network(stage: Stage, seconds: float) -> None:
    stage.wire.hold()
    time.sleep(seconds)
    stage.wire.release()


def lose_the_requests(stage: Stage) -> None:
    lose(stage, stage.wire.hold)


def lose_the_answers(stage: Stage) -> None:
    """What was under way has been done, and nobody is told."""
    lose(stage, stage.wire.hold_replies)


def lose(stage: Stage, hold: Callable[[], None]) -> None:
    """Hold the network and cut it, several times: each catches what is under way in another place."""
    for _ in range(3):
        hold()
        time.sleep(0.5)
        stage.wire.cut()
        stage.wire.release()
        time.sleep(0.2)


def reload(stage: Stage) -> None:
    before = stage.service.workers()
    stage.service.reload()
    wait_for_new_workers(stage, before)


def replace_workers(stage: Stage) -> None:
    wait_for_new_workers(stage, stage.service.workers())


def stop(stage: Stage) -> None:
    code = stage.service.stop()
    stage.service.start()
    if code != 0:
        raise RuntimeError(f"exit status {code}")


def wait_for_new_workers(stage: Stage, gone: set[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (now := stage.service.workers()) & gone or len(now) != 2:
        if time.monotonic() > deadline:
            raise RuntimeError(f"workers {now}, of which {now & gone} should have gone")
        time.sleep(0.05)


@dataclass
class Fault:
    """`errors`: the kinds that may be seen, see `Attempt`. `answered`: whatever was done has been answered, too."""

    name: str
    cause: Callable[[Stage], None]
    errors: set[str] = field(default_factory=set)
    answered: bool = True
    options: str = ""


def faults(hold: float = HOLD) -> list[Fault]:
    return [
        # Those of processes first: after the others there may be a connection in a pool that is dead and that nobody
        # has used since; a change on it is answered by 503.
        Fault("worker killed", kill_a_worker, DROPPED | {"409"}, answered=False),
        Fault("reload", reload),
        Fault("workers at max_requests", replace_workers, options="--max-requests 300 --max-requests-jitter 50"),
        # What connects while the socket is being closed is refused, or reset without having been looked at.
        Fault("graceful stop, start", stop, {"refused", "reset"}),
        Fault("requests lost, reset", lose_the_requests, UNAVAILABLE, answered=False),
        Fault("answers lost, reset", lose_the_answers, UNAVAILABLE, answered=False),
        Fault("PostgreSQL restarted", lambda stage: stage.server.restart(), UNAVAILABLE, answered=False),
        Fault("PgBouncer restarted", lambda stage: stage.pool.restart(), UNAVAILABLE, answered=False),
        Fault(f"network held {hold:g} s", lambda stage: hold_the_network(stage, hold), UNAVAILABLE, answered=False),
    ]
