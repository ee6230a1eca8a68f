"""The commands: token, seed, purge, forget, renew (migrate and serve are run for real elsewhere)."""

import threading

import jwt
import pytest
from flask import Flask

from tests.conftest import SECRET, User, run_sql, settings_for, user_of
from todo_service import create_app, retention
from todo_service.db import Database


def invoke(app: Flask, *arguments: str) -> str:
    result = app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_token_works(app: Flask) -> None:
    made = invoke(app, "token", "--user", "dev-1", "--days", "2").strip()
    claims = jwt.decode(made, SECRET, ["HS256"])
    assert claims["sub"] == "dev-1"
    assert claims["exp"] - claims["iat"] == 2 * 86400
    assert User("dev-1", app.test_client(), made).get("/api/tasks").status_code == 200


def test_token_needs_a_secret(database_url: str) -> None:
    app = create_app(settings_for(database_url, secrets=(), jwks_url="http://127.0.0.1:9/", issuers=("x",)))
    result = app.test_cli_runner().invoke(args=["token", "--user", "x"])
    assert result.exit_code == 1
    assert "BETTER_AUTH_SECRET" in result.output


def test_seed_fills_the_lists_of_its_users(app: Flask) -> None:
    invoke(app, "seed", "--users", "2", "--tasks", "30")
    for name in ("user-1", "user-2"):
        user = User(name, app.test_client(), user_of(app, name).token)
        tasks = User(name, app.test_client(), invoke(app, "token", "--user", name).strip()).get("/api/tasks").json
        assert len(tasks) >= 30
        assert {task["user_id"] for task in tasks} == {name}
        assert len({task["version"] for task in tasks}) == len(tasks)
        assert user.titles() == []


def age(url: str, user: User, table: str, column: str, days: int) -> None:
    sql = f"UPDATE {table} SET {column} = now() - interval '{days} days' WHERE user_id = %(user)s"
    run_sql(url, sql, {"user": user.id})


def test_purge_removes_old_trash_and_old_tombstones(app: Flask, alice: User, bob: User, database_url: str) -> None:
    ids = [alice.create(f"{n}")["id"] for n in range(3)]
    for id in ids[:2]:
        alice.delete(f"/api/tasks/{id}")
    kept = bob.create()
    bob.delete(f"/api/tasks/{kept['id']}")
    age(database_url, alice, "tasks", "deleted_at", retention.TRASH_DAYS + 1)
    run_sql(database_url, "UPDATE tasks SET deleted_at = NULL WHERE id = %(id)s", {"id": ids[2]})
    etag = alice.get("/api/tasks?deleted=true").headers["ETag"]
    assert invoke(app, "purge").startswith("2 tasks")
    assert alice.get("/api/tasks?deleted=true", headers={"If-None-Match": etag}).json == []
    assert alice.titles() == ["2"]
    assert bob.titles("?deleted=true") == ["Buy milk"]
    buried = run_sql(database_url, "SELECT id, version FROM tombstones WHERE user_id = %(user)s", {"user": alice.id})
    assert {id for id, _ in buried} == set(ids[:2])
    assert invoke(app, "purge").startswith("0 tasks removed for good, 0 tombstones")
    age(database_url, alice, "tombstones", "purged_at", retention.TOMBSTONE_DAYS + 1)
    assert "2 tombstones" in invoke(app, "purge")
    [(horizon,)] = run_sql(database_url, "SELECT horizon FROM owners WHERE user_id = %(user)s", {"user": alice.id})
    assert horizon == max(version for _, version in buried)


def test_purge_of_very_much_of_one_user_takes_several_steps(app: Flask, alice: User, database_url: str) -> None:
    """However much that is, no step runs into the deadline of a statement."""
    invoke(app, "purge")
    count = retention.TASKS_A_STEP + 7
    alice.create("stays")
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version, deleted_at)
        SELECT %(user)s, gen_random_uuid(), 'x', 'x', n, 1, '2000-01-01Z' FROM generate_series(1, %(count)s) AS n
    """
    run_sql(database_url, fill, {"user": alice.id, "count": count})
    with app.app_context():
        db: Database = app.extensions["database"]
        assert db.unscoped(retention.PURGE_TRASH) == [(retention.TASKS_A_STEP,)]
        assert retention.purge(db).tasks == 7
    assert alice.titles() == ["stays"]
    assert alice.titles("?deleted=true") == []


def test_purge_twice_at_once_removes_each_task_once(app: Flask, database_url: str) -> None:
    users = [user_of(app, "carol") for _ in range(20)]
    for user in users:
        user.delete(f"/api/tasks/{user.create()['id']}")
        user.create("stays")
        sql = (
            "UPDATE tasks SET deleted_at = now() - interval '99 days' WHERE user_id = %(u)s AND deleted_at IS NOT NULL"
        )
        run_sql(database_url, sql, {"u": user.id})
    removed: list[int] = []

    def purge() -> None:
        with app.app_context():
            removed.append(retention.purge(app.extensions["database"])[0])

    threads = [threading.Thread(target=purge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(removed) == 20
    assert [user.titles() for user in users] == [["stays"]] * 20
    assert [user.titles("?deleted=true") for user in users] == [[]] * 20


def test_forget_leaves_nothing_of_the_user(app: Flask, alice: User, bob: User, database_url: str) -> None:
    for user in (alice, bob):
        user.create()
        user.delete(f"/api/tasks/{user.create()['id']}?permanent=true")
    invoke(app, "forget", alice.id)
    for table in ("owners", "tasks", "tombstones"):
        rows = run_sql(database_url, f"SELECT user_id FROM {table} WHERE user_id IN ('{alice.id}', '{bob.id}')")
        assert rows == [(bob.id,)]
    assert invoke(app, "forget", alice.id)
    assert alice.titles() == []


@pytest.mark.parametrize("command", ["migrate", "purge", "renew", "forget", "serve", "token", "seed"])
def test_every_command_explains_itself(app: Flask, command: str) -> None:
    assert command in invoke(app, "--help")
    assert invoke(app, command, "--help").count("\n") > 3
