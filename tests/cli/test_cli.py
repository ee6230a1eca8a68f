"""The commands of the operator and the developer, and what they say where the database is missing or a wrong one."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from flask import Flask
from psycopg2.extensions import parse_dsn

from tests.conftest import SECRET, User, run_sql, settings_for, stranger, user_of
from tests.support.servers import MissingProgram, dsn_url, free_port, system_postgres
from todo_service import cli, create_app
from todo_service.config import ROOT
from todo_service.db.models import REVISION


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


def test_what_takes_long_shows_how_far_it_is(make_database: Callable[[], str], tmp_path: Path) -> None:
    """On a terminal; a log gets what was done alone."""
    url = make_database()
    export = ["export-user", "user-1", "--output", "out.json"]
    shown = {
        ("migrate",): f"revision {REVISION} is there",
        ("migrate", "--to", "0001", "--yes"): f"revision {REVISION} is gone",
        ("migrate", "--to", REVISION): f"revision {REVISION} is there",
        ("seed", "--users", "2", "--tasks", "20"): "users  [####",
        tuple(export): "tasks  [####",
        ("renew",): f"users  [{'-' * 36}]  2",
        ("purge",): f"rows  [{'-' * 36}]  20",
    }
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET}
    for arguments, line in shown.items():
        if arguments == ("purge",):
            run_sql(url, "UPDATE tasks SET deleted_at = now() - interval '31 days' WHERE user_id = 'user-1'")
        command = [sys.executable, "-m", "flask", "--app", f"{ROOT}/wsgi.py", *arguments]
        ours, theirs = pty.openpty()
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
        os.close(theirs)
        with open(ours, "rb", buffering=0) as terminal:
            assert line in terminal.read(65536).decode(), arguments
        assert done.returncode == 0
        assert done.stdout.count(b"\n") == 1
    log = subprocess.run([*command[:-1], "renew"], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert (log.returncode, log.stderr) == (0, b"")


def test_forget_leaves_nothing_of_the_user(app: Flask, alice: User, bob: User, database_url: str) -> None:
    for user in (alice, bob):
        user.create()
        user.delete(f"/api/tasks/{user.create()['id']}?permanent=true")
    assert (
        invoke(app, "forget", "--yes", alice.id)
        == f"removed all of {alice.id}: 1 tasks, 1 tombstones, 0 Idempotency-Keys\n"
    )
    for table in ("owners", "tasks", "tombstones"):
        rows = run_sql(database_url, f"SELECT user_id FROM {table} WHERE user_id IN ('{alice.id}', '{bob.id}')")
        assert rows == [(bob.id,)]
    assert alice.titles() == []


def test_forget_of_somebody_unknown_says_so(app: Flask, alice: User) -> None:
    alice.create()
    unknown = f"nothing is kept of a user {alice.id}x\n"
    assert invoke(app, "forget", "--yes", f"{alice.id}x") == unknown
    assert invoke(app, "forget", "--yes", alice.id) != unknown
    # To repeat it is no failure: what was to be achieved is the case.
    assert invoke(app, "forget", "--yes", alice.id) == f"nothing is kept of a user {alice.id}\n"


@pytest.mark.parametrize(
    "command",
    ["migrate", "distribute", "check", "purge", "renew", "user", "export-user", "forget", "serve", "token", "seed"],
)
def test_every_command_explains_itself(app: Flask, command: str) -> None:
    assert command in invoke(app, "--help")
    assert invoke(app, command, "--help").count("\n") > 3


COMMANDS = [
    ["migrate"], ["purge"], ["forget", "--yes", "x"], ["seed", "--users", "1"], ["user", "x"], ["export-user", "x"],
    ["migrate", "--check"], ["serve"],
]  # fmt: skip
NEED_THE_SCHEMA = COMMANDS[1:7]
PASSWORD = "canary-password"


def run(url: str, *arguments: str, project: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The real command, as in a terminal; `project`: the folder with its code."""
    given = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET, "PORT": str(free_port())}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *arguments],
        cwd=project, env=given | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def assert_one_line(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """It failed, and told why and what to do in one line, without a secret."""
    line = done.stderr.removesuffix("\n")
    assert done.returncode == 1, line
    assert line.startswith("Error: ")
    assert "\n" not in line
    assert "Traceback" not in done.stdout + line
    assert "canary" not in done.stdout + line
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_unreachable_database_is_told_in_one_line(command: list[str]) -> None:
    done = run(f"postgresql://todo:{PASSWORD}@127.0.0.1:{free_port()}/todo", *command)
    assert_one_line(done, "cannot be reached", "refused", "DATABASE_URL")


@pytest.mark.parametrize("command", [["migrate"], ["purge"]], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dbname": "no_such_database"}, "FATAL"),
        ({"user": "nobody-here"}, "FATAL"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
        ({"sslmode": "canari"}, "canari"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_address_is_told_in_one_line(
    database_url: str, command: list[str], changes: dict[str, str], said: str
) -> None:
    url = dsn_url({"password": PASSWORD} | parse_dsn(database_url) | changes)
    assert_one_line(run(url, *command), "cannot be reached", said, "DATABASE_URL")


def test_a_wrong_password_is_told_in_one_line() -> None:
    try:
        with system_postgres() as server:
            url = dsn_url(parse_dsn(server) | {"password": PASSWORD})
            for command in COMMANDS:
                assert_one_line(run(url, *command), "password authentication failed", "DATABASE_URL")
    except MissingProgram as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("command", NEED_THE_SCHEMA, ids=lambda command: command[0])
def test_a_missing_schema_is_told_in_one_line(make_database: Callable[[], str], command: list[str]) -> None:
    assert_one_line(run(make_database(), *command), "flask --app wsgi migrate")


@pytest.mark.parametrize("command", [["migrate"], *NEED_THE_SCHEMA], ids=lambda command: command[0])
def test_a_user_without_rights_is_told_in_one_line(make_database: Callable[[], str], command: list[str]) -> None:
    url = make_database()
    if command != ["migrate"]:
        cli.upgrade(url)
    run_sql(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert_one_line(run(stranger(url), *command), "permission denied", "DATABASE_URL")


@pytest.mark.parametrize("command", [*COMMANDS, ["token", "--user", "x"]], ids=lambda command: command[0])
def test_a_bad_setting_is_named(command: list[str]) -> None:
    done = run(f"mysql://todo:{PASSWORD}@127.0.0.1/todo", *command, LOG_FORMAT="xml")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()[1:]] == ["DATABASE_URL:", "LOG_FORMAT:"]
    assert "canary" not in done.stdout + done.stderr


def test_migrate_says_what_it_did(make_database: Callable[[], str]) -> None:
    url = make_database()
    app = create_app(settings_for(url))
    assert invoke(app, "migrate") == f"the schema is migrated: from nothing to revision {REVISION}\n"
    assert invoke(app, "migrate") == f"the schema is up to date: revision {REVISION}\n"
    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    assert "left as it is: revision 9999" in invoke(app, "migrate")


def test_seed_says_what_it_did(make_database: Callable[[], str]) -> None:
    url = make_database()
    cli.upgrade(url)
    app = create_app(settings_for(url))
    assert "60 tasks made, for 2 users; 0 were there already" in invoke(app, "seed", "--users", "2", "--tasks", "30")
    assert "10 tasks made, for 2 users; 60 were there already" in invoke(app, "seed", "--users", "2", "--tasks", "35")


def test_migrate_check_compares(make_database: Callable[[], str]) -> None:
    url = make_database()
    assert_one_line(run(url, "migrate", "--check"), "flask --app wsgi migrate")
    app = create_app(settings_for(url))
    cli.upgrade(url, "0003")
    behind = app.test_cli_runner().invoke(args=["migrate", "--check"])
    assert (behind.exit_code, behind.output.count("\n")) == (1, 1)
    assert f"behind: found 0003, needed is {REVISION}" in behind.output
    cli.upgrade(url)
    assert invoke(app, "migrate", "--check") == f"the schema is the one needed: revision {REVISION}\n"
    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    ahead = app.test_cli_runner().invoke(args=["migrate", "--check"])
    assert ahead.exit_code == 1
    assert f"ahead: found 9999, needed is {REVISION}" in ahead.output


def test_migrate_goes_to_any_revision_and_back(make_database: Callable[[], str]) -> None:
    """With tasks in it, which all are there in the end."""
    url = make_database()
    app = create_app(settings_for(url))
    cli.upgrade(url)
    invoke(app, "seed", "--users", "2", "--tasks", "10")
    tasks = run_sql(url, "SELECT user_id, id, title, position, version FROM tasks ORDER BY user_id, id")
    assert len(tasks) == 20
    for target in ("0004", "0001", "0003", REVISION):
        assert f"the schema is at revision {target}" in invoke(app, "migrate", "--to", target, "--yes")
        assert run_sql(url, "SELECT version_num FROM alembic_version") == [(target,)]
        assert run_sql(url, "SELECT user_id, id, title, position, version FROM tasks ORDER BY user_id, id") == tasks
    assert User("user-1", app.test_client(), invoke(app, "token", "--user", "user-1").strip()).get("/api/tasks").json


def test_migrate_asks_before_it_drops(make_database: Callable[[], str]) -> None:
    url = make_database()
    cli.upgrade(url)
    app = create_app(settings_for(url))
    refused = app.test_cli_runner().invoke(args=["migrate", "--to", "0001"], input="n\n")
    assert refused.exit_code == 1
    assert run_sql(url, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    assert_one_line(run(url, "migrate", "--to", "0099"), "there is no revision 0099")


def test_user_tells_what_is_kept(app: Flask, alice: User, bob: User) -> None:
    bob.create()
    first = alice.create("one")["id"]
    alice.create("two")
    alice.patch(f"/api/tasks/{first}", json={"completed": True})
    alice.delete(f"/api/tasks/{alice.create('three')['id']}")
    alice.delete(f"/api/tasks/{alice.create('four')['id']}?permanent=true")
    told = invoke(app, "user", alice.id)
    assert "2 tasks, of which 1 are completed; 1 in the trash" in told
    assert "1 tombstones, 0 Idempotency-Keys" in told
    assert "7 changes in all" in told
    assert not {"one", "two", "three"} & set(told.split())
    assert invoke(app, "user", f"{alice.id}x") == f"nothing is kept of a user {alice.id}x\n"


@pytest.mark.parametrize("form", ["json", "csv", "ics"])
def test_export_user_is_their_export(app: Flask, alice: User, bob: User, tmp_path: Path, form: str) -> None:
    bob.create("bob's")
    alice.create("alice's")
    file = tmp_path / "export"
    invoke(app, "export-user", alice.id, "--format", form, "--output", str(file))
    text = file.read_text()
    assert "alice's" in text
    assert "bob's" not in text
    again = app.test_cli_runner().invoke(args=["export-user", alice.id, "--output", str(file)])
    assert again.exit_code == 1
    assert "can't be written" in again.output
    assert file.read_text() == text


def test_forget_asks(app: Flask, alice: User) -> None:
    alice.create("kept")
    assert app.test_cli_runner().invoke(args=["forget", alice.id], input="n\n").exit_code == 1
    assert alice.titles() == ["kept"]


def test_check_tries_everything(app: Flask) -> None:
    lines = invoke(app, "check").splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * 7
    assert f"revision {REVISION}" in lines[2]


def test_check_names_what_fails(make_database: Callable[[], str]) -> None:
    gone = free_port()
    settings = settings_for(make_database(), jwks_url=f"http://127.0.0.1:{gone}/", issuers=("x",))
    app = create_app(replace(settings, rate_limit_storage=f"redis://127.0.0.1:{gone}"))
    result = app.test_cli_runner().invoke(args=["check"])
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.output.splitlines()] == [
        "ok",
        "ok",
        "FAILED",
        "FAILED",
        "ok",
        "FAILED",
        "FAILED",
    ]
    assert "flask --app wsgi migrate" in result.output
    assert "canary" not in result.output
