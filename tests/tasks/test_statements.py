"""Statements that PostgreSQL knows by a name: when they are, and that nothing comes of it when a name doesn't work.

The proxy plays the pooler that gives a message another connection than the one before.
"""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import select, text

from tests.conftest import User, run_sql, settings_for, user_of, wait_for
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.db import prepared
from todo_service.db.engine import make_engine
from todo_service.db.models import tasks
from todo_service.db.prepared import SENT_BEFORE
from todo_service.db.session import Session

PREPARE = re.compile(r"PREPARE .*?; (?=EXECUTE)", re.DOTALL)


@pytest.fixture
def user(wire: Wire) -> User:
    """Of an app with one connection, on which SQLAlchemy has asked by now what it wants to know of a server."""
    carol = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
    assert carol.get("/health/ready").status_code == 200
    wire.reset()
    return carol


def kinds(wire: Wire) -> list[str]:
    """How the statements of each message were sent."""
    words = (dict.fromkeys(re.findall(r"\b(?:PREPARE|EXECUTE)\b", sql)) for sql in wire.queries)
    return [" ".join(found).lower() or "full" for found in words]


def test_a_statement_is_prepared_after_some_uses(wire: Wire, user: User) -> None:
    titles = [f"100 % {number}" for number in range(SENT_BEFORE + 3)]
    for title in titles:
        user.create(title)
    assert kinds(wire) == ["full"] * SENT_BEFORE + ["prepare execute", "execute", "execute"]
    assert user.titles("?sort=position") == titles


def test_what_is_sent_seldom_takes_no_place(wire: Wire, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can keep the others' statements from being prepared by asking for much that is odd."""
    monkeypatch.setattr(prepared, "MAX_PREPARED", 3)
    for sort in ("title", "priority", "due_date", "position"):
        assert user.titles(f"?sort={sort}") == []
    wire.reset()
    for _ in range(SENT_BEFORE + 2):
        user.create("one")
    assert kinds(wire)[-1] == "execute"


def test_a_name_that_is_unknown_to_the_server(wire: Wire, user: User) -> None:
    """The message is sent again in full, the change made once, and no name relied on any more."""
    for _ in range(SENT_BEFORE + 1):
        user.create("before")
    wire.reset()
    wire.rewrite = lambda sql: f"DEALLOCATE ALL; {sql}" if "EXECUTE" in sql else sql
    user.create("after")
    user.create("later")
    assert kinds(wire) == ["execute", "full", "full"]
    assert user.titles("?sort=position")[SENT_BEFORE + 1 :] == ["after", "later"]


def test_a_name_that_is_taken(wire: Wire, user: User) -> None:
    for _ in range(SENT_BEFORE):
        user.create("before")
    wire.reset()
    wire.rewrite = lambda sql: "".join(PREPARE.findall(sql)) + sql
    user.create("after")
    user.create("later")
    assert kinds(wire) == ["prepare execute", "full", "full"]
    assert user.titles("?sort=position")[SENT_BEFORE:] == ["after", "later"]


def test_a_statement_that_fails_is_not_sent_again(wire: Wire, user: User) -> None:
    """Whatever else is wrong with it: only what a name brings about is healed without one."""
    task = user.create()
    for number in range(SENT_BEFORE + 1):
        assert user.patch(f"/api/tasks/{task['id']}", json={"title": f"{number}"}).status_code == 200
    wire.reset()
    wire.rewrite = lambda sql: f"{sql}; SELECT 1/0"
    assert user.patch(f"/api/tasks/{task['id']}", json={"title": "x"}).status_code == 500
    assert kinds(wire) == ["execute"]
    wire.rewrite = None
    assert user.titles() == [f"{SENT_BEFORE}"]


def test_a_migration_that_changes_what_a_statement_gives(make_database: Callable[[], str]) -> None:
    """PostgreSQL refuses to run the old plan ("cached plan must not change result type")."""
    url = make_database()
    cli.upgrade(url)
    with Wire(url) as wire:
        user = user_of(create_app(settings_for(wire.dsn(), pool_size=1)), "carol")
        path = f"/api/tasks/{user.create('one', priority='high')['id']}"
        before = [user.get(path).json for _ in range(SENT_BEFORE + 2)][-1]
        run_sql(url, "ALTER TABLE tasks ALTER COLUMN description TYPE varchar")
        wire.reset()
        assert [user.get(path).json for _ in range(2)] == [before, before]
        assert kinds(wire) == ["execute", "full", "full"]


def test_a_plan_made_for_one_shows_nothing_to_another(database_url: str, alice: User, bob: User) -> None:
    """Not even that of a statement without an owner filter, prepared with the rights to see all rows."""
    own = {user.id: user.create()["id"] for user in (alice, bob)}
    engine = make_engine(settings_for(database_url, pool_size=1))
    everything = select(tasks.c.id)
    for _ in range(SENT_BEFORE + 2):
        with Session(engine, unscoped=True) as session:
            assert set(session.execute(everything).scalars()) >= set(own.values())
        for user in (alice, bob):
            with Session(engine, user.id) as session:
                assert session.execute(everything).scalars().all() == [own[user.id]]
    engine.dispose()


def test_a_prepared_statement_keeps_its_plan(database_url: str, alice: User) -> None:
    """Left to itself, PostgreSQL would plan a list anew each time, as it can't know its LIMIT beforehand."""
    app = create_app(settings_for(database_url, pool_size=1))
    user = User(alice.id, app.test_client(), alice.token)
    for _ in range(SENT_BEFORE + 10):
        assert user.get("/api/tasks?limit=20").json == []
    with Session(app.extensions["engine"], unscoped=True) as session:
        plans = text("SELECT sum(generic_plans) AS kept, sum(custom_plans) AS anew FROM pg_prepared_statements")
        row = session.execute(plans).one()
    assert (row.kept, row.anew) == (10, 0)
    app.extensions["engine"].dispose()


def test_a_batch_of_a_user_whom_statistics_do_not_know(make_database: Callable[[], str]) -> None:
    """It reads what it changes; not all of the user's tasks for each of them."""
    url = make_database()
    cli.upgrade(url)
    run_sql(url, "INSERT INTO owners (user_id) SELECT 'user-' || n FROM generate_series(1, 20) AS n")
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT {user}, gen_random_uuid(), 't', 't', n, n FROM generate_series(1, {number}) AS n
    """
    run_sql(url, fill.format(user="'user-' || n % 20 + 1", number=10_000))
    run_sql(url, "ANALYZE tasks")
    app = create_app(settings_for(url, pool_size=1))
    user = user_of(app, "new")
    user.create()
    run_sql(url, fill.format(user=f"'{user.id}'", number=3000))
    ids = [id for (id,) in run_sql(url, f"SELECT id::text FROM tasks WHERE user_id = '{user.id}' LIMIT 100")]
    read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'tasks'"
    # A connection's numbers are there when it is closed.
    app.extensions["engine"].dispose()
    wait_for(lambda: run_sql(url, read) == run_sql(url, f"SELECT pg_sleep(0.5); {read}"), "the numbers grow on")
    [(before,)] = run_sql(url, read)
    operations = [{"op": "update", "id": id, "task": {"title": "changed"}} for id in ids]
    assert user.post("/api/tasks/batch", json={"operations": operations}).status_code == 200
    app.extensions["engine"].dispose()
    wait_for(lambda: run_sql(url, read) != [(before,)], "nothing was read")
    [(after,)] = run_sql(url, read)
    assert 100 <= after - before < 10_000
