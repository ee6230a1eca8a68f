"""A database of several nodes (Citus), as far as that can be tried on one: what statements look like, how they go out.

What a distributed PostgreSQL refuses was found out on a real one (docs/scaling.md); none is to be had here. So the
statements that every operation sends are held to what works there, and every operation is tried with the messages that
are sent there.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from tests.api.test_isolation import CASES, CREATED, ask
from tests.cli.test_cli import invoke
from tests.conftest import User, assert_problem, run_sql, settings_for, user_of
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.db import distribution
from todo_service.db.session import LOCK, STATEMENT, Connection, Session
from todo_service.tasks import queries, renewal, retention

TABLES = "owners|tasks|tombstones|answers"
# They look across users: whose an id is, what is too old, all tags renewed.
ACROSS_USERS = {
    "WHOSE": queries.WHOSE,
    "OWNERS_OF_TRASH": retention.OWNERS_OF_TRASH,
    "OWNERS_OF_TOMBSTONES": retention.OWNERS_OF_TOMBSTONES,
    "OLDEST_ANSWERS": retention.OLDEST_ANSWERS,
    "DROP_ANSWERS": retention.DROP_ANSWERS,
    "DUE": retention.DUE,
    "OVERDUE": retention.OVERDUE,
    "NEXT": renewal.NEXT,
    "RENEW": renewal.RENEW,
}
CHANGING = re.compile(r"\b(?:INSERT INTO|(?<!FOR )(?<!DO )UPDATE|DELETE FROM)\b")
# What is another thing each time it is called, or on each node.
VOLATILE = re.compile(
    r"\b(clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|now|random|gen_random_uuid|nextval)\s*\("
    r"|\b(current_timestamp|current_date|localtimestamp|DEFAULT)\b",
    re.IGNORECASE,
)
IMMUTABLE = {"floor", "coalesce", "greatest"}
MENTION = re.compile(rf"(INTO )?(?<![\w.])({TABLES})(?: AS (\w+))?(?![\w.])")


class Sent(NamedTuple):
    """A statement as it was sent; `first`: what goes in front of it."""

    first: str
    text: str
    parameters: dict[str, Any]


def heard(engine: Engine) -> list[Sent]:
    """What `engine` sends from now on."""
    sent: list[Sent] = []

    @event.listens_for(engine, "before_cursor_execute")
    def hear(_connection: Any, _cursor: Any, _text: str, parameters: Any, context: Any, _many: bool) -> None:
        sent.append(Sent(context.execution_options.get("first", ""), context.statement, dict(parameters)))

    return sent


def every_operation(user: User, other: User) -> None:
    """Each of the document's, and what it does otherwise where something is given or there."""
    for case in CASES:
        task = user.create(checklist=[{"title": "x"}])
        assert ask(user, case, task["id"]).status_code == (201 if case in CREATED else 200)
    for number, (method, path, body, status) in enumerate(others(user)):
        for headers in ({}, {"Idempotency-Key": f"{number}"}) if method == "POST" else ({},):
            assert user.request(method, path, json=body, headers=headers).status_code in status, (method, path)
    task = other.create()
    assert user.get(f"/api/tasks/{task['id']}").status_code == 403
    assert user.post(f"/api/tasks/{uuid4()}/restore", headers={"Idempotency-Key": "absent"}).status_code == 404
    tag = user.get("/api/tasks").headers["ETag"]
    assert user.delete("/api/tasks?status=completed", headers={"If-Match": tag}).status_code == 200


def others(user: User) -> Iterator[tuple[str, str, Any, tuple[int, ...]]]:
    task, done, repeating = (
        user.create(),
        user.create(completed=True),
        user.create(due_date="2026-01-01", recurrence="daily"),
    )
    path, again = f"/api/tasks/{task['id']}", f"/api/tasks/{repeating['id']}"
    named = str(uuid4())
    yield "POST", "/api/tasks", {"title": "x", "id": named}, (201, 409)
    yield "POST", "/api/tasks", {"title": "x", "id": str(uuid4()), "position": 1}, (201, 409)
    yield "POST", "/api/tasks/import", {"tasks": [{"title": "x", "id": named}, {"title": "y"}]}, (200,)
    for query in (
        "search=x&count=true",
        "sort=title&offset=1",
        "overdue=true&tz=Asia/Tokyo",
        "deleted=true",
        "tag=x&category=y",
    ):
        yield "GET", f"/api/tasks?{query}", None, (200,)
    for form in ("json", "csv", "ics"):
        yield "GET", f"/api/tasks/export?format={form}", None, (200,)
    yield "PATCH", path, {"title": "y", "completed": True, "position": 1}, (200,)
    yield "PATCH", path, {"tags": ["x"], "completed": False}, (200,)
    yield "PATCH", f"{path}/complete", None, (200,)
    yield "PATCH", f"{again}/complete", {"completed": True}, (200,)
    yield "PATCH", f"{again}/complete", {"completed": False}, (200,)
    yield "POST", f"{path}/move", {"after": done["id"]}, (200,)
    many = [{"op": "create", "task": {"title": "x"}}, {"op": "complete", "id": repeating["id"]}]
    many += [{"op": "delete", "id": done["id"], "permanent": True}]
    yield "POST", "/api/tasks/batch", {"operations": many[:2]}, (200,)
    yield "POST", "/api/tasks/batch", {"operations": many}, (200, 404)
    yield "DELETE", path, None, (200,)
    for _ in range(2):
        yield "POST", f"{path}/restore", None, (200,)
    yield "DELETE", f"{path}?permanent=true", None, (200,)


def commands(app: Flask, url: str, user: User) -> None:
    """Each that has something to do with what is stored."""
    user.delete(f"/api/tasks/{user.create()['id']}")
    user.delete(f"/api/tasks/{user.create()['id']}?permanent=true")
    long_ago = "UPDATE {} SET {} = '2000-01-01Z' WHERE user_id = %(user)s AND {} IS NOT NULL"
    for table, column in (("tasks", "deleted_at"), ("tombstones", "purged_at"), ("answers", "created_at")):
        run_sql(url, long_ago.format(table, column, column), {"user": user.id})
    said = invoke(app, "purge")
    assert "left" not in said
    assert not re.search(r"\b0 ", said)
    for command in (["renew"], ["user", user.id], ["export-user", user.id], ["check"], ["forget", "--yes", user.id]):
        invoke(app, *command)


@pytest.fixture(scope="module")
def own_url(make_database: Callable[[], str]) -> str:
    """A database that has nothing else in it."""
    url = make_database()
    cli.upgrade(url)
    return url


@pytest.fixture(scope="module")
def sent(own_url: str) -> tuple[Engine, list[Sent]]:
    app = create_app(settings_for(own_url))
    engine = app.extensions["engine"]
    heard_of = heard(engine)
    user = user_of(app, "carol")
    every_operation(user, user_of(app, "mallory"))
    commands(app, own_url, user)
    return engine, heard_of


def test_enough_was_heard(sent: tuple[Engine, list[Sent]]) -> None:
    texts = {one.text for one in sent[1]}
    assert len([text for text in texts if CHANGING.search(text)]) > 20
    assert len([text for text in texts if "DO UPDATE" in text]) >= 4
    known = {str(statement.compile(sent[0])) for statement in ACROSS_USERS.values()}
    assert len(known - texts) <= 1, "all but what only Prometheus asks for"


def test_no_change_calls_what_differs_from_call_to_call(sent: tuple[Engine, list[Sent]]) -> None:
    for one in sent[1]:
        for part in (one.first, one.text):
            assert not (CHANGING.search(part) and VOLATILE.search(part)), part


def upserted(text: str) -> str:
    """What `text` has in front of the RETURNING, or the parenthesis, that ends it."""
    depth = 0
    for part in re.finditer(r"[()]|\bRETURNING\b", text):
        if part[0] == "RETURNING" and depth == 0:
            return text[: part.start()]
        depth += {"(": 1, ")": -1}.get(part[0], 0)
        if depth < 0:
            return text[: part.start()]
    return text


def test_what_an_upsert_sets_is_immutable_and_looks_at_nothing_else(sent: tuple[Engine, list[Sent]]) -> None:
    for one in sent[1]:
        for part in map(upserted, (one.first + one.text).split("DO UPDATE SET ")[1:]):
            assert "SELECT" not in part, one.text
            assert set(re.findall(r"(\w+)\s*\(", part)) <= IMMUTABLE, part


def test_every_table_is_asked_for_the_owners_rows(sent: tuple[Engine, list[Sent]]) -> None:
    """By `user_id = …` for each mention of a table; or by a value, where rows are inserted."""
    engine, all_sent = sent
    across = {str(statement.compile(engine)) for statement in ACROSS_USERS.values()}
    checked = 0
    for one in all_sent:
        for into, table, alias in MENTION.findall(one.text) if one.text not in across else ():
            if into:
                assert "user_id" in one.text.partition(f"INTO {table}")[2].partition(")")[0], one.text
                continue
            # Of what it is joined to, where it is.
            name = alias or table
            name = joined[1] if (joined := re.search(rf"\b{name}\.user_id = (tasks)\.user_id", one.text)) else name
            bound = re.findall(rf"\b{name}\.user_id = %\((\w+)\)s", one.text)
            assert len({one.parameters[found] for found in bound}) == 1, one.text
            checked += 1
        for _, table, _ in MENTION.findall(one.first):
            assert table == "owners"
        assert one.first.count("owners") == len(re.findall(r"user_id = %\(app|\(user_id\) VALUES \(%\(app", one.first))
    assert checked > 200


def test_locks_are_taken_on_the_rows_of_one_owner(sent: tuple[Engine, list[Sent]]) -> None:
    for one in sent[1]:
        for part in re.findall(r"SELECT[^;()]*FOR UPDATE", one.first + one.text):
            assert re.search(r"user_id = %\((?:app_user_id|owner)\)s", part), one.text


# --- How they go out ---


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every database is taken for one of several nodes."""
    monkeypatch.setattr(Connection, "distributed", True)


def test_where_there_are_nodes_the_scope_is_a_message_of_its_own(apart: None, make_database: Callable[[], str]) -> None:
    """Every operation works so; and no message that holds a SET holds anything but that."""
    url = make_database()
    cli.upgrade(url)
    with Wire(url) as wire:
        app = create_app(settings_for(wire.dsn(), pool_size=2))
        user = user_of(app, "carol")
        every_operation(user, user_of(app, "mallory"))
        commands(app, url, user)
        [asked, *messages] = [sql for sql in wire.queries if not sql.startswith(("select ", "show "))]
    assert "pg_extension" in asked
    assert len(messages) > 300
    for sql in messages:
        if "SET LOCAL" in sql:
            parts = [part.split()[0] for part in sql.rstrip("; ").split("; ")]
            assert set(parts) <= {"BEGIN", "SET"}, sql
            assert parts[0] == "BEGIN"
        assert "plan_cache_mode" not in sql
        assert not re.search(r"\b(PREPARE|EXECUTE)\b", sql)
    assert sum(sql.startswith("BEGIN") for sql in messages) == sum(sql in ("COMMIT", "ROLLBACK") for sql in messages)


@pytest.mark.parametrize(("ask_for", "trips"), [("list", 3), ("create", 3), ("update", 3), ("batch", 4), ("absent", 6)])
def test_round_trips_where_there_are_nodes(apart: None, wire: Wire, ask_for: str, trips: int) -> None:
    user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
    task = user.create()
    wire.reset()
    requests: dict[str, Callable[[], Any]] = {
        "list": lambda: user.get("/api/tasks"),
        "create": lambda: user.post("/api/tasks", json={"title": "x"}),
        "update": lambda: user.patch(f"/api/tasks/{task['id']}", json={"title": "y"}),
        "batch": lambda: user.post("/api/tasks/batch", json={"operations": [{"op": "complete", "id": task["id"]}]}),
        "absent": lambda: user.get(f"/api/tasks/{uuid4()}"),
    }
    assert requests[ask_for]().status_code == {"create": 201, "absent": 404}.get(ask_for, 200)
    assert len(wire.queries) == trips, wire.queries


def test_a_statement_that_fails_leaves_no_transaction_there(apart: None, wire: Wire, alice: User) -> None:
    """Nor its scope; and the next one is done, as where a statement is a transaction by itself."""
    alice.create()
    engine = create_app(settings_for(wire.dsn(), pool_size=1)).extensions["engine"]
    with Session(engine, alice.id) as session:
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))
        assert wire.queries[-1] == "ROLLBACK"
        assert session.execute(text("SELECT count(*) FROM tasks")).scalar_one() == 1
        assert wire.queries[-1] == "COMMIT"
        settings = "SELECT current_setting('app.user_id'), current_setting('lock_timeout'), current_user"
        assert session.execute(text(settings)).one() == (alice.id, f"{LOCK}s", "todo_app")
    with engine.connect() as connection, connection.connection.driver_connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('app.user_id', true), current_setting('statement_timeout')")
        assert cursor.fetchone() != (alice.id, f"{STATEMENT}s")
        assert not connection.connection.driver_connection.in_transaction


def test_a_connection_that_dies_between_the_messages(apart: None, wire: Wire) -> None:
    """The change was made or not; what comes next has a connection of its own."""
    user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
    user.create("before")

    def kill(sql: str) -> str:
        return "SET LOCAL ROLE NONE; SELECT pg_terminate_backend(pg_backend_pid())" if sql.startswith(killed) else sql

    for killed in ("BEGIN", "WITH bump", "COMMIT"):
        wire.rewrite = kill
        assert "was lost" in assert_problem(user.post("/api/tasks", json={"title": killed}), 503)["detail"]
        wire.rewrite = None
        assert user.titles() == ["before"]


def test_the_second_wall_holds_there_too(apart: None, wire: Wire, alice: User) -> None:
    """Without the owner's filter, row-level security shows and changes nothing foreign."""
    mallory = user_of(create_app(settings_for(wire.dsn())), "mallory")
    theirs, own = alice.create("Alice's"), mallory.create("Mallory's")
    pulled: list[str] = []

    def without_filter(sql: str) -> str:
        if sql.startswith("BEGIN") or "ORDER BY tasks.user_id" in sql:
            return sql
        pulled.extend(re.findall(r"tasks\.user_id = '", sql))
        return re.sub(rf"\b(tasks|owners)\.user_id = '{mallory.id}'", "true", sql)

    wire.rewrite = without_filter
    assert mallory.titles() == ["Mallory's"]
    path = f"/api/tasks/{theirs['id']}"
    for method, body in (("GET", None), ("PATCH", {"title": "stolen"}), ("DELETE", None)):
        assert mallory.request(method, path, json=body).status_code == 403
    assert mallory.patch(f"/api/tasks/{own['id']}", json={"title": "Hers"}).status_code == 200
    assert mallory.delete("/api/tasks?status=all").json == {"deleted": 1}
    assert len(pulled) >= 6
    assert alice.get("/api/tasks").json == [theirs]


# --- What another node's errors mean ---


@pytest.mark.parametrize("constraint", ["tasks_recurrence_due", "tasks_recurrence_due_102008"])
def test_a_rule_between_fields_that_another_node_finds_broken(wire: Wire, constraint: str) -> None:
    """Its error names the constraint in its sentence only; the sentence of any other rule is a bug's."""
    user = user_of(create_app(settings_for(wire.dsn())), "carol")
    task = user.create(due_date="2026-01-01", recurrence="daily")
    raised = f'new row for relation "tasks_102008" violates check constraint "{constraint}"'
    wire.rewrite = lambda sql: failing("23514", raised) if "WITH bump" in sql else sql
    problem = assert_problem(user.patch(f"/api/tasks/{task['id']}", json={"due_date": None}), 422, "invalid")
    assert problem["errors"] == [{"field": "recurrence", "message": "Needs a due_date."}]
    wire.rewrite = lambda sql: (
        failing("23514", raised.replace("recurrence_due", "series")) if "WITH bump" in sql else sql
    )
    assert_problem(user.patch(f"/api/tasks/{task['id']}", json={"title": "x"}), 500)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("08006", "connection to the remote node todo_app@node2:5432/todo failed"),
        ("XX000", "failure on connection marked as essential: node2:5432"),
    ],
)
def test_a_node_that_is_lost_is_a_503(wire: Wire, caplog: pytest.LogCaptureFixture, code: str, said: str) -> None:
    """Of which nobody knows what was done; the operator is told which node, and the connection goes on."""
    user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
    logging.getLogger("todo_service").addHandler(caplog.handler)
    user.create()
    for apart in (False, True):
        wire.rewrite = lambda sql: failing(code, said) if sql.startswith(("SET", "SELECT", "WITH")) else sql
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "distributed", apart)
            for answer in (user.get("/api/tasks"), user.post("/api/tasks", json={"title": "x"})):
                problem = assert_problem(answer, 503, "unavailable")
                assert "connection to a part of the database was lost" in problem["detail"]
                assert "nothing was changed" not in problem["detail"]
                assert answer.headers["Retry-After"]
        wire.rewrite = None
    logging.getLogger("todo_service").removeHandler(caplog.handler)
    assert said in caplog.text
    assert user.titles() == ["Buy milk"]


def failing(code: str, said: str) -> str:
    return f"DO $do$ BEGIN RAISE SQLSTATE '{code}' USING MESSAGE = '{said}'; END $do$"


# --- flask distribute ---

# A real extension of that name, with stand-ins for what the command asks of it.
STAND_INS = """
    CREATE TABLE pg_dist_node (
        groupid int, nodename text, nodeport int DEFAULT 5432,
        noderole text DEFAULT 'primary', isactive bool DEFAULT true
    );
    CREATE TABLE calls (number serial, table_name regclass, distribution_column text, colocate_with text);
    CREATE VIEW citus_tables AS SELECT table_name FROM calls;
    CREATE FUNCTION create_distributed_table(
        table_name regclass, distribution_column text, colocate_with text DEFAULT 'default'
    ) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO calls (table_name, distribution_column, colocate_with) SELECT $1, $2, $3 FROM pg_sleep(0.05) $$;
    """
MAY_LOG_IN = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'todo_app'"
CALLS = "SELECT table_name::text, distribution_column, colocate_with FROM calls ORDER BY number"
SPREAD = [("owners", "user_id", "default")] + [
    (name, "user_id", "owners") for name in ("tasks", "tombstones", "answers")
]


@pytest.fixture
def cluster_url(make_database: Callable[[], str]) -> Iterator[str]:
    """A migrated database with that extension."""
    url = make_database()
    cli.upgrade(url)
    folder = Path(tempfile.mkdtemp(prefix="todo-citus-"))
    (folder / "extension").mkdir()
    (folder / "extension" / "citus.control").write_text("default_version = '1'\n")
    (folder / "extension" / "citus--1.sql").write_text(STAND_INS)
    for path in (folder, folder / "extension"):
        path.chmod(0o755)
    run_sql(url, f"SET extension_control_path = '{folder}:$system'; CREATE EXTENSION citus")
    shutil.rmtree(folder)
    yield url
    # It belongs to all databases of the server.
    run_sql(url, "ALTER ROLE todo_app NOLOGIN")


def test_distribute_needs_the_extension(app: Flask) -> None:
    for arguments in (["distribute"], ["distribute", "--check"]):
        done = app.test_cli_runner().invoke(args=arguments)
        assert (done.exit_code, done.output.count("\n")) == (1, 1)
        assert "has no extension citus" in done.output
    assert run_sql(app.extensions["settings"].database_url, MAY_LOG_IN) == [(False,)]


def test_distribute_spreads_what_is_not_yet(cluster_url: str) -> None:
    app = create_app(settings_for(cluster_url))
    assert invoke(app, "distribute").splitlines() == [
        *(f"{name}: spread by user_id" for name, *_ in SPREAD),
        "all tables lie on the nodes",
    ]
    assert run_sql(cluster_url, CALLS) == SPREAD
    assert invoke(app, "distribute") == "all tables lie on the nodes\n"
    run_sql(cluster_url, "DELETE FROM calls WHERE table_name = 'tasks'::regclass")
    assert "tasks: spread" in invoke(app, "distribute")
    assert sorted(run_sql(cluster_url, CALLS)) == sorted(SPREAD)
    assert run_sql(cluster_url, MAY_LOG_IN) == [(True,)]
    assert run_sql(cluster_url, "SHOW citus.propagate_set_commands") == [("local",)]


def test_distribute_at_once_does_it_once(cluster_url: str) -> None:
    app = create_app(settings_for(cluster_url))
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(list_of_tables, app) for _ in range(4)]
    assert sorted(len(one.result()) for one in done) == [0, 0, 0, 4]
    assert run_sql(cluster_url, CALLS) == SPREAD


def list_of_tables(app: Flask) -> list[str]:
    with distribution.cluster(app.extensions["settings"].database_url) as cursor:
        return list(distribution.distribute(cursor))


def test_distribute_that_fails_has_changed_nothing(cluster_url: str) -> None:
    app = create_app(settings_for(cluster_url))
    run_sql(cluster_url, "ALTER TABLE calls ADD CHECK (table_name <> 'tombstones'::regclass)")
    done = app.test_cli_runner().invoke(args=["distribute"])
    assert done.exit_code == 1
    assert run_sql(cluster_url, CALLS) == []
    assert run_sql(cluster_url, MAY_LOG_IN) == [(False,)]


def test_distribute_needs_the_schema(cluster_url: str) -> None:
    run_sql(cluster_url, "DROP TABLE owners")
    done = create_app(settings_for(cluster_url)).test_cli_runner().invoke(args=["distribute"])
    assert done.exit_code == 1
    assert "flask --app wsgi migrate" in done.output


def test_distribute_check_lists_what_is_to_do(cluster_url: str) -> None:
    """From an extension alone to a whole cluster, one step after the other; nothing is changed by it."""
    app = create_app(settings_for(cluster_url))

    def to_do() -> list[str]:
        done = app.test_cli_runner().invoke(args=["distribute", "--check"])
        lines = done.output.splitlines()
        assert {line[:7] for line in lines} <= {"done   ", "to do  "}
        found = [line for line in lines if line.startswith("to do")]
        assert done.exit_code == bool(found)
        return found

    words = ["citus_set_coordinator_host", "citus_add_node", "lie on the nodes", "may log in", "gets at every node"]
    for word, line in zip(words, to_do(), strict=True):
        assert word in line
    assert run_sql(cluster_url, CALLS) == []
    run_sql(cluster_url, "INSERT INTO pg_dist_node VALUES (0, 'coordinator'), (1, 'node1')")
    run_sql(cluster_url, "INSERT INTO pg_dist_node VALUES (2, 'node2', 5433, 'primary', false)")
    assert "node2:5433" in to_do()[0]
    run_sql(cluster_url, "UPDATE pg_dist_node SET isactive = true")
    assert len(to_do()) == 3
    invoke(app, "distribute")
    assert to_do() == []
    run_sql(cluster_url, "REVOKE SELECT ON owners FROM todo_app")
    [line] = to_do()
    assert "permission denied" in line
    assert "pg_hba.conf" in line


def test_the_service_finds_out_that_there_are_nodes(cluster_url: str) -> None:
    """Nothing is configured: the extension is there, so the scope goes out by itself."""
    with Wire(cluster_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=2)), "carol")
        user.create("found")
        wire.reset()
        assert user.titles() == ["found"]
        assert [sql.partition(" ")[0].rstrip(";") for sql in wire.queries] == ["BEGIN", "SELECT", "COMMIT"]
