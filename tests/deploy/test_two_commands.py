"""What a newcomer does: `make run` in a fresh copy, paste what it prints, stop it in every way there is, run it again.

Each copy has its own `.env` and its own bundled PostgreSQL. All but one borrow the installed packages from the
environment that runs the tests, because installing them is the one step of `make run` that takes long.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import wait_for
from tests.support.advisories import pins
from tests.support.servers import free_port
from todo_service.config import ROOT

SECONDS = 60
# What gets through to make: nothing of the machine's configuration, nor of the make that may run the tests.
KEPT = ("PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE")

pytestmark = [
    pytest.mark.timed,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (Debian package: curl)"),
]


def alive(pid: int) -> bool:
    """Whether process `pid` runs; what has ended and waits for its parent to notice doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Run:
    """`make run` in `folder`, as a terminal starts it: in a process group of its own. Ended when the block ends."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._log = folder / "output"
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"PORT": str(port)}
        with self._log.open("wb") as log:
            self.make = subprocess.Popen(
                ["make", "run"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.make.poll() is None, self.output
            return "Booting worker" in self.output and self.answers()

        wait_for(ready, "the service did not start", SECONDS)
        self.server = self._server()
        self.postgres = self._postgres()

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def paste(self, method: str) -> str:
        """Run the printed curl line that creates a task or lists them, in a shell; what it prints."""
        lines = [line for line in self.output.splitlines() if line.strip().startswith("curl ")]
        assert len(lines) == 2
        done = subprocess.run(
            ["bash", "-c", lines[0] if method == "create" else lines[1]],
            capture_output=True, text=True, timeout=SECONDS, env={"PATH": os.environ["PATH"], "no_proxy": "*"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to the whole group."""
        os.killpg(self.make.pid, signal.SIGINT)
        self.make.wait(SECONDS)
        self.wait_until_gone()
        assert "SIGKILL" not in self.output, "a worker had to be killed"

    def wait_until_gone(self) -> None:
        wait_for(lambda: not alive(self.server), "gunicorn is still there", SECONDS)
        wait_for(lambda: not self.answers(), "the port is still open", SECONDS)

    def wait_until_postgres_is_gone(self) -> None:
        wait_for(lambda: not alive(self.postgres), "the bundled PostgreSQL is still there", SECONDS)

    def _server(self) -> int:
        """The process id of gunicorn's master: it says so itself."""
        found = re.search(rf"Listening at: http://127\.0\.0\.1:{self.port} \((\d+)\)", self.output)
        assert found, self.output
        return int(found[1])

    def _postgres(self) -> int:
        for folder in (self.folder / "instance", self.folder / "instance" / "elsewhere"):
            if (folder / "postgresql" / "postmaster.pid").exists():
                return int((folder / "postgresql" / "postmaster.pid").read_text().splitlines()[0])
        raise AssertionError("the bundled PostgreSQL does not run")

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        if self.make.poll() is None:
            os.killpg(self.make.pid, signal.SIGINT)
        self.make.wait(SECONDS)


@pytest.fixture
def clone() -> Iterator[Path]:
    """The project as git would hand it out. Not in pytest's folder, which other users can't reach (see embedded.py)."""
    folder = Path(tempfile.mkdtemp(prefix="todo-clone-"))
    folder.chmod(0o755)
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored), dirs_exist_ok=True)
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (folder / ".venv" / part.name).symlink_to(part)
    # Newer than the requirements, whatever the environment that is borrowed was made from.
    for stamp in ("run", "installed"):
        (folder / ".venv" / stamp).unlink(missing_ok=True)
        (folder / ".venv" / stamp).touch()
    yield folder
    if (folder / "instance").exists():
        # What was killed may have left its PostgreSQL running: the next one to use it, and to end, stops it.
        with Run(folder, free_port()) as run:
            run.stop()
    shutil.rmtree(folder / "instance" / "elsewhere", ignore_errors=True)
    shutil.rmtree(folder)


def test_make_run_installs_what_running_needs_and_no_more(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    environment = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    environment |= {name: os.environ[name] for name in KEPT if name in os.environ}
    done = subprocess.run(["make", ".venv/run"], cwd=clone, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [packages] = (clone / ".venv" / "lib").glob("python3*/site-packages")
    installed = {distribution.name.lower().replace("_", "-") for distribution in distributions(path=[str(packages)])}
    needed = {name for name, _ in pins([clone / "requirements.txt", clone / "requirements-run.txt"])}
    assert installed - {"pip", "setuptools"} <= needed
    with Run(clone, free_port()) as run:
        assert "Buy milk" in run.paste("create")
        run.stop()


def test_make_run_prints_what_works_and_keeps_the_data(clone: Path) -> None:
    port = free_port()
    with Run(clone, port) as run:
        docs = re.search(r"http://localhost:\d+/api/docs", run.output)
        assert docs
        page = subprocess.run(["curl", "-sf", "--noproxy", "*", docs[0]], capture_output=True, timeout=SECONDS)
        assert page.returncode == 0
        assert "Buy milk" in run.paste("create")
        assert "Buy milk" in run.paste("list")
        with socket.create_connection(("127.0.0.1", port)) as half_sent:
            half_sent.sendall(b"GET /api/tasks HTTP/1.1\r\n")
            run.stop()
        run.wait_until_postgres_is_gone()
        assert "Traceback" not in run.output
    secret = (clone / ".env").read_text()
    with Run(clone, port) as again:
        assert "Buy milk" in again.paste("list")
    assert (clone / ".env").read_text() == secret


def test_make_run_writes_a_secret_of_its_own(clone: Path) -> None:
    subprocess.run(["make", "--silent", ".env"], cwd=clone, check=True, timeout=SECONDS)
    file = clone / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = re.findall(r"^BETTER_AUTH_SECRET=(\S{32,})$", file.read_text(), re.MULTILINE)
    file.unlink()
    subprocess.run(["make", "--silent", ".env"], cwd=clone, check=True, timeout=SECONDS)
    second = re.findall(r"^BETTER_AUTH_SECRET=(\S{32,})$", file.read_text(), re.MULTILINE)
    assert len(first) == len(second) == 1
    assert first != second


def test_killed_make_takes_everything_with_it(clone: Path) -> None:
    with Run(clone, free_port()) as run:
        run.make.kill()
        run.wait_until_gone()
        run.wait_until_postgres_is_gone()


def test_killed_server_is_not_in_the_way_of_the_next_run(clone: Path) -> None:
    port = free_port()
    with Run(clone, port) as run:
        run.paste("create")
        os.kill(run.server, signal.SIGKILL)
        run.make.wait(SECONDS)
        run.wait_until_gone()
    with Run(clone, port) as again:
        assert "Buy milk" in again.paste("list")
        again.stop()
        again.wait_until_postgres_is_gone()


def test_run_without_a_terminal_is_ended_by_a_signal_to_make(clone: Path) -> None:
    with Run(clone, free_port()) as run:
        run.make.terminate()
        run.wait_until_gone()
        run.wait_until_postgres_is_gone()


def test_bad_setting_is_named_and_nothing_started(clone: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "CORS_ORIGINS": "*"}
    done = subprocess.run(["make", "run"], cwd=clone, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode != 0
    assert "CORS_ORIGINS" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / "instance").exists()


def assert_one_line(done: "subprocess.CompletedProcess[str]", said: str) -> None:
    """`make run` failed and told why: in one line, to which make adds that it has failed."""
    first, *rest = done.stderr.splitlines()
    assert done.returncode != 0
    assert first.startswith("Error: ")
    assert said in first
    assert all(line.startswith("make: ") for line in rest)


def test_unreachable_database_is_told_in_one_line(clone: Path) -> None:
    url = f"postgresql://todo:canary@127.0.0.1:{free_port()}/todo"
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    done = subprocess.run(["make", "run"], cwd=clone, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert_one_line(done, "the database cannot be reached")
    assert "canary" not in done.stdout + done.stderr


def test_bundled_database_that_does_not_start_is_told_in_one_line(clone: Path) -> None:
    """Such as one that another version of PostgreSQL has made."""
    data = clone / "instance" / "postgresql"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["make", "run"], cwd=clone, env=environment, capture_output=True, text=True, timeout=SECONDS)
    shutil.rmtree(clone / "instance")
    assert_one_line(done, "instance/postgresql")


def test_help_lists_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS)
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert set(phony[1].split()) == set(listed)
    assert {"run", "test", "check", "help"} <= set(listed)
