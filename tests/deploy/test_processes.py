"""Processes that are stopped, killed and replaced: what was accepted is answered, and nobody else notices."""

import os
import re
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECRET, run_sql, token, wait_for
from tests.support.live import SERVERS, Answer, Connection, Service, UnansweredError, command_of, connections
from tests.support.proxy import Proxy
from tests.support.wire import Wire
from todo_service.errors import PROBLEM_JSON

pytestmark = pytest.mark.timed

SECONDS = 20
# The longest of them lie idle for longer than a worker that stops keeps a connection open.
# None near the 2 s after which a worker that stops closes what is idle: who asks in that very moment has to ask again,
# of any server (RFC 9112, section 9.5).
PAUSES = (0, 0, 0, 0.02, 0.1, 0.3, 0.7, 4)


@pytest.fixture(scope="module")
def wire(database_url: str) -> Iterator[Wire]:
    """The way to the database, on which whatever has to do with a `slow` task takes almost as long as it may."""
    with Wire(database_url, rewrite=lambda sql: f"SELECT pg_sleep(2); {sql}" if "slow" in sql else sql) as wire:
        yield wire


@pytest.fixture(scope="module")
def service(wire: Wire) -> Iterator[Service]:
    with serve(wire) as service:
        yield service


def serve(wire: Wire, command: list[str] | None = None, **environment: str) -> Service:
    return Service(wire.dsn(), SECRET, command, RATELIMIT_DEFAULT="100000/minute", **environment)


def slow_requests(wire: Wire) -> int:
    return sum("slow" in sql for sql in wire.queries)


def reached(wire: Wire, count: int) -> bool:
    return slow_requests(wire) == count


def replaced(service: Service, worker: int) -> bool:
    return len(service.workers() - {worker}) == 2


def somebody() -> tuple[str, str]:
    """Somebody's id, and a token for it."""
    user = f"carol-{secrets.token_hex(6)}"
    return user, token(user)


@contextmanager
def clients_of_both(service: Service) -> Iterator[dict[int, list[Connection]]]:
    """Three connections to each worker: whichever is awake first accepts the next, so it takes some to have them."""
    with ExitStack() as closing:
        made: list[Connection] = []
        places: dict[int, list[Connection]] = {}

        def enough() -> bool:
            made.append(closing.enter_context(Connection(service.url, somebody()[1])))
            made[-1].connect()
            for worker in service.workers():
                place = connections(worker)
                places[worker] = [client for client in made if (service.port, client.port) in place]
            return len(places) == 2 and min(map(len, places.values())) >= 3

        wait_for(enough, "one worker accepts all")
        chosen = {worker: clients[:3] for worker, clients in places.items()}
        for client in set(made) - {client for clients in chosen.values() for client in clients}:
            # Or a thread would wait for what it says.
            client.close()
        yield chosen


@contextmanager
def slow_requests_to_both(wire: Wire, service: Service) -> Iterator[dict[int, list[Future[Answer]]]]:
    """Requests under way, by the worker that has them."""
    with ThreadPoolExecutor(6) as pool, clients_of_both(service) as clients:
        wire.reset()
        under_way: dict[int, list[Future[Answer]]] = {worker: [] for worker in clients}
        for number, (worker, client) in enumerate((w, c) for w, group in clients.items() for c in group):
            under_way[worker].append(pool.submit(client.request, "POST", "/api/tasks", {"title": "slow"}))
            wait_for(partial(reached, wire, number + 1), "a request did not reach the database")
        yield under_way


def test_a_stop_answers_what_is_under_way_and_readiness_fails_first(wire: Wire, database_url: str) -> None:
    user, bearer = somebody()
    with (
        serve(wire) as service,
        ThreadPoolExecutor(1) as pool,
        Connection(service.url) as probe,
        Connection(service.url, bearer) as client,
    ):
        assert probe.request("GET", "/health/ready").status == 200
        wire.reset()
        slow = pool.submit(client.request, "POST", "/api/tasks", {"title": "slow"})
        wait_for(lambda: slow_requests(wire) == 1, "the request did not reach the database")
        service.process.send_signal(signal.SIGTERM)
        while (ready := probe.request("GET", "/health/ready")).status == 200:
            assert ready.headers["Connection"] != "close", "the service stops, and says that it is ready"
        assert (ready.status, ready.headers["Content-Type"]) == (503, PROBLEM_JSON)
        assert "stopping" in ready.json["detail"]
        assert ready.headers["Retry-After"]
        assert not slow.done()
        assert slow.result(SECONDS).status == 201
        assert service.process.wait(SECONDS) == 0
        assert "SIGKILL" not in service.log
    assert run_sql(database_url, "SELECT title FROM tasks WHERE user_id = %(user)s", {"user": user}) == [("slow",)]


def test_a_killed_worker_takes_only_its_own_requests_along(wire: Wire, service: Service) -> None:
    with slow_requests_to_both(wire, service) as under_way:
        (killed, lost), (other, kept) = under_way.items()
        assert lost
        assert kept
        service.kill_worker(killed)
        assert {answer.result(SECONDS).status for answer in kept} == {201}
        for answer in lost:
            with pytest.raises(UnansweredError):
                answer.result(SECONDS)
    wait_for(lambda: len(service.workers() - {killed}) == 2, "no new worker came")
    assert other in service.workers()
    service.wait_until_ready()


def test_each_worker_has_database_connections_of_its_own(wire: Wire, service: Service) -> None:
    with slow_requests_to_both(wire, service) as under_way:
        assert all(under_way.values())
        to_database = [
            {own for own, theirs in connections(process) if theirs == wire.port}
            for process in (service.process.pid, *service.workers())
        ]
    assert [bool(ports) for ports in to_database] == [False, True, True]
    assert all(one.isdisjoint(another) for one, another in combinations(to_database, 2))


def test_a_reload_under_load_goes_unnoticed(service: Service) -> None:
    before = service.workers()
    with Load(service) as load:
        service.reload()
        wait_for(lambda: len(service.workers()) == 2 and not service.workers() & before, "the workers stayed")
    load.check()


def test_workers_that_have_had_enough_requests_are_replaced_unnoticed(wire: Wire) -> None:
    with serve(wire, GUNICORN_CMD_ARGS="--max-requests 50") as service:
        seen = service.workers()

        def replaced() -> bool:
            seen.update(service.workers())
            return len(seen) >= 4

        with Load(service) as load:
            wait_for(replaced, "the workers stayed")
        load.check()


# Through nginx, as deploy/nginx.conf has it


@pytest.mark.parametrize("server", SERVERS)
def test_a_stop_behind_the_proxy_answers_what_is_under_way(wire: Wire, server: str) -> None:
    with (
        serve(wire, command_of(server)) as service,
        Proxy(service) as proxy,
        ThreadPoolExecutor(1) as pool,
        Connection(proxy.url) as probe,
        Connection(proxy.url, somebody()[1]) as client,
    ):
        wire.reset()
        slow = pool.submit(client.request, "POST", "/api/tasks", {"title": "slow"})
        wait_for(lambda: slow_requests(wire) == 1, "the request did not reach the database")
        service.process.send_signal(signal.SIGTERM)
        while (ready := probe.request("GET", "/health/ready")).status == 200:
            pass
        assert (ready.status, ready.headers["Content-Type"]) == (503, PROBLEM_JSON)
        assert "stopping" in ready.json["detail"]
        assert probe.request("GET", "/api/docs").status == 200, "others are served until it is known"
        assert slow.result(SECONDS).status == 201
        assert service.process.wait(SECONDS) == 0


@pytest.mark.parametrize("server", SERVERS)
def test_a_reload_behind_the_proxy_goes_unnoticed(wire: Wire, server: str) -> None:
    with serve(wire, command_of(server)) as service, Proxy(service) as proxy, Load(proxy) as load:
        before = service.workers()
        service.reload()
        wait_for(lambda: len(service.workers()) == 2 and not service.workers() & before, "the workers stayed")
    load.check()


@pytest.mark.parametrize("server", SERVERS)
def test_killed_workers_behind_the_proxy_fail_nothing_that_can_be_repeated(wire: Wire, server: str) -> None:
    """RFC 9110, 9.2.2; but for answers that have begun, as gunicorn sends the head by itself: nginx can't ask again.

    Granian would give up if the same one went twice within 5.5 s.
    """
    with serve(wire, command_of(server)) as service, Proxy(service) as proxy:
        with Load(proxy, change="PUT") as load:
            for _ in range(3):
                killed = min(service.workers())
                service.kill_worker(killed)
                wait_for(partial(replaced, service, killed), "no new worker came")
                # Until the new one serves.
                with clients_of_both(service):
                    pass
        load.check(begun=len(re.findall(r"\[error\].* while reading upstream", proxy.log)))


class Load:
    """Clients who repeat nothing. What they change is made first, unless the `change` is to make it.

    Half of them keep their connections, each with its own pause between two requests; the others come anew for each,
    and take a moment until they ask.
    """

    def __init__(self, service: Service | Proxy, change: str = "POST") -> None:
        self._service, self._change = service, change
        self._ending, self._made = threading.Event(), threading.Semaphore(0)
        self._statuses: list[int] = []
        self._unanswered: list[UnansweredError] = []
        self._pool = ThreadPoolExecutor(2 * len(PAUSES))

    def __enter__(self) -> "Load":
        self._clients = [self._pool.submit(self._work, pause) for pause in PAUSES]
        self._clients += [self._pool.submit(self._come_and_go) for _ in PAUSES]
        if self._change != "POST":
            for _ in PAUSES:
                assert self._made.acquire(timeout=SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        wait_for(lambda: len(self._statuses) > 100, "hardly anything was asked")
        self._ending.set()
        self._pool.shutdown()

    def check(self, begun: int = 0) -> None:
        """`begun`: how many answers were cut off in the middle."""
        for client in self._clients:
            client.result()
        assert set(self._statuses) <= {200, 201}
        assert len(self._unanswered) <= begun, self._unanswered

    def _work(self, pause: float) -> None:
        with Connection(self._service.url, somebody()[1]) as connection:
            path = "/api/tasks"
            if self._change != "POST":
                path += "/" + connection.request("POST", path, {"title": "quick"}).json["id"]
                self._made.release()
            while not self._ending.is_set():
                self._ask(connection, self._change, path, {"title": "quick"})
                self._ask(connection, "GET", "/api/tasks?limit=5")
                self._ending.wait(pause)

    def _come_and_go(self) -> None:
        while not self._ending.is_set():
            with Connection(self._service.url) as connection:
                connection.connect()
                time.sleep(0.3)
                self._ask(connection, "GET", "/health/ready")

    def _ask(self, connection: Connection, method: str, path: str, body: Any = None) -> None:
        try:
            self._statuses.append(connection.request(method, path, body).status)
        except UnansweredError as error:
            self._unanswered.append(error)


# However many the machine has; none where the system doesn't tell.
FEW = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
PLACED = pytest.mark.skipif(not FEW, reason="only Linux tells, and lets one say, where a process runs")


def on_few(server: str) -> list[str]:
    """What starts the service with `server` where there are no other processors."""
    return ["taskset", "--cpu-list", ",".join(map(str, FEW)), *command_of(server)]


def home(thread: int) -> tuple[int, ...]:
    """Where a thread may run, or the first one of a process; one that has just ended, nowhere."""
    try:
        return tuple(sorted(os.sched_getaffinity(thread)))
    except ProcessLookupError:
        return ()


def homes(service: Service) -> set[tuple[int, ...]]:
    """Where the threads of the workers may run."""
    threads = (thread for worker in service.workers() for thread in Path(f"/proc/{worker}/task").iterdir())
    return {home(int(thread.name)) for thread in threads}


def shared_out(service: Service, each: int) -> bool:
    """Whether each processor has so many workers, and each worker one processor."""
    return Counter(map(home, service.workers())) == {(processor,): each for processor in FEW}


@PLACED
@pytest.mark.parametrize("server", SERVERS)
def test_workers_share_the_processors_whoever_is_replaced(database_url: str, server: str) -> None:
    each = 2
    with Service(database_url, SECRET, on_few(server), WEB_CONCURRENCY=str(each * len(FEW))) as service:
        wait_for(lambda: shared_out(service, each), "they don't")
        assert homes(service) == {(processor,) for processor in FEW}
        # Each of them once: Granian gives up if one is replaced twice within 5.5 s.
        for killed in sorted(service.workers())[1:]:
            service.kill_worker(killed)
            await_others(service, {killed}, each)
        before = service.workers()
        service.reload()
        await_others(service, before, each)


def await_others(service: Service, workers: set[int], each: int) -> None:
    """Return when others are there in the place of these workers, and as many on each processor as before."""
    wait_for(lambda: not workers & service.workers(), "they stay")
    wait_for(lambda: shared_out(service, each), "the new ones aren't where those were")


@PLACED
@pytest.mark.parametrize("environment", [{"WEB_AFFINITY": "off"}, {"WEB_CONCURRENCY": str(len(FEW) + 1)}])
def test_workers_run_anywhere(database_url: str, environment: dict[str, str]) -> None:
    """Where that is asked for, and where a processor would have more of them than another."""
    settings: dict[str, Any] = {"WEB_CONCURRENCY": str(len(FEW))} | environment
    with Service(database_url, SECRET, on_few("gunicorn"), **settings) as service:
        assert homes(service) == {tuple(FEW)}
