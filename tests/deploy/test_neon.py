"""docs/neon.md, with a real PgBouncer that has the limits which Neon documents, and TLS on both its sides.

What only Neon has is left to it: that connecting wakes a compute up (`test_database` waits for one that takes seconds),
and channel binding through its pooler, which Debian's PgBouncer doesn't offer.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex

import psycopg2
import pytest
from flask import Flask
from psycopg2.extensions import parse_dsn
from psycopg2.extras import RealDictCursor

from tests.cli.test_cli import run
from tests.conftest import SECRET, User, again, assert_problem, run_sql, settings_for, user_of, wait_for
from tests.support.ledger import audit
from tests.support.live import Connection, Service
from tests.support.load import wait_for_more, writers, writing
from tests.support.pages import commands, shell
from tests.support.servers import MissingProgram, Server, dsn_url, pgbouncer_server, postgres_server
from todo_service import create_app
from todo_service.db import engine
from todo_service.db.prepared import SENT_BEFORE

pytestmark = pytest.mark.timed

# neon.com/docs/connect/connection-pooling: 0.25 CU.
MAX_CONNECTIONS, RESERVED = 104, 7
POOL, CLIENTS, PATIENCE = MAX_CONNECTIONS * 9 // 10, 10_000, 120
BURST = 40


@dataclass
class Neon:
    """A compute and its pooler. `owner`: the owner's direct address; `direct`, `pooled`: those of `todo_service`."""

    server: Server
    pool: Server
    owner: str
    direct: str
    pooled: str

    def pools(self) -> dict[str, int]:
        """How many connections of the service's role are in which state, as the pooler's console has it."""
        console = psycopg2.connect(dsn_url(parse_dsn(self.pool.dsn) | {"dbname": "pgbouncer"}))
        console.autocommit = True
        with closing(console), console.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute("SHOW POOLS")
            return next(dict(row) for row in cursor.fetchall() if row["user"] == "todo_service")

    def suspend_and_resume(self) -> None:
        """All that a compute has goes, its pooler too."""
        for part in (self.pool, self.server):
            part.stop()
        for part in (self.server, self.pool):
            part.start()


@pytest.fixture(scope="module")
def neon() -> Iterator[Neon]:
    """The page's commands have been run."""
    password = token_hex(24)
    try:
        with ExitStack() as stack:
            limits = {"max_connections": MAX_CONNECTIONS, "superuser_reserved_connections": RESERVED}
            server = stack.enter_context(postgres_server(**limits))
            # A superuser: PostgreSQL 15 lets nobody else give BYPASSRLS away.
            run_sql(server.dsn, f"CREATE ROLE neondb_owner SUPERUSER LOGIN PASSWORD '{password}'")
            run_sql(server.dsn, "CREATE DATABASE neondb OWNER neondb_owner")
            pool = pgbouncer_server(server.dsn, POOL, max_client_conn=CLIENTS, query_wait_timeout=PATIENCE)
            pool_server = stack.enter_context(pool)
            account = {"dbname": "neondb", "password": password, "sslmode": "require"}
            service = account | {"user": "todo_service"}
            made = Neon(
                server,
                pool_server,
                dsn_url(parse_dsn(server.dsn) | account | {"user": "neondb_owner", "channel_binding": "require"}),
                dsn_url(parse_dsn(server.dsn) | service),
                dsn_url(parse_dsn(pool_server.dsn) | service),
            )
            (block,) = commands("neon.md")
            addresses = {"OWNERS_DIRECT_URL": made.owner, "POOLED_URL": made.pooled, "SERVICE_PASSWORD": password}
            assert "FAILED" not in shell(block, addresses)
            yield made
    except MissingProgram as missing:
        pytest.skip(str(missing))


@contextmanager
def serving(url: str, **changes: int) -> Iterator[Flask]:
    app = create_app(settings_for(url, **changes))
    yield app
    app.extensions["engine"].dispose()


def with_binding(url: str, binding: str) -> str:
    return dsn_url(parse_dsn(url) | {"channel_binding": binding})


def test_channel_binding_goes_directly(neon: Neon) -> None:
    done = run(with_binding(neon.direct, "require"), "check")
    assert done.returncode == 0, done.stdout
    in_the_open = dsn_url(parse_dsn(neon.direct) | {"sslmode": "disable"})
    assert "cannot be reached" in run(in_the_open, "check").stdout


def test_channel_binding_that_the_pooler_does_not_offer_is_named(neon: Neon) -> None:
    """By the command, by readiness's reason in the log, and what to do instead works."""
    required = with_binding(neon.pooled, "require")
    said = "did not offer an authentication method that supports channel binding"
    done = run(required, "check")
    assert done.returncode == 1
    assert [said in line for line in done.stdout.splitlines()].count(True) == 3
    with Service(required, SECRET, probe="/health/live") as service, Connection(service.url) as probe:
        assert probe.request("GET", "/health/ready").status == 503
        assert said in service.log
    assert run(with_binding(neon.pooled, "prefer"), "check").returncode == 0


def take_all(neon: Neon, others: ExitStack) -> list[psycopg2.extensions.connection]:
    """Transactions on all connections that the pooler may have to the database."""
    busy = [others.enter_context(closing(psycopg2.connect(neon.pooled))) for _ in range(POOL)]
    for connection in busy:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    assert neon.pools()["sv_active"] == POOL
    return busy


def test_a_burst_waits_in_the_pooler(neon: Neon) -> None:
    """While all connections that it may have are busy with what others do."""
    with ExitStack() as others, serving(neon.pooled, pool_size=BURST) as app, ThreadPoolExecutor(BURST) as threads:
        user_of(app, "early").create()
        busy = take_all(neon, others)
        users = [user_of(app, f"user-{number}") for number in range(BURST)]
        answers = [threads.submit(user.post, "/api/tasks", json={"title": "one"}) for user in users]
        wait_for(lambda: neon.pools()["cl_waiting"] == BURST, "they do not all wait")
        assert not any(answer.done() for answer in answers)
        for connection in busy:
            connection.rollback()
        assert [answer.result().status_code for answer in answers] == [201] * BURST
        assert neon.pools()["sv_active"] + neon.pools()["sv_idle"] <= POOL


def test_who_waits_for_the_pooler_in_vain_is_told_so_soon(neon: Neon) -> None:
    """By the service's own deadline; Neon's is 120 s."""
    with ExitStack() as others, serving(neon.pooled) as app:
        user = user_of(app, "alice")
        user.create("before")
        take_all(neon, others)
        refused = user.post("/api/tasks", json={"title": "after"})
        assert "did not answer in time" in assert_problem(refused, 503)["detail"]
        assert refused.headers["Retry-After"]
    with serving(neon.pooled) as app:
        assert User(user.id, app.test_client(), user.token).titles() == ["before"]


def test_the_first_request_after_a_pause_meets_no_error(neon: Neon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IDLE", 0)
    with serving(neon.pooled) as app:
        user = user_of(app, "alice")
        user.create("before")
        neon.suspend_and_resume()
        user.create("after")
        assert user.titles() == ["after", "before"]


def test_a_restart_amid_requests_costs_a_connection_one_clear_error_at_most(neon: Neon) -> None:
    size = 8
    with serving(neon.pooled, pool_size=size) as app, ThreadPoolExecutor(size) as threads:
        user = user_of(app, "alice")
        create = partial(try_to_create, user)
        assert list(threads.map(create, range(size))) == [201] * size
        neon.suspend_and_resume()
        statuses = [create(number) for number in range(2 * size)]
        assert statuses.count(503) <= size
        assert set(statuses) <= {201, 503}
        assert statuses[-1] == 201


def try_to_create(user: User, number: int) -> int:
    answer = again(user).post("/api/tasks", json={"title": f"{number}"})
    if answer.status_code != 201:
        assert "connection to the database was lost" in assert_problem(answer, 503)["detail"]
    status: int = answer.status_code
    return status


def test_killed_server_connections_lose_nothing_that_was_acknowledged(neon: Neon) -> None:
    """Each kill costs at most what was under way on it; with statements that are prepared on some of them only."""
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'todo_service'"
    killed = 0
    with Service(neon.pooled, SECRET, RATELIMIT_DEFAULT="1000000/minute") as service:
        clients = writers(8, service.url)
        with writing(clients):
            for _ in range(5):
                killed += len(run_sql(neon.owner, kill))
                wait_for_more(clients)
    errors = [attempt.error for attempt in clients[0].attempts if attempt.error]
    assert len(errors) <= killed
    assert set(errors) <= {"503", "409"}
    assert audit(neon.owner, [client.ledger for client in clients]) == ([], [])


def test_a_name_that_only_one_server_connection_knows(neon: Neon) -> None:
    names = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'todo\\_%'"
    with serving(neon.pooled, pool_size=1) as app:
        user = user_of(app, "alice")
        path = f"/api/tasks/{user.create()['id']}"
        run_sql(neon.owner, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'todo_service'")
        wait_for(lambda: neon.pools()["sv_idle"] == 0, "connections are left")
        for _ in range(SENT_BEFORE + 2):
            assert user.get(path).status_code == 200
        assert run_sql(neon.pooled, names) == [(1,)]
        with psycopg2.connect(neon.pooled) as other, other.cursor() as cursor:
            # It has the one that knows; the next message gets a new one.
            cursor.execute(names)
            assert cursor.fetchone() == (1,)
            assert [user.get(path).status_code for _ in range(3)] == [200] * 3
