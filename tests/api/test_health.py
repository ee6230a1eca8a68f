"""Readiness is about the schema, too: where it is missing or older than the code, that is said, and what to do."""

import re
from collections.abc import Callable

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from flask.testing import FlaskClient

from tests.conftest import assert_problem, run_sql, settings_for, stranger, user_of
from todo_service import cli, create_app
from todo_service.config import ROOT, VERSION
from todo_service.db.models import REVISION

MIGRATE = "run `flask --app wsgi migrate`"


def client_of(url: str) -> FlaskClient:
    return create_app(settings_for(url)).test_client()


def test_a_database_without_the_schema_is_not_ready(make_database: Callable[[], str]) -> None:
    url = make_database()
    client = client_of(url)
    response = client.get("/health/ready")
    assert MIGRATE in assert_problem(response, 503, "unavailable")["detail"]
    assert response.headers["Retry-After"] == "2"
    assert client.get("/health/live").status_code == 200
    cli.upgrade(url)
    assert client.get("/health/ready").json == {"status": "ok", "version": VERSION, "schema": REVISION}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", 503),
        ("DELETE FROM alembic_version", 503),
        ("UPDATE alembic_version SET version_num = '9999'", 200),
    ],
    ids=["older", "none", "newer"],
)
def test_an_old_schema_is_not_ready_and_a_newer_one_is(
    make_database: Callable[[], str], change: str, status: int
) -> None:
    url = make_database()
    cli.upgrade(url)
    run_sql(url, change)
    response = client_of(url).get("/health/ready")
    assert response.status_code == status
    assert (MIGRATE in response.text) == (status == 503)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE owners, tasks, tombstones, answers",
        "ALTER TABLE owners DROP COLUMN revision",
        "ALTER TABLE tasks DROP COLUMN title CASCADE",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/tasks"), ("POST", "/api/tasks"), ("POST", "/api/tasks/batch")]
)
def test_other_requests_say_so_too(
    make_database: Callable[[], str], change: str, method: str, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    url = make_database()
    cli.upgrade(url)
    run_sql(url, change)
    app = create_app(settings_for(url))
    body = {"title": "x", "operations": [{"op": "create", "task": {"title": "x"}}]}
    response = user_of(app, "carol").request(method, path, json=body)
    assert MIGRATE in assert_problem(response, 503, "unavailable")["detail"]
    assert "does not exist" in capfd.readouterr().err
    assert app.extensions["engine"].pool.checkedin() == 1


def test_a_role_that_may_not_use_the_schema(make_database: Callable[[], str]) -> None:
    url = make_database()
    cli.upgrade(url)
    app = create_app(settings_for(stranger(url)))
    user = user_of(app, "carol")
    for path in ("/health/ready", "/api/tasks"):
        detail = assert_problem(user.get(path), 503, "unavailable")["detail"]
        assert "permission" not in detail


def test_the_code_knows_its_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]
    names = [path.name for path in (ROOT / "migrations" / "versions").glob("*.py")]
    assert all(re.match(r"\d{4}_", name) for name in names)
