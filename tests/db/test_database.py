"""The schema and the way to it: migrations, two at once; connections that die; a database that can't be reached."""

import json
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from tests.conftest import User, again, assert_problem, run_sql, settings_for, token, user_of, wait_for
from tests.http.test_conditions import at_once
from tests.http.test_idempotency import KILL
from tests.support.servers import free_port
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.db import deadlines
from todo_service.db import engine as db
from todo_service.db import session as sessions
from todo_service.db.models import CARRIED, MAX_TITLE, Base
from todo_service.http.tokens.authenticator import MAX_SUBJECT
from todo_service.tasks import retention


# SQLAlchemy reads a check that is NOT VALID with an option that it doesn't know itself; it isn't compared either way.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
def test_migrations_make_what_the_models_say(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_index_in_the_default_order_carries_what_lists_are_sorted_by_and_counted(database_url: str) -> None:
    """The comparison of the models with the migrations doesn't look at it."""
    carried = run_sql(
        database_url,
        """SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid
           WHERE i.indexrelid = 'tasks_by_creation'::regclass AND a.attnum > i.indnkeyatts ORDER BY a.attnum""",
    )
    assert [name for (name,) in carried] == CARRIED


@pytest.mark.parametrize(
    "longest",
    [
        [
            *"\U0001d15f\U0001d160\U0001d161\U0001d162\U0001d163\U0001d164\U0001d1bb\U0001d1bc\U0001d1bd\U0001d1be\U0001d1bf"
        ],
        [chr(code) for code in range(0x1F80, 0x1FB0)],
        [chr(code) for code in range(0x20000, 0x2A6D0)],
    ],
    ids=["twelve bytes when folded", "many that grow", "four bytes that nothing compresses"],
)
def test_an_entry_of_the_widest_index_has_room_for_the_longest_values(app: Flask, longest: list[str]) -> None:
    """An entry has 2704 bytes at most, compressed."""
    draw = random.Random(longest[0])
    title = "".join(draw.choices(longest, k=MAX_TITLE))
    name = "".join(chr(draw.randrange(0x20000, 0x2A6D0)) for _ in range(MAX_SUBJECT))
    user = User(name, app.test_client(), token(name))
    assert user.create(title, due_date="2026-01-01")["title"] == title
    assert user.titles("?sort=title") == [title]


def test_user_id_leads_every_index_but_three(database_url: str) -> None:
    """One tells another user's task (403) from none (404), two find what the purge removes; none is unique."""
    indexes = run_sql(
        database_url,
        """SELECT c.relname, a.attname, i.indisunique FROM pg_index i
           JOIN pg_class c ON c.oid = i.indexrelid
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
           WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'alembic%%'""",
        {},
    )
    assert len(indexes) >= 9
    others = {name: unique for name, column, unique in indexes if column != "user_id"}
    assert others == dict.fromkeys(("tasks_by_id", "answers_by_age", "tombstones_by_age"), False)


def test_the_purge_reads_little_where_there_is_nothing_to_remove(make_database: Callable[[], str]) -> None:
    url = make_database()
    cli.upgrade(url)
    fill = """
        INSERT INTO owners (user_id) SELECT n::text FROM generate_series(1, 1000) AS n;
        INSERT INTO tombstones SELECT (n % 1000)::text, gen_random_uuid(), n FROM generate_series(1, 30000) AS n;
        INSERT INTO answers SELECT (n % 1000)::text, n::text, '', 201, '{}', '' FROM generate_series(1, 30000) AS n;
        INSERT INTO tasks (user_id, id, title, title_key, position, version, deleted_at)
        SELECT (n % 1000)::text, gen_random_uuid(), 't', 't', n, n, CASE n % 300 WHEN 0 THEN now() END
        FROM generate_series(1, 30000) AS n;
        ANALYZE"""
    run_sql(url, fill)
    of_owner = (retention.PURGE_TRASH, retention.DROP_TOMBSTONES)
    finding = (retention.OWNERS_OF_TRASH, retention.OWNERS_OF_TOMBSTONES, retention.OLDEST_ANSWERS, retention.DUE)
    for step in (*finding, *of_owner, retention.DROP_ANSWERS):
        sql = step.compile(dialect=PGDialect_psycopg2())  # type: ignore[no-untyped-call]
        values = sql.params | retention.ages() | {"until": datetime(2000, 1, 1, tzinfo=UTC), "owner": "7", "busy": []}
        [[[explained]]] = run_sql(url, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {sql}", values)
        plan = explained["Plan"]
        # Each of the tables has hundreds.
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50, plan


def test_migrating_twice_at_once_applies_each_migration_once(make_database: Callable[[], str]) -> None:
    url = make_database()
    problems: list[BaseException] = []

    def migrate() -> None:
        try:
            cli.upgrade(url)
        except BaseException as problem:
            problems.append(problem)

    # alembic keeps its context in a module, so the two need processes of their own.
    import multiprocessing

    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=cli.upgrade, args=(url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(run_sql(url, "SELECT version_num FROM alembic_version")) == 1
    assert user_of(create_app(settings_for(url)), "alice").create()["version"] == 1
    migrate()
    assert problems == []


def test_a_whole_pool_that_died_while_it_was_idle(database_url: str) -> None:
    """As on a failover: no reader notices, and no writer but the first."""
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=3)), "carol")
        path = f"/api/tasks/{user.create()['id']}"
        for _ in range(2):
            at_once(6, lambda _: again(user).get("/api/tasks"))
            wire.cut()
            assert [user.get("/api/tasks").status_code for _ in range(6)] == [200] * 6
        at_once(6, lambda _: again(user).get("/api/tasks"))
        wire.cut()
        statuses = [user.patch(path, json={"title": f"{number}"}).status_code for number in range(6)]
        assert statuses == [503] + [200] * 5
        assert user.titles() == ["5"]


@pytest.mark.parametrize(("kills", "status", "messages"), [(1, 200, 2), (2, 503, 2)])
def test_a_read_whose_backend_is_killed_is_tried_once_more(
    database_url: str, kills: int, status: int, messages: int
) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        user.create()
        wire.reset()
        wire.rewrite = lambda _: KILL if len(wire.queries) <= kills else wire.queries[-1]
        assert user.get("/api/tasks").status_code == status
        assert len(wire.queries) == messages


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"title": "x"}),
        ("PATCH", "/{id}", {"title": "x"}),
        ("PATCH", "/{id}/complete", {"completed": True}),
        ("DELETE", "/{id}?permanent=true", None),
        ("DELETE", "?status=all", None),
        ("POST", "/batch", {"operations": [{"op": "create", "task": {"title": "x"}}, {"op": "delete", "id": "{id}"}]}),
    ],
)
def test_a_change_whose_backend_is_killed_is_half_of_nothing(
    database_url: str, method: str, path: str, body: Any
) -> None:
    """After the change, before its end: 503, and all is as before; the same request may then be sent again."""
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        task = user.create()
        before = user.get("/api/tasks/changes").json
        path, body = path.replace("{id}", task["id"]), json.loads(json.dumps(body).replace("{id}", task["id"]))
        # At the end of the message with the change, be that a transaction by itself or a part of one.
        wire.rewrite = lambda sql: f"{sql}; {KILL}" if writes(sql) else sql
        response = user.request(method, f"/api/tasks{path}", json=body)
        assert_problem(response, 503, "unavailable")
        assert response.headers["Retry-After"] == "2"
        wire.rewrite = None
        assert user.get("/api/tasks/changes").json == before
        assert user.request(method, f"/api/tasks{path}", json=body).status_code in (200, 201)
        assert user.get("/api/tasks/changes").json != before


def writes(sql: str) -> bool:
    return re.search("INSERT INTO tasks|UPDATE tasks|DELETE FROM tasks", sql) is not None


def test_a_read_survives_the_death_of_its_connection(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        task = user.create()
        wire.cut()
        assert user.get("/api/tasks").json == [task]


def test_a_write_on_a_dead_connection_says_so_and_can_be_repeated(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        user.create("one")
        wire.cut()
        response = user.post("/api/tasks", json={"title": "two"})
        assert_problem(response, 503, "unavailable")
        assert response.headers["Retry-After"] == "2"
        user.create("two")
        assert user.titles() == ["two", "one"]


BATCH = {"operations": [{"op": "create", "task": {"title": title}} for title in ("two", "three")]}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key-1"}])
def test_a_transaction_whose_client_is_silent_does_not_keep_its_locks(
    alice: User, database_url: str, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """As if the machine had vanished between two messages: others wait for it no longer than PostgreSQL does."""
    monkeypatch.setattr(sessions, "KEEP", "SET LOCAL idle_in_transaction_session_timeout = 200; ")
    alice.create("one")
    with Wire(database_url) as wire, ThreadPoolExecutor(1) as pool:
        silent = User(alice.id, create_app(settings_for(wire.dsn(), pool_size=1)).test_client(), alice.token)
        locked = threading.Event()

        def silence_before_saving(sql: str) -> str:
            if "jsonb_to_recordset" in sql:
                wire.delay = 3
                locked.set()
            return sql

        wire.rewrite = silence_before_saving
        answer = pool.submit(silent.post, "/api/tasks/batch", json=BATCH, headers=headers)
        assert locked.wait(20)
        alice.create("four")
        assert_problem(answer.result(), 503, "unavailable")
    assert alice.titles() == ["four", "one"]


def test_an_idle_connection_is_tried_before_it_is_used(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "IDLE", 0)
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        user.create("one")
        wire.cut()
        assert user.post("/api/tasks", json={"title": "two"}).status_code == 201


def test_a_database_that_refuses(app: object) -> None:
    broken = create_app(settings_for(f"postgresql://127.0.0.1:{free_port()}/nothing"))
    user = user_of(broken, "carol")
    for method, path in (("GET", "/api/tasks"), ("POST", "/api/tasks"), ("GET", "/health/ready")):
        response = user.request(method, path, json={"title": "x"})
        assert "127.0.0.1" not in assert_problem(response, 503, "unavailable")["detail"]
        assert response.headers["Retry-After"] == "2"
    assert user.get("/health/live").status_code == 200
    # Nobody without a valid token gets as far as the database.
    assert_problem(broken.test_client().get("/api/tasks"), 401)


def test_a_full_pool(alice: User, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "CHECKOUT", 0.2)
    app = create_app(settings_for(database_url, pool_size=1))
    user = user_of(app, "carol")
    with app.app_context():
        held = app.extensions["engine"].pool.connect()
        for method, path in (("GET", "/api/tasks"), ("POST", "/api/tasks"), ("GET", "/health/ready")):
            response = user.request(method, path, json={"title": "x"})
            assert "busy" in assert_problem(response, 503, "unavailable")["detail"]
            assert response.headers["Retry-After"] == "2"
        assert user.get("/health/live").status_code == 200
        held.close()
    assert user.get("/api/tasks").json == []


def test_a_lock_that_is_held(alice: User, database_url: str) -> None:
    """Given up after the lock deadline, and nothing has changed."""
    task = alice.create()
    holder = psycopg2.connect(database_url)
    with holder.cursor() as cursor:
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        began = time.monotonic()
        response = alice.patch(f"/api/tasks/{task['id']}", json={"title": "x"})
        assert time.monotonic() - began < 3
    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "2"
    holder.rollback()
    holder.close()
    assert alice.get("/api/tasks").json == [task]


def test_one_users_changes_leave_connections_to_the_others(database_url: str) -> None:
    """However many of them wait for each other."""
    app = create_app(settings_for(database_url, pool_size=2))
    alice, bob = user_of(app, "alice"), user_of(app, "bob")
    alice.create("one")
    with psycopg2.connect(database_url) as other, other.cursor() as cursor, ThreadPoolExecutor(4) as pool:
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        answers = [pool.submit(alice.post, "/api/tasks", json={"title": "two"}) for _ in range(4)]
        wait_for(app.extensions["engine"].pool.checkedout, "no change is under way")
        assert bob.get("/api/tasks").json == []
        assert not any(answer.done() for answer in answers)
        problems = {assert_problem(answer.result(), answer.result().status_code)["code"] for answer in answers}
        assert problems == {"unavailable", "too-many-at-once"}
        assert all(int(answer.result().headers["Retry-After"]) > 0 for answer in answers)
    assert alice.titles() == ["one"]


def test_a_statement_that_takes_too_long(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        wire.rewrite = lambda sql: sql.replace("SELECT page.user_id", "SELECT pg_sleep(60), page.user_id")
        began = time.monotonic()
        response = user.get("/api/tasks")
        assert time.monotonic() - began < 4
    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "2"


def test_deadlines_lie_within_each_other() -> None:
    """A lock, a statement, its answer in 5 s, a connection, a request in 15 s: each is given up before the next."""
    assert sessions.LOCK < sessions.STATEMENT < sessions.ANSWER < 5
    assert db.CHECKOUT < deadlines.CONNECT_SECONDS
    assert deadlines.CONNECT_SECONDS + sessions.ANSWER < 15


def test_a_database_that_takes_no_changes(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        user.create()
        wire.rewrite = lambda sql: sql.replace("SET LOCAL ROLE", "SET LOCAL transaction_read_only = on; SET LOCAL ROLE")
        assert user.get("/api/tasks").status_code == 200
        assert "no changes" in assert_problem(user.post("/api/tasks", json={"title": "x"}), 503)["detail"]


def test_threads_do_not_share_connections(alice: User) -> None:
    """More threads than connections: they wait for one another, none fails."""
    statuses: list[int] = []

    def work() -> None:
        user = again(alice)
        statuses.extend(user.get("/api/tasks").status_code for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 240


def test_a_network_that_holds_everything_back(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given up at the deadline, on an open connection as on a new one; all is well again when it lets go."""
    monkeypatch.setattr(sessions.Connection, "answer_seconds", 0.3)
    monkeypatch.setattr(deadlines, "CONNECT_SECONDS", 0.6)
    with Wire(database_url) as wire:
        app = create_app(settings_for(wire.dsn(), pool_size=1))
        user = user_of(app, "carol")
        user.create("one")
        wire.hold()
        for method, path in (("GET", "/api/tasks"), ("POST", "/api/tasks"), ("GET", "/health/ready")):
            response = user.request(method, path, json={"title": "two"})
            assert_problem(response, 503, "unavailable")
            assert response.headers["Retry-After"] == "2"
        assert user.get("/health/live").status_code == 200
        wire.release()
        assert "one" in user.titles()


def test_an_answer_that_is_held_back_is_not_asked_for_twice(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead connection makes a read worth repeating; one that says nothing would only keep the client waiting."""
    monkeypatch.setattr(sessions.Connection, "answer_seconds", 0.3)
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        user.create("one")
        wire.reset()
        wire.delay = 1.0
        assert "in time" in assert_problem(user.get("/api/tasks"), 503)["detail"]
        wire.delay = 0.0
        assert user.titles() == ["one"]


def test_a_database_that_takes_its_time_to_wake_up(database_url: str) -> None:
    """A serverless one takes seconds to accept a connection: the request waits, and is answered."""
    with Wire(database_url) as wire, ThreadPoolExecutor(1) as pool:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        wire.hold()
        response = pool.submit(user.post, "/api/tasks", json={"title": "one"})
        time.sleep(6)
        assert not response.done()
        wire.release()
        assert response.result().status_code == 201


def test_a_migration_has_no_deadline(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.Connection, "answer_seconds", 0.1)
    with Wire(database_url, delay=0.2) as wire:
        cli.upgrade(wire.dsn())


def test_connecting_has_a_deadline_even_where_nobody_set_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "CONNECT_SECONDS", 0.3)
    with Wire(database_url) as wire:
        wire.hold()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(wire.dsn())
        wire.release()
