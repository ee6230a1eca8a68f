"""compose.yaml: valid, complete, closed; and what it starts, run here without containers, with faults under load."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.conftest import run_sql, settings_for, user_of, wait_for
from tests.deploy.test_deployment import SETTINGS
from tests.support.compose import (
    COMPOSE,
    PASSWORDS,
    SERVICES,
    Running,
    environment_of,
    interpolated,
    mounted,
    psql,
    running,
)
from tests.support.keyserver import KeyServer
from tests.support.ledger import audit
from tests.support.live import Connection
from tests.support.load import Client, wait_for_more, writing
from tests.support.tries import Attempt
from todo_service import cli, create_app
from todo_service.config import ROOT
from todo_service.db import embedded
from todo_service.db.models import REVISION

pytestmark = pytest.mark.timed

TEXT = (ROOT / "compose.yaml").read_text()
# What is compose.yaml's alone.
OWN = {*PASSWORDS, "MIGRATE_DATABASE_URL", "TLS_PORT"}
ISSUER = "https://app.example.com"
CLIENTS = 6
# For longer than a client waits for an answer, so that it is the client who tells what was wrong.
wait = partial(wait_for, seconds=60)
# Requests a minute, more than a client of the load makes.
LIMIT = 100_000

# A migration as they come: it adds to a table that is in use, and fills what it has added.
NEXT = f"""
import sqlalchemy as sa
from alembic import op

revision = "{int(REVISION) + 1:04}"
down_revision = "{REVISION}"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("colour", sa.Text, nullable=False, server_default="none"))
    op.execute("UPDATE tasks SET colour = 'red' WHERE completed")
    op.create_index("tasks_by_colour", "tasks", ["user_id", "colour"])
"""


def test_it_is_valid() -> None:
    """By the schema of the Compose specification, which check-jsonschema carries."""
    package = find_spec("check_jsonschema")
    assert package
    assert package.submodule_search_locations
    schema = Path(package.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = Draft202012Validator(json.loads(schema.read_text()))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert list(validator.iter_errors(COMPOSE | {"services": {"nginx": {"imgae": "nginx"}}}))


def test_every_setting_reaches_the_service_and_no_other_does() -> None:
    for service in ("todo_service", "migrate", "purge"):
        assert set(SERVICES[service]["environment"]) == SETTINGS | {"PGPASSWORD"}
    given = {name: f"given-{name}" for name in SETTINGS | OWN}
    got = environment_of("todo_service", **given)
    # What is listened on within is settled; NEON_DB_URL is another name of DATABASE_URL.
    for name in SETTINGS - {"HOST", "PORT", "NEON_DB_URL"}:
        assert got[name] == given[name]
    assert environment_of("todo_service", **given | {"DATABASE_URL": ""})["DATABASE_URL"] == "given-NEON_DB_URL"
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT)) == SETTINGS | OWN


def test_migrations_never_go_to_another_database_than_the_service() -> None:
    """Unless somebody says so, as for an address past the pooler."""
    passwords = dict.fromkeys(PASSWORDS, "secret")
    for name in ("DATABASE_URL", "NEON_DB_URL"):
        assert environment_of("migrate", **passwords | {name: "elsewhere"})["DATABASE_URL"] == "elsewhere"
    given = {"DATABASE_URL": "pooled", "MIGRATE_DATABASE_URL": "direct"}
    assert environment_of("migrate", **passwords | given)["DATABASE_URL"] == "direct"
    assert "@database:" in environment_of("migrate", **passwords)["DATABASE_URL"]


@pytest.mark.parametrize("password", PASSWORDS)
def test_passwords_have_no_default(password: str) -> None:
    uses = re.findall(rf"\$\{{{password}\b(..)", TEXT)
    assert uses
    assert set(uses) == {":?"}


def test_it_is_closed_where_it_can_be() -> None:
    for name, service in SERVICES.items():
        assert "no-new-privileges:true" in service["security_opt"]
        assert re.fullmatch(r"\S+:v?\d\S*", service["image"])
        for port in service.get("ports", []):
            assert interpolated(port, {}).startswith("127.0.0.1:")
        # PostgreSQL's image changes over to its own user by itself.
        assert name == "database" or (service["read_only"] and service["cap_drop"] == ["ALL"])
        nets = service.get("networks", [])
        assert not ({"nginx", "grafana", "prometheus"} & {name} and "data" in nets)
        assert not ({"database", "pgbouncer", "redis"} & {name} and nets != ["data"])


def test_nothing_serves_before_the_schema_is_there() -> None:
    waits = {name: wait["condition"] for name, wait in SERVICES["todo_service"]["depends_on"].items()}
    assert waits.pop("migrate") == "service_completed_successfully"
    assert set(waits) == {"pgbouncer", "redis"}
    assert set(waits.values()) == {"service_healthy"}
    assert SERVICES["purge"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_what_is_mounted_is_there() -> None:
    sources = {source for service in SERVICES for source in mounted(service) if source.startswith("./")}
    # The operator's own.
    sources.remove("./tls")
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_profile_adds_monitoring_alone() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"prometheus", "grafana"}


def test_prometheus_asks_each_instance_with_the_token() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["authorization"]["credentials_file"] in SERVICES["prometheus"]["entrypoint"][2]
    (found,) = job["dns_sd_configs"]
    (name,) = found["names"]
    assert set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert f"{name}:{found['port']}" == SERVICES["nginx"]["environment"]["UPSTREAM"]


def test_certificate(tmp_path: Path) -> None:
    """One is made for a first try, and kept; the operator's own replaces it."""
    given, folder = tmp_path / "given", tmp_path / "folder"
    given.mkdir()
    folder.mkdir()
    user, rights = os.geteuid(), []
    if user == 0:
        user = int(SERVICES["certificate"]["command"][-1])
        kept = ",".join(f"+{name.lower()}" for name in SERVICES["certificate"]["cap_add"])
        rights = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all"]

    def hand_over() -> str:
        command = ["sh", f"{ROOT}/deploy/certificate.sh", f"{given}", f"{folder}", str(user)]
        done = subprocess.run([*rights, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert {path.name for path in folder.iterdir()} == {"tls.conf", "tls.crt", "tls.key"}
        assert {path.stat().st_uid for path in folder.iterdir()} == {user}
        assert (folder / "tls.key").stat().st_mode & 0o777 == 0o400
        assert (folder / "tls.conf").read_text() == (ROOT / "deploy" / "tls.conf").read_text()
        return (folder / "tls.crt").read_text()

    first = hand_over()
    assert "BEGIN CERTIFICATE" in first
    assert hand_over() == first
    for name in ("tls.crt", "tls.key"):
        (given / name).write_text(f"the operator's {name}")
        (given / name).chmod(0o600)
        os.chown(given / name, user, -1)
    for _ in range(2):
        assert hand_over() == "the operator's tls.crt"
    assert (folder / "tls.key").read_text() == "the operator's tls.key"
    assert SERVICES["certificate"]["command"][2:4] == ["/given", "/certificate"]


def test_first_command_of_the_page_fills_env(tmp_path: Path) -> None:
    """And what it fills in is enough."""
    page = (ROOT / "docs" / "compose.md").read_text()
    command = page.split("```sh\n")[1].split("docker compose")[0]
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, check=True)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    given = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    for service in SERVICES:
        if "environment" in SERVICES[service]:
            environment_of(service, **given)
    assert all(len(given[password]) == 48 for password in PASSWORDS)


# What it starts


@pytest.fixture(scope="module")
def keys() -> Iterator[KeyServer]:
    with KeyServer() as server:
        server.add("EdDSA")
        yield server


@pytest.fixture(scope="module")
def stage(keys: KeyServer) -> Iterator[Running]:
    """With a key server alone."""
    settings = {"BETTER_AUTH_URL": ISSUER, "BETTER_AUTH_JWKS_URL": keys.url, "RATELIMIT_DEFAULT": f"{LIMIT}/minute"}
    with running(**settings, WEB_CONCURRENCY="1", DB_POOL_SIZE="4") as stage:
        yield stage


def bearer(keys: KeyServer, user: str, client: str = "") -> str:
    claims = {"sub": user, "iss": ISSUER, "aud": ISSUER, "exp": int(time.time()) + 3600, "jti": client}
    return keys.sign("EdDSA", claims)


class Load(NamedTuple):
    clients: list[Client]
    attempts: list[Attempt]


@contextmanager
def load(stage: Running, keys: KeyServer, *allowed: str) -> Iterator[Load]:
    """Clients who change tasks all the while; then, whether every one of them knows what is stored."""
    attempts: list[Attempt] = []
    users = [f"load-{time.monotonic_ns()}-{number}" for number in range(CLIENTS)]
    clients = [Client(stage.proxy.url, user, user, attempts, bearer(keys, user)) for user in users]
    with writing(clients):
        yield Load(clients, attempts)
        wait_for_more(clients)
    findings = audit(stage.owner, [client.ledger for client in clients])
    assert (findings.lost, findings.duplicated) == ([], [])
    assert {attempt.error for attempt in attempts} <= {"", *allowed}
    assert not sum(client.ledger.unseen for client in clients) or allowed


def served(stage: Running) -> list[int]:
    """How many requests each instance has logged."""
    return [instance.log.count('"status"') for instance in stage.instances]


def test_one_instance_is_killed_under_load(stage: Running, keys: KeyServer) -> None:
    one, _ = stage.instances
    # What was under way there: what must not be done twice is answered by 502, or by 409 while it is still at work.
    with load(stage, keys, "502", "409") as (clients, attempts):
        wait(lambda: min(served(stage)) > CLIENTS, "not both serve")
        before = len(attempts)
        for pid in [one.process.pid, *one.workers()]:
            os.kill(pid, signal.SIGKILL)
        one.process.wait()
        wait(lambda: len(attempts) > before + 20 * CLIENTS, "the other one does not serve")
        # Of the moment, one for each client, and what it was repeated with; the other instance serves all that comes.
        assert sum(bool(attempt.error) for attempt in attempts[before:]) <= 2 * CLIENTS
        wait_for_more(clients)
        so_far = served(stage)
        one.start()
        wait(lambda: all(now > then for now, then in zip(served(stage), so_far, strict=True)), "one does not serve")


def test_migrated_under_load(stage: Running, keys: KeyServer, tmp_path: Path) -> None:
    """By the next release, while this one goes on; and by this one, which leaves a newer schema alone."""
    for name in ("migrations", "todo_service", "wsgi.py"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    (tmp_path / "migrations" / "versions" / f"{int(REVISION) + 1:04}_next.py").write_text(NEXT)
    with load(stage, keys):
        done = stage.run("migrate", project=tmp_path)
        assert f"from revision {REVISION}" in done.stdout, done.stderr
        assert "newer" in stage.run("migrate").stdout
    assert run_sql(stage.owner, "SELECT DISTINCT colour FROM tasks WHERE completed AND colour = 'red'")
    with Connection(stage.proxy.url) as client:
        assert client.request("GET", "/health/ready").status == 200


def test_limits_are_counted_together(stage: Running, keys: KeyServer) -> None:
    here, there = (Connection(instance.url, bearer(keys, "limited")) for instance in stage.instances)
    with here, there:
        answers = [client.request("GET", "/api/tasks") for client in (here, there) * 5]
    left = [re.sub(r".*r=(\d+);.*", r"\1", answer.headers["RateLimit"]) for answer in answers]
    assert left == [str(LIMIT - count) for count in range(1, 11)]


def test_service_role_has_what_it_needs_and_no_more(stage: Running, keys: KeyServer) -> None:
    users = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'todo_service'"
    assert run_sql(stage.owner, users) == [("todo_service",)]
    rights = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = 'todo_service'"
    assert run_sql(stage.owner, rights) == [(False, False, False, False)]
    assert run_sql(stage.owner, "SELECT relname FROM pg_class WHERE relowner = 'todo_service'::regrole") == []
    for forbidden in ("DROP TABLE answers", "CREATE TABLE mine ()", "TRUNCATE tasks", "ALTER TABLE tasks ADD x int"):
        with pytest.raises(Exception, match=r"must be owner|permission denied"):
            run_sql(stage.direct, forbidden)
    # Behind the second wall it sees what one user has.
    scoped = "SET ROLE todo_app; SET app.user_id = 'role-alice'; SELECT DISTINCT user_id FROM tasks"
    with (
        Connection(stage.proxy.url, bearer(keys, "role-alice")) as alice,
        Connection(stage.proxy.url, bearer(keys, "role-bob")) as bob,
    ):
        task = alice.request("POST", "/api/tasks", {"title": "Buy milk"}).json
        old = alice.request("POST", "/api/tasks", {"title": "Bought long ago"}).json
        assert run_sql(stage.direct, scoped) == [("role-alice",)]
        # Whose a task is, nobody learns but whether it is their own.
        assert bob.request("GET", f"/api/tasks/{task['id']}").status == 403
        assert alice.request("DELETE", f"/api/tasks/{old['id']}").status == 200
    aged = "UPDATE tasks SET deleted_at = now() - interval '31 days' WHERE id = %(id)s"
    run_sql(stage.owner, aged, {"id": old["id"]})
    (purge,) = re.findall(r"flask .*? purge", SERVICES["purge"]["command"][2])
    assert "1 tasks removed for good" in stage.run("purge", purge).stdout


def test_owner_need_not_be_a_superuser(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Since PostgreSQL 16, where it has the one right that it gives: as on Neon."""
    folder = tmp_path_factory.mktemp("neon")
    folder.chmod(0o755)
    server = embedded.start(folder)
    try:
        run_sql(server.url, "CREATE ROLE owner LOGIN CREATEROLE BYPASSRLS")
        run_sql(server.url, "CREATE DATABASE tasks OWNER owner")
        owner, service = (
            server.url.replace("//postgres@/postgres", f"//{role}@/tasks") for role in ("owner", "todo_service")
        )
        for _ in range(2):
            done = psql(owner, ROOT / "deploy" / "roles.sql", SERVICE_PASSWORD="unused")
            assert done.returncode == 0, done.stderr
            cli.upgrade(owner)
        app = create_app(settings_for(service))
        alice, bob = user_of(app, "alice"), user_of(app, "bob")
        task = alice.create()
        assert alice.titles() == ["Buy milk"]
        assert bob.titles() == []
        assert bob.get(f"/api/tasks/{task['id']}").status_code == 403
        assert bob.get("/health/ready").status_code == 200
        app.extensions["engine"].dispose()
    finally:
        server.stop()


def test_roles_can_be_set_up_again(stage: Running) -> None:
    """For a database that is in use already; the password is then another one. Not without one."""
    roles = ROOT / "deploy" / "roles.sql"
    assert psql(stage.owner, roles, SERVICE_PASSWORD=stage.given["SERVICE_PASSWORD"]).returncode == 0
    refused = psql(stage.owner, roles)
    assert refused.returncode != 0
    assert "SERVICE_PASSWORD is not set" in refused.stderr
