"""What Compose makes of compose.yaml, and the same processes without containers: `running`.

They have the commands, the environments and the files that compose.yaml gives them, and Debian's programs instead of
images; each name of a host becomes a port of 127.0.0.1. What only Docker does (networks, volumes, health checks,
restarts) is left to Docker.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from psycopg2.extensions import parse_dsn

from tests.conftest import run_sql
from tests.http.test_limits import RedisServer
from tests.support import servers
from tests.support.live import KEPT, Service
from tests.support.proxy import Proxy
from todo_service.config import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PASSWORDS = ("POSTGRES_PASSWORD", "SERVICE_PASSWORD")


def environment_of(service: str, **given: str) -> dict[str, str]:
    """The environment that a service has when `given` is all there is in .env."""
    return {name: interpolated(text, given) for name, text in SERVICES[service]["environment"].items()}


def interpolated(text: str, given: dict[str, str]) -> str:
    """`text` with its variables replaced, the innermost first."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        assert operator != ":?" or given.get(name), f"{name} is required: {rest}"
        return given.get(name) or (rest if operator == ":-" else "")

    while (done := re.sub(r"(?<!\$)\$\{(\w+)(:[-?])([^${}]*)\}", value, text)) != text:
        text = done
    return text.replace("$$", "$")


@dataclass
class Running:
    """All of compose.yaml. `owner` and `direct`: the database's addresses, of its owner and of the service's role."""

    owner: str
    direct: str
    pooled: str
    given: dict[str, str]
    hosts: dict[str, str]
    redis: RedisServer
    instances: list[Service]
    proxy: Proxy

    def environment(self, service: str) -> dict[str, str]:
        """That of a service, but for where it listens, with the addresses of this stage."""
        made = environment_of(service, **self.given)
        moved = {name: moved_to(self.hosts, value) for name, value in made.items() if name not in ("HOST", "PORT")}
        return moved | {name: os.environ[name] for name in KEPT if name in os.environ}

    def run(self, service: str, command: str | None = None, project: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        """Run a `flask` command as that service does: its own, unless another one is given."""
        words = command.split() if command else SERVICES[service]["command"]
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=project, env=self.environment(service), capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def instance(self, **environment: str) -> Service:
        """One more of the service."""
        return Service("", "", [sys.executable, "gunicorn.conf.py"], **self.environment("todo_service") | environment)


def moved_to(hosts: dict[str, str], text: str) -> str:
    return re.sub("|".join(map(re.escape, hosts)), lambda name: hosts[name[0]], text)


@contextmanager
def running(**given: str) -> Iterator[Running]:
    """Start it all, as `docker compose up` does with `given` in .env, and passwords."""
    given |= {name: secrets.token_hex(8) + '"%' for name in PASSWORDS}
    with ExitStack() as stack:
        server = stack.enter_context(servers.postgres_server())
        owner = make_database(server.dsn, given)
        hosts = {"database:5432": "127.0.0.1:{port}".format(**parse_dsn(owner))}
        pooled = stack.enter_context(pgbouncer(owner, given))
        hosts["pgbouncer:6432"] = "127.0.0.1:{port}".format(**parse_dsn(pooled))
        redis = stack.enter_context(redis_server())
        hosts["redis:6379"] = f"127.0.0.1:{redis.port}"
        direct = servers.dsn_url(parse_dsn(pooled) | {"port": parse_dsn(owner)["port"], "sslmode": "require"})
        stage = Running(owner, direct, pooled, given, hosts, redis, [], None)  # type: ignore[arg-type]
        done = stage.run("migrate")
        assert done.returncode == 0, done.stderr
        for _ in range(SERVICES["todo_service"]["deploy"]["replicas"]):
            stage.instances.append(stack.enter_context(stage.instance()))
        stage.proxy = stack.enter_context(Proxy(*stage.instances))
        yield stage


def make_database(server: str, given: dict[str, str]) -> str:
    """What PostgreSQL's image does when it is new; the owner's address."""
    variables = environment_of("database", **given)
    name, password = variables["POSTGRES_USER"], variables["POSTGRES_PASSWORD"]
    run_sql(server, f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{password}'")
    run_sql(server, f"CREATE DATABASE {variables['POSTGRES_DB']} OWNER {name}")
    owner = servers.dsn_url(
        parse_dsn(server) | {"user": name, "password": password, "dbname": variables["POSTGRES_DB"]}
    )
    roles = next(source for source in mounted("database") if source.startswith("./deploy/"))
    done = psql(owner, ROOT / roles, SERVICE_PASSWORD=variables["SERVICE_PASSWORD"])
    assert done.returncode == 0, done.stderr
    return owner


def psql(url: str, file: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not installed (Debian package: postgresql-client)")
    command = [program, "--no-psqlrc", "--quiet", "--dbname", url, "--file", str(file)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def mounted(service: str) -> dict[str, str]:
    """What is mounted in a service: where it is, and where it comes to be."""
    return dict(volume.split(":")[:2] for volume in SERVICES[service].get("volumes", []))


@contextmanager
def pgbouncer(owner: str, given: dict[str, str]) -> Iterator[str]:
    """The pooler; the address of the service's role through it."""
    database, port = parse_dsn(owner), servers.free_port()
    (source, target), *_ = mounted("pgbouncer").items()
    with servers.server_folder() as folder:
        text = (ROOT / source).read_text().replace("listen_addr = *", "listen_addr = 127.0.0.1")
        text = text.replace("host=database port=5432", f"host=127.0.0.1 port={database['port']}")
        text = text.replace("listen_port = 6432", f"listen_port = {port}").replace("/tmp/", f"{folder}/")
        servers.write(folder / "pgbouncer.ini", text)
        *shell, script = SERVICES["pgbouncer"]["command"]
        script = interpolated(script, {}).replace("/tmp/", f"{folder}/").replace(target, f"{folder}/pgbouncer.ini")
        variables = environment_of("pgbouncer", **given)
        pooled = servers.dsn_url(
            dict(
                user="todo_service", password=variables["SERVICE_PASSWORD"],
                host="127.0.0.1", port=port, dbname=database["dbname"],
            )
        )  # fmt: skip
        argv = ["env", *(f"{name}={value}" for name, value in variables.items()), *shell, script]
        with servers.Server(argv, folder, pooled, signal.SIGTERM):
            yield pooled


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian package: redis-server)")
    with servers.server_folder() as folder:
        server = RedisServer(program, str(folder), *SERVICES["redis"]["command"][1:])
        try:
            yield server
        finally:
            server.kill()
