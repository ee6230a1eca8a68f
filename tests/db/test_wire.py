"""The test equipment itself: the servers of `tests.support.servers` and the proxy of `tests.support.wire`."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extensions import parse_dsn

from tests.support import servers
from tests.support.servers import MissingProgram, Server, dsn_url, pgbouncer_server, postgres_server
from tests.support.wire import Wire
from todo_service.db import deadlines

AS_ALICE = "SET LOCAL ROLE wire_reader; SET LOCAL app.user_id = 'alice'; SELECT current_user, {setting}"
WHO = "SELECT current_user, {setting}"
SETTING = "current_setting('app.user_id', true)"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    try:
        with postgres_server() as running:
            query(running.dsn, "CREATE ROLE wire_reader LOGIN PASSWORD 'reader'")
            yield running
    except MissingProgram as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pool(server: Server) -> Iterator[Server]:
    try:
        with pgbouncer_server(server.dsn, pool_size=1) as running:
            yield running
    except MissingProgram as error:
        pytest.skip(str(error))


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.dsn) as running:
        yield running


def connect(dsn: str) -> Any:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    return connection


def fetch(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def query(dsn: str, sql: str) -> Any:
    connection = connect(dsn)
    try:
        return fetch(connection, sql)
    finally:
        connection.close()


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def is_running(pid: int) -> bool:
    try:
        # A process nobody has waited for yet is listed, too, in state Z.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# The proxy


def test_counts_one_query_per_execute(wire: Wire) -> None:
    connection = connect(wire.dsn())
    assert wire.queries == []
    fetch(connection, "SELECT 1")
    assert fetch(connection, "SELECT 'größer'") == [("größer",)]
    assert wire.queries == ["SELECT 1", "SELECT 'größer'"]
    wire.reset()
    assert wire.queries == []


def test_counts_the_begin_and_commit_that_psycopg2_adds(wire: Wire) -> None:
    with psycopg2.connect(wire.dsn()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert wire.queries == ["BEGIN", "SELECT 1", "COMMIT"]


def test_counts_several_statements_in_one_text_once(wire: Wire) -> None:
    assert query(wire.dsn(), "SELECT 1; SELECT 2") == [(2,)]
    assert wire.queries == ["SELECT 1; SELECT 2"]


def test_rewrites_queries_and_keeps_what_the_client_sent(wire: Wire) -> None:
    wire.rewrite = lambda sql: sql.replace("1", "'more than one character'")
    assert query(wire.dsn(), "SELECT 1") == [("more than one character",)]
    assert wire.queries == ["SELECT 1"]


def test_passes_large_queries_and_results(wire: Wire) -> None:
    text = "x" * 5_000_000
    assert query(wire.dsn(), f"SELECT repeat('{text}', 3)") == [(text * 3,)]


def test_passes_errors(wire: Wire) -> None:
    connection = connect(wire.dsn())
    with pytest.raises(psycopg2.errors.DivisionByZero):
        fetch(connection, "SELECT 1/0")
    assert fetch(connection, "SELECT 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        connect(wire.dsn("no_such_database"))


def test_passes_cancel_requests(wire: Wire) -> None:
    # In a process of its own, because cancel() keeps the interpreter lock while it waits for the proxy.
    program = (
        "import psycopg2, sys, threading; c = psycopg2.connect(sys.argv[1]); threading.Timer(0.3, c.cancel).start();"
        "c.cursor().execute('SELECT pg_sleep(30)')"
    )
    done = subprocess.run([sys.executable, "-c", program, wire.dsn()], stderr=subprocess.PIPE, text=True, timeout=20)
    assert "QueryCanceled" in done.stderr


def test_serves_many_connections_at_once(wire: Wire) -> None:
    sleep = "SELECT pg_sleep(0.3), 1"
    started = [in_background(partial(fetch, connect(wire.dsn()), sleep)) for _ in range(20)]
    for thread, results in started:
        thread.join(10)
        assert results == [[("", 1)]]
    assert len(wire.queries) == 20


def test_declines_tls_of_clients_that_would_like_it(wire: Wire) -> None:
    preferring = wire.dsn().replace("sslmode=disable", "sslmode=prefer")
    assert query(preferring, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]


def test_dsn_keeps_other_parameters() -> None:
    with Wire("postgresql://u%40:p%2F@db.example/one?sslmode=require&application_name=a%20b&port=7") as wire:
        kept = {"user": "u@", "password": "p/", "application_name": "a b"}
        own = {"host": "127.0.0.1", "port": str(wire.port), "sslmode": "disable"}
        assert parse_dsn(wire.dsn()) == kept | own | {"dbname": "one"}
        assert parse_dsn(wire.dsn("two")) == kept | own | {"dbname": "two"}


def test_hold_and_release(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(wire.dsn())
    wire.hold()
    thread, results = in_background(lambda: fetch(connection, "SELECT 1"))
    thread.join(0.5)
    assert thread.is_alive()
    monkeypatch.setattr(deadlines, "CONNECT_SECONDS", 0.5)
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(wire.dsn())
    wire.release()
    thread.join(10)
    assert results == [[(1,)]]


def test_held_replies_are_those_of_queries_that_were_done(wire: Wire, server: Server) -> None:
    connection = connect(wire.dsn())
    wire.hold_replies()
    thread, results = in_background(lambda: fetch(connection, "CREATE TABLE done_unseen ()"))
    deadline = time.monotonic() + 10
    while query(server.dsn, "SELECT to_regclass('done_unseen')") == [(None,)]:
        assert time.monotonic() < deadline
    assert thread.is_alive()
    wire.release()
    thread.join(10)
    assert results == [None]


def test_delay_counts_for_each_query(wire: Wire) -> None:
    connection = connect(wire.dsn())
    wire.delay = 0.2
    start = time.monotonic()
    fetch(connection, "SELECT 1")
    fetch(connection, "SELECT 1")
    assert 0.4 <= time.monotonic() - start < 2


@pytest.mark.parametrize("held", [False, True])
def test_cut_breaks_connections_but_not_the_proxy(wire: Wire, held: bool) -> None:
    connection = connect(wire.dsn())
    if held:
        wire.hold()
    wire.cut()
    with pytest.raises(psycopg2.OperationalError):
        fetch(connection, "SELECT 1")
    assert connection.closed
    wire.release()
    assert query(wire.dsn(), "SELECT 1") == [(1,)]


def test_cut_during_a_query(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    connection = connect(wire.dsn())
    timer = threading.Timer(0.3, wire.cut)
    timer.start()
    with pytest.raises(psycopg2.OperationalError):
        fetch(connection, "SELECT pg_sleep(30)")
    timer.join()
    assert caplog.records == []


def test_close_ends_the_thread_and_may_be_repeated(wire: Wire) -> None:
    connection = connect(wire.dsn())
    wire.hold()
    wire.close()
    wire.close()
    with pytest.raises(psycopg2.OperationalError):
        fetch(connection, "SELECT 1")
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(wire.dsn())


# The servers


@pytest.mark.parametrize("behind", ["server", "pool"])
def test_local_settings_take_one_round_trip_and_leave_nothing(request: pytest.FixtureRequest, behind: str) -> None:
    with Wire(request.getfixturevalue(behind).dsn) as wire:
        connection = connect(wire.dsn())
        assert fetch(connection, AS_ALICE.format(setting=SETTING)) == [("wire_reader", "alice")]
        assert len(wire.queries) == 1
        # A setting once known to the backend is empty rather than NULL afterwards.
        assert fetch(connection, WHO.format(setting=SETTING)) == [("postgres", "")]


def test_postgres_refuses_plain_connections(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        connect(server.dsn.replace("sslmode=require", "sslmode=disable"))


def test_pgbouncer_refuses_plain_connections_and_startup_parameters(pool: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="SSL required"):
        connect(pool.dsn.replace("sslmode=require", "sslmode=disable"))
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        connect(pool.dsn + "&options=-c%20statement_timeout%3D1s")


def test_pgbouncer_admits_roles_made_later(pool: Server) -> None:
    reader = dsn_url({**parse_dsn(pool.dsn), "user": "wire_reader", "password": "reader"})
    assert query(reader, "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [
        ("wire_reader", True)
    ]
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        connect(reader.replace("reader@", "wrong@"))


def test_pgbouncer_shares_one_backend_between_transactions(pool: Server) -> None:
    first, second = connect(pool.dsn), connect(pool.dsn)
    assert fetch(first, "SELECT pg_backend_pid()") == fetch(second, "SELECT pg_backend_pid()")


def test_postgres_restarts_behind_pgbouncer(server: Server, pool: Server) -> None:
    query(server.dsn, "CREATE TABLE kept AS SELECT 1 AS one")
    idle, busy = connect(pool.dsn), connect(pool.dsn)
    fetch(busy, "BEGIN")
    server.restart()
    with pytest.raises(psycopg2.OperationalError):
        fetch(busy, "TABLE kept")
    # A client between two transactions does not notice: it gets another backend.
    assert fetch(idle, "TABLE kept") == [(1,)]


def test_pgbouncer_starts_without_postgres(server: Server, pool: Server) -> None:
    server.stop()
    pool.restart()
    server.start()
    assert query(pool.dsn, "SELECT 1") == [(1,)]


def test_missing_programs_name_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match="Debian package: openssl"):
        servers._program("openssl", "openssl")


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_command_line_leaves_no_server_behind(server: Server, asked: signal.Signals) -> None:
    # The command prints the server's pid and log folder, then waits to be ended.
    report = (
        "import os, psycopg2, sys, time; c = psycopg2.connect(os.environ['TEST_DATABASE_URL']).cursor();"
        "c.execute(\"SELECT current_setting('data_directory')\"); folder = c.fetchone()[0];"
        "c.execute(\"SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)\");"
        "print(c.fetchone()[0], folder, os.getpid(), flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-m", "tests.support.servers", "postgres", "--", sys.executable, "-c", report]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        server_pid, folder, command_pid = running.stdout.readline().split()
        running.send_signal(asked)
        if asked == signal.SIGKILL:  # the one signal that could not be passed on
            os.kill(int(command_pid), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (is_running(int(server_pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(int(server_pid))
    assert not Path(folder).exists()
    assert running.returncode == (-asked if asked == signal.SIGKILL else {15: 143, 2: 130}[asked])


def test_command_line_gives_the_exit_code_of_its_command(server: Server) -> None:
    argv = [
        sys.executable,
        "-m",
        "tests.support.servers",
        "postgres",
        "--",
        "sh",
        "-c",
        'test -n "$TEST_DATABASE_URL"; exit 7',
    ]
    assert subprocess.run(argv).returncode == 7
