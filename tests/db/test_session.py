"""The session, and whose rows its statements get at: whatever SQLAlchemy can be asked to send, each has its scope.

What stands here is written as a developer might write it one day; what requests send is in `test_isolation.py`.
"""

# ruff: noqa: PT012 - what is raised must leave the whole transaction.

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import extensions
from sqlalchemy import Engine, bindparam, insert, select, text, update
from sqlalchemy.exc import DBAPIError, InternalError, ProgrammingError

import todo_service
from tests.conftest import SECRET, User, settings_for, wait_for
from tests.support.live import Connection as Client
from tests.support.live import Service
from tests.support.raw import Connection as Raw
from tests.support.raw import request
from tests.support.wire import Wire
from todo_service.db.engine import make_engine
from todo_service.db.models import Owner, Task, owners, tasks
from todo_service.db.session import Connection, Session
from todo_service.errors import Unavailable

TITLES = text("SELECT title FROM tasks ORDER BY position")
RENAME = update(tasks).values(title=bindparam("new"))
SCOPE = "SET LOCAL ROLE"


@pytest.fixture
def engine(wire: Wire) -> Iterator[Engine]:
    """With one connection, on which SQLAlchemy has asked by now what it wants to know of a server."""
    made = make_engine(settings_for(wire.dsn(), pool_size=1))
    with Session(made, "nobody-before") as session:
        session.execute(TITLES)
    wire.reset()
    yield made
    made.dispose()


@pytest.fixture
def people(alice: User, bob: User) -> tuple[User, User]:
    """Each with one task, named after them."""
    for user in (alice, bob):
        user.create(user.id)
    return alice, bob


def titles(session: Session) -> list[str]:
    return list(session.execute(TITLES).scalars())


def assert_as_new(engine: Engine) -> None:
    """What the pool's connection is for who comes next: of nobody, outside of any transaction, with its own role."""
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, Connection)
        assert (driver.owner, driver.unscoped, driver.begin) == ("", False, "")
        assert driver.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        assert driver.autocommit
        # Past SQLAlchemy, so that nothing is put in front of it.
        with driver.cursor() as cursor:
            cursor.execute("SELECT current_setting('app.user_id', true), current_user = session_user")
            assert cursor.fetchone() in [("", True), (None, True)]


# Owners


def test_without_an_owner_nothing_is_seen(engine: Engine, people: Any) -> None:
    with Session(engine) as session:
        assert titles(session) == []
        with session.transaction():
            assert titles(session) == []
        assert session.execute(RENAME, {"new": "stolen"}).rowcount == 0  # type: ignore[attr-defined]
    # Nor without a session.
    with engine.connect() as connection:
        assert connection.execute(TITLES).all() == []


@pytest.mark.parametrize("owner", ["", "somebody", "alice"])
def test_without_an_owner_nothing_can_be_stored(engine: Engine, alice: User, owner: str) -> None:
    """Not even for nobody, nor under a name that is given with the values."""
    alice.create()
    theirs = alice.id if owner == "alice" else owner
    with Session(engine) as session, pytest.raises(ProgrammingError, match="row-level security"):
        session.execute(insert(owners).values(user_id=theirs, revision=1, last_position=1))
    assert_as_new(engine)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_an_owner_stores_for_nobody_else(engine: Engine, people: tuple[User, User], in_transaction: bool) -> None:
    alice, bob = people
    with Session(engine, alice.id) as session:
        if in_transaction:
            session.begin()
        with pytest.raises(ProgrammingError, match="row-level security"):
            session.execute(RENAME.values(user_id=bob.id), {"new": "a present"})
    assert [user.titles() for user in people] == [[user.id] for user in people]


def test_no_parameter_and_no_option_names_another_owner(engine: Engine, people: tuple[User, User]) -> None:
    alice, bob = people
    other = {"owner": bob.id, "app_user_id": bob.id}
    with Session(engine, alice.id) as session:
        assert session.execute(TITLES, other, execution_options=other).scalars().all() == [alice.id]
        assert session.connection().execution_options(**other).execute(TITLES, other).scalars().all() == [alice.id]


# Transactions


def test_statements_outside_of_a_transaction_are_one_each(engine: Engine, wire: Wire, alice: User) -> None:
    alice.create("one")
    with pytest.raises(ZeroDivisionError), Session(engine, alice.id) as session:
        session.execute(RENAME, {"new": "two"})
        assert len(wire.queries) == 1
        raise ZeroDivisionError
    assert len(wire.queries) == 1
    assert alice.titles() == ["two"]


@pytest.mark.parametrize("begin", [Session.transaction, Session.begin], ids=["transaction", "begin"])
def test_a_transaction_is_one_on_the_wire(engine: Engine, wire: Wire, alice: User, begin: Callable[..., Any]) -> None:
    """Its BEGIN goes with the first statement, and so does the scope, which is sent once for all of them."""
    alice.create("one")
    with Session(engine, alice.id) as session, begin(session):
        for number in range(20):
            session.execute(RENAME, {"new": f"{number}"})
        assert alice.titles() == ["one"]
    assert alice.titles() == ["19"]
    first, *others, last = wire.queries
    assert first.startswith("BEGIN; ")
    assert (len(others), last) == (19, "COMMIT")
    assert [SCOPE in sql for sql in wire.queries] == [True] + [False] * 20
    assert [alice.id in sql for sql in wire.queries] == [True] + [False] * 20
    assert_as_new(engine)


@pytest.mark.parametrize("begin", [Session.transaction, Session.begin], ids=["transaction", "begin"])
def test_an_exception_between_two_statements_undoes_the_first(
    engine: Engine, wire: Wire, alice: User, begin: Callable[..., Any]
) -> None:
    alice.create("one")
    with Session(engine, alice.id) as session:
        with pytest.raises(ZeroDivisionError), begin(session):
            session.execute(RENAME, {"new": "two"})
            raise ZeroDivisionError
        assert wire.queries[-1] == "ROLLBACK"
        assert alice.titles() == ["one"]
        # Another one can begin.
        with begin(session):
            session.execute(RENAME, {"new": "three"})
    assert alice.titles() == ["three"]
    assert_as_new(engine)


def test_a_transaction_that_nobody_ends(engine: Engine, wire: Wire, alice: User) -> None:
    alice.create("one")
    with Session(engine, alice.id) as session:
        session.begin()
        session.execute(RENAME, {"new": "two"})
    assert wire.queries[-1] == "ROLLBACK"
    assert alice.titles() == ["one"]
    assert_as_new(engine)


def test_a_transaction_without_statements_costs_nothing(engine: Engine, wire: Wire) -> None:
    with Session(engine, "carol") as session, session.transaction():
        pass
    assert wire.queries == []


def test_transactions_within_another(engine: Engine, wire: Wire, alice: User) -> None:
    """There is one, and the end of the outer one decides."""
    alice.create("one")
    with Session(engine, alice.id) as session:
        with session.transaction():
            with session.transaction():
                session.execute(RENAME, {"new": "two"})
            session.execute(RENAME, {"new": "three"})
            assert alice.titles() == ["one"]
        assert alice.titles() == ["three"]
        assert [sql for sql in wire.queries if "BEGIN" in sql or sql == "COMMIT"] == [wire.queries[0], "COMMIT"]
        with pytest.raises(ZeroDivisionError), session.begin():
            with session.transaction():
                session.execute(RENAME, {"new": "four"})
            raise ZeroDivisionError
    assert alice.titles() == ["three"]


def test_a_failure_that_is_passed_over_is_not_committed(engine: Engine, alice: User) -> None:
    """PostgreSQL would answer the COMMIT by undoing all of it, without an error."""
    alice.create("one")
    with Session(engine, alice.id) as session:
        with pytest.raises(RuntimeError, match="nothing was done"), session.transaction():
            session.execute(RENAME, {"new": "two"})
            with pytest.raises(DBAPIError):
                session.execute(text("SELECT 1/0"))
        assert titles(session) == ["one"]
    assert_as_new(engine)


def test_a_first_statement_that_is_no_sql_leaves_the_second_its_scope(
    engine: Engine, wire: Wire, people: tuple[User, User]
) -> None:
    """PostgreSQL reads a message as a whole: of one that it can't read it does nothing, not even the BEGIN."""
    alice, _ = people
    with Session(engine, alice.id) as session, session.transaction():
        with pytest.raises(ProgrammingError, match="syntax"):
            session.execute(text("SELEKT"))
        assert titles(session) == [alice.id]
        session.execute(RENAME, {"new": "two"})
        assert alice.titles() == [alice.id]
    assert alice.titles() == ["two"]
    assert [sql.startswith("BEGIN; ") for sql in wire.queries] == [True, True, False, False]


def test_a_snapshot_is_of_one_moment_and_read_only(engine: Engine, alice: User) -> None:
    alice.create("one")
    with Session(engine, alice.id) as session:
        with session.transaction(snapshot=True):
            assert titles(session) == ["one"]
            alice.create("two")
            assert titles(session) == ["one"]
        assert titles(session) == ["one", "two"]
        with pytest.raises(Unavailable, match="takes no changes"), session.transaction(snapshot=True):
            session.execute(RENAME, {"new": "three"})
        # The connection is not so for ever.
        session.execute(RENAME, {"new": "three"})
    assert_as_new(engine)


# Unscoped


def test_unscoped_by_name_only(engine: Engine, people: tuple[User, User]) -> None:
    both = {user.id for user in people}
    with Session(engine, unscoped=True) as session:
        assert both <= set(titles(session))
        with session.transaction():
            assert both <= set(titles(session))
            assert both <= set(titles(session))
    with Session(engine, people[0].id) as session:
        assert both <= set(session.execute(TITLES.execution_options(unscoped=True)).scalars())
        assert titles(session) == [people[0].id]
    assert_as_new(engine)


@pytest.mark.parametrize("place", ["first", "second"])
def test_unscoped_is_refused_inside_an_owners_transaction(
    engine: Engine, wire: Wire, people: tuple[User, User], place: str
) -> None:
    alice, _ = people
    with Session(engine, alice.id) as session:
        with pytest.raises(RuntimeError, match="one scope"), session.transaction():
            if place == "second":
                session.execute(RENAME, {"new": "two"})
            session.execute(TITLES.execution_options(unscoped=True))
        assert titles(session) == [alice.id]
    assert not any("ROLE NONE" in sql for sql in wire.queries)


# Whatever else SQLAlchemy sends


def test_many_rows_as_a_message_each_are_refused(engine: Engine, wire: Wire, alice: User) -> None:
    alice.create("one")
    with Session(engine, alice.id) as session:
        with pytest.raises(NotImplementedError), session.transaction():
            session.execute(RENAME, {"new": "two"})
            session.execute(RENAME, [{"new": "three"}, {"new": "four"}])
        # As a unit of work would, by one INSERT for them (SQLAlchemy's insertmanyvalues).
        with pytest.raises(NotImplementedError), session.transaction():
            session.add_all([owners_row(alice.id), owners_row("another")])
            session.flush()
    assert not any("three" in sql or "INSERT" in sql for sql in wire.queries)
    assert alice.titles() == ["one"]


def owners_row(owner: str) -> Any:
    return Owner(user_id=owner, revision=1, last_position=1.0)


def test_entities_have_the_sessions_scope(engine: Engine, people: tuple[User, User]) -> None:
    """Loaded, reloaded, and what a flush writes of them."""
    alice, bob = people
    [foreign] = bob.get("/api/tasks").json
    with Session(engine, alice.id) as session, session.transaction():
        [task] = session.scalars(select(Task)).all()
        assert session.get(Task, (bob.id, foreign["id"])) is None
        task.title = "two"
        session.flush()
        session.refresh(task)
        assert task.title == "two"
    assert [user.titles() for user in people] == [["two"], [bob.id]]
    with Session(engine, alice.id) as session, pytest.raises(ProgrammingError, match="row-level security"):
        session.add(owners_row("nobody-yet"))
        session.flush()
    assert_as_new(engine)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_what_goes_by_the_connection_has_the_sessions_scope(
    engine: Engine, people: tuple[User, User], in_transaction: bool
) -> None:
    alice, _ = people
    with Session(engine, alice.id) as session:
        if in_transaction:
            session.begin()
        connection = session.connection()
        for _ in range(2):
            assert connection.exec_driver_sql("SELECT title FROM tasks").scalars().all() == [alice.id]
            assert connection.execute(TITLES).scalars().all() == [alice.id]
    assert_as_new(engine)


@pytest.mark.parametrize("sql", ["SELECT 5 % 3", "SELECT 'a' LIKE '%(a)s'", "SELECT '100 %'"])
def test_percent_signs(engine: Engine, wire: Wire, sql: str) -> None:
    """Part of the text to SQLAlchemy; to the driver they name values, and it refuses those that do not."""
    with Session(engine, "carol") as session:
        session.execute(text(sql)).one()
        assert sql in wire.queries[-1]
        assert "app.user_id = 'carol'" in wire.queries[-1]
        wire.reset()
        with pytest.raises((KeyError, ValueError, TypeError, DBAPIError)):
            session.connection().exec_driver_sql(sql)
    assert wire.queries == []


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT; SELECT title FROM tasks",
        "BEGIN; SELECT title FROM tasks",
        "SELECT title FROM tasks;",
        "SET LOCAL ROLE NONE; SELECT title FROM tasks",
    ],
)
def test_a_statement_is_one_statement(engine: Engine, wire: Wire, sql: str, in_transaction: bool) -> None:
    with Session(engine, "carol") as session:
        if in_transaction:
            session.begin()
        with pytest.raises(NotImplementedError):
            session.execute(text(sql))
        with pytest.raises(NotImplementedError):
            session.connection().exec_driver_sql(sql)
    assert wire.queries == []


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("sql", ["BEGIN", "COMMIT", "ROLLBACK", "START TRANSACTION"])
def test_transactions_that_are_begun_and_ended_by_hand(
    engine: Engine, people: tuple[User, User], sql: str, in_transaction: bool
) -> None:
    """Scoped all the same, and none of them is left on the connection."""
    alice, bob = people
    with Session(engine, alice.id) as session:
        if in_transaction:
            session.begin()
        assert titles(session) == [alice.id]
        session.execute(text(sql))
        assert titles(session) == [alice.id]
        assert session.execute(RENAME, {"new": "two"}).rowcount == 1  # type: ignore[attr-defined]
        assert titles(session) == ["two"]
    assert_as_new(engine)
    with Session(engine, bob.id) as session:
        assert titles(session) == [bob.id]


def test_savepoints(engine: Engine, wire: Wire, people: tuple[User, User]) -> None:
    alice, _ = people
    with Session(engine, alice.id) as session, session.transaction():
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(RENAME, {"new": "two"})
            session.execute(text("SELECT 1/0"))
        assert titles(session) == [alice.id]
        with session.begin_nested():
            session.execute(RENAME, {"new": "three"})
            assert titles(session) == ["three"]
        with session.begin_nested() as inner:
            session.execute(RENAME, {"new": "four"})
            inner.rollback()
        assert titles(session) == ["three"]
    assert alice.titles() == ["three"]
    assert [SCOPE in sql for sql in wire.queries] == [True] + [False] * (len(wire.queries) - 1)
    assert_as_new(engine)


def test_a_savepoint_needs_a_transaction(engine: Engine, people: tuple[User, User]) -> None:
    """It begins one where the session has done nothing yet; where it has, PostgreSQL refuses."""
    alice, _ = people
    with Session(engine, alice.id) as session:
        with session.begin_nested():
            session.execute(RENAME, {"new": "two"})
        assert alice.titles() == [alice.id]
        session.commit()
        assert titles(session) == ["two"]
        with pytest.raises(DBAPIError, match="SAVEPOINT can only be used"), session.begin_nested():
            session.execute(RENAME, {"new": "three"})
    assert alice.titles() == ["two"]
    assert_as_new(engine)


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 1}], ids=str)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_cursor_on_the_server_is_refused(
    engine: Engine, people: tuple[User, User], options: dict[str, Any], in_transaction: bool
) -> None:
    """By PostgreSQL, because its declaration would stand in front of the scope."""
    with Session(engine, people[0].id) as session:
        if in_transaction:
            session.begin()
        with pytest.raises((InternalError, ProgrammingError)):
            session.execute(TITLES, execution_options=options).all()
    assert_as_new(engine)


def test_two_phases_are_refused(engine: Engine, wire: Wire) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError):
        connection.begin_twophase()
    assert wire.queries == []
    assert_as_new(engine)


@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "READ COMMITTED"},
        {"isolation_level": "SERIALIZABLE"},
        {"postgresql_deferrable": True},
        {"no_parameters": True},
        {"autocommit": False},
    ],
    ids=str,
)
def test_options_of_the_connection(engine: Engine, people: tuple[User, User], options: dict[str, Any]) -> None:
    """Also out of autocommit, where the driver itself begins transactions, they are scoped, and ended."""
    alice, bob = people
    with Session(engine, alice.id) as session:
        with session.begin():
            session.connection(execution_options=options)
            assert titles(session) == [alice.id]
            session.execute(RENAME, {"new": "two"})
        assert alice.titles() == ["two"]
        with pytest.raises(ZeroDivisionError), session.begin():
            session.connection(execution_options=options)
            session.execute(RENAME, {"new": "three"})
            raise ZeroDivisionError
        session.connection(execution_options=options)
        assert titles(session) == ["two"]
    assert_as_new(engine)
    with Session(engine, bob.id) as session:
        assert titles(session) == [bob.id]


def test_nothing_goes_past_the_session() -> None:
    """A cursor of the driver's own has no scope: outside of db/ there is none."""
    folder = Path(todo_service.__file__).parent
    modules = [path for path in folder.rglob("*.py") if path.parent.name != "db"]
    past = re.compile(r"raw_connection|driver_connection|dbapi_connection|\.cursor\(|psycopg2\.connect")
    found = {str(path.relative_to(folder)) for path in modules if past.search(path.read_text())}
    # Migrations, which have an owner of their own: the database's.
    assert len(modules) > 30
    assert found <= {"cli/base.py"}


# Clients that leave


@pytest.fixture(scope="module")
def lasting_wire(database_url: str) -> Iterator[Wire]:
    with Wire(database_url) as running:
        yield running


@pytest.fixture(scope="module")
def service(lasting_wire: Wire) -> Iterator[Service]:
    """One process, with one connection."""
    settings: Any = {"WEB_CONCURRENCY": "1", "DB_POOL_SIZE": "1", "RATELIMIT_DEFAULT": "100000/minute"}
    with Service(lasting_wire.dsn(), SECRET, **settings) as running:
        yield running


# In front of a message: refuse it where an owner or a role is there already.
NOTHING_LEFT = """DO $$ BEGIN
    ASSERT current_user = session_user AND coalesce(current_setting('app.user_id', true), '') = '', 'left behind';
END $$; """


@pytest.mark.parametrize("headers", [[], ["Idempotency-Key: cut-off"]], ids=["plain", "keyed"])
def test_a_client_that_leaves_leaves_nothing_behind(
    service: Service, lasting_wire: Wire, alice: User, bob: User, headers: list[str]
) -> None:
    """In the middle of a file: with a key, a transaction is under way while it is read."""
    wire = lasting_wire
    wire.reset()
    file = b'{"tasks": [' + b'{"title": "never"}, ' * 10_000
    head = [f"Authorization: Bearer {alice.token}", "Content-Type: application/json", "Content-Length: 1000000"]
    with Raw(service.port) as client:
        client.send(request("POST /api/tasks/import", *head, *headers, body=file))
        if headers:
            wait_for(lambda: wire.queries, "the key isn't asked for")
            assert wire.queries[0].startswith("BEGIN; ")
            assert alice.id in wire.queries[0]
    wait_for(lambda: f"user={alice.id}" in service.log, "nobody has noticed")
    assert wire.queries[1:] == ["ROLLBACK"] * len(headers)
    assert service.log.count("Traceback") == 0
    wire.rewrite = lambda sql: NOTHING_LEFT + sql
    with Client(service.url, bob.token) as other:
        assert other.request("GET", "/api/tasks").json == []
        assert other.request("POST", "/api/tasks", {"title": "Bob's"}).status == 201
    wire.rewrite = None
    assert bob.titles() == ["Bob's"]
    assert alice.titles() == []
