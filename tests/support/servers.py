"""Real database servers for the tests: PostgreSQL, and PgBouncer in front of it.

Each server runs in the foreground, in a temporary folder of its own, on a free port of 127.0.0.1, and is stopped by
its process id when its `with` block ends. Both are set up as strictly as a hosted database would be: TLS only, SCRAM
passwords, no trusted sockets; PgBouncer pools by transaction and ignores no startup parameter. A client that works
here relies on nothing a production database refuses.

    with system_postgres() as dsn, pgbouncer(dsn) as pooled_dsn: ...             # the addresses are all one needs
    with postgres_server() as server, pgbouncer_server(server.dsn) as pool:      # to stop and restart them, too
        server.restart()

    python -m tests.support.servers pgbouncer -- pytest -q      # runs the command with TEST_DATABASE_URL set

Passwords and certificates are made at every start and deleted with the folder. Creating databases, roles and tables,
and deciding which tests run against which server, are left to the caller.
"""

import argparse
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg2
from psycopg2.extensions import parse_dsn

START_SECONDS = 30
STOP_SECONDS = 20

# Waits for the end of its input, which comes when this process is gone, even by SIGKILL: no server outlives its tests.
GUARD = 'read _; kill -s "$1" "$2"; sleep 3; rm -rf -- "$3"'


class MissingProgram(RuntimeError):
    """A server program is not installed; the message names the Debian package that has it."""


class Server:
    """A server program that can be stopped and started again on the same port, with its data kept.

    `dsn` is the address for clients. `probe` is the address that answers as soon as this program is ready by itself,
    where that is another one. `log` is the file with all it printed.
    """

    def __init__(
        self, argv: Sequence[str | Path], folder: Path, dsn: str, stop_signal: signal.Signals, probe: str | None = None
    ) -> None:
        self.dsn = dsn
        self.log = folder / "log"
        self._argv = argv
        self._folder = folder
        self._stop_signal = stop_signal
        self._probe = probe or dsn
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the program and return when it takes connections; RuntimeError with the end of its log if it fails."""
        if self._process is not None:
            raise RuntimeError(f"{self._argv[0]} is running already")
        try:
            with self.log.open("ab") as log:
                # In a session of its own, or Ctrl-C in a terminal would stop the database before the tests.
                self._process = subprocess.Popen(
                    self._argv, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, env=_environment(self._folder), **_identity(),
                )  # fmt: skip
            self._guard = _guard(self._process.pid, self._stop_signal, self._folder)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the program, cutting off its clients; nothing happens if it is not running."""
        if self._guard is not None:
            self._guard.kill()  # before the server: its pid may be another's soon after
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            _end(self._process, self._stop_signal)
            self._process = None

    def restart(self) -> None:
        """Stop the program and start it again on the same port."""
        self.stop()
        self.start()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg2.connect(self._probe, connect_timeout=2).close()
                return
            except psycopg2.OperationalError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    tail = self.log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self._argv[0]} did not start: {error}\n{tail}") from error
            time.sleep(0.05)


@contextmanager
def system_postgres() -> Iterator[str]:
    """Run the installed PostgreSQL; gives the DSN of its superuser."""
    with postgres_server() as server:
        yield server.dsn


@contextmanager
def pgbouncer(server: str, pool_size: int = 10) -> Iterator[str]:
    """Run PgBouncer in front of the PostgreSQL at the DSN `server`; gives the DSN of the same user through it.

    `server` has a host, a superuser and its password, and takes TLS, as that of `system_postgres` does.
    """
    with pgbouncer_server(server, pool_size) as pool:
        yield pool.dsn


@contextmanager
def postgres_server(**more: str | int) -> Iterator[Server]:
    """Like `system_postgres`, giving the `Server`; `more`: settings."""
    programs, password = postgres_programs(), secrets.token_hex(16)
    with server_folder() as folder:
        certificate(folder)
        _make_cluster(programs / "initdb", folder, password)
        with _postgres(programs, folder, password, more) as server:
            yield server


@contextmanager
def replica_server(primary: str) -> Iterator[Server]:
    """A PostgreSQL that follows the one of `postgres_server` at the DSN `primary`, as its read replica."""
    programs = postgres_programs()
    with server_folder() as folder:
        certificate(folder)
        _run(
            programs / "pg_basebackup", f"--dbname={primary}", "--pgdata=data", "--write-recovery-conf",
            "--checkpoint=fast", "--no-sync", folder=folder,
        )  # fmt: skip
        with _postgres(programs, folder, parse_dsn(primary)["password"], {}) as server:
            yield server


def _postgres(programs: Path, folder: Path, password: str, more: Mapping[str, str | int]) -> Server:
    """PostgreSQL with the data in `folder`, and `more` settings."""
    port = free_port()
    settings: dict[str, str | int | Path] = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        # Several processes run tests on it, each with apps that keep connections.
        "max_connections": 500,
        "ssl": "on",
        "ssl_cert_file": folder / "tls.crt",
        "ssl_key_file": folder / "tls.key",
        # The data is thrown away after a crash: no time is spent on making it survive one.
        "fsync": "off",
        "full_page_writes": "off",
        **more,
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    argv: list[str | Path] = [programs / "postgres", "-D", folder / "data", *options]
    dsn = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=require"
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients to leave.
    return Server(argv, folder, dsn, signal.SIGINT)


@contextmanager
def pgbouncer_server(server: str, pool_size: int = 10, **more: int) -> Iterator[Server]:
    """Like `pgbouncer`, giving the `Server`; `more`: settings.

    Its admin console is the database `pgbouncer`, for the same user.
    """
    program = _program("pgbouncer", "pgbouncer", "/usr/sbin")
    target, port = parse_dsn(server), free_port()
    own = {**target, "host": "127.0.0.1", "port": str(port), "sslmode": "require"}
    with server_folder() as folder:
        certificate(folder)
        write(folder / "users.txt", f'"{target["user"]}" "{target["password"]}"\n')
        settings = _pgbouncer_settings(target, folder, port, pool_size)
        # What is said later counts.
        settings += "".join(f"{name} = {value}\n" for name, value in more.items())
        write(folder / "pgbouncer.ini", settings)
        argv = [program, folder / "pgbouncer.ini"]
        # SIGTERM stops PgBouncer at once; SIGINT would wait for transactions. The admin console answers by itself,
        # so it can be started while PostgreSQL is down.
        probe = dsn_url({**own, "dbname": "pgbouncer"})
        with Server(argv, folder, dsn_url(own), signal.SIGTERM, probe) as pool:
            yield pool


def dsn_url(parameters: Mapping[str, Any]) -> str:
    """Write connection parameters, as `parse_dsn` gives them, as one postgresql:// URL."""
    rest = dict(parameters)
    names = ("user", "password", "host", "port", "dbname")
    user, password, host, port, database = (quote(str(rest.pop(name, "")), safe="") for name in names)
    account = f"{user}:{password}@" if user else ""
    # quote_via: libpq takes a plus sign in the query as a plus sign, not as a space.
    return f"postgresql://{account}{host}:{port}/{database}?{urlencode(rest, quote_via=quote)}"


def _pgbouncer_settings(target: Mapping[str, str], folder: Path, port: int, pool_size: int) -> str:
    # auth_user looks up the passwords of all other roles in PostgreSQL, so tests may log in as roles they made.
    # server_login_retry is how long PgBouncer refuses everybody after one failed login to PostgreSQL: 15 seconds by
    # default, which a test that restarts PostgreSQL would have to sit out.
    return f"""\
[databases]
* = host={target["host"]} port={target.get("port", 5432)} auth_user={target["user"]}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
ignore_startup_parameters =
server_login_retry = 1
auth_type = scram-sha-256
auth_file = {folder}/users.txt
admin_users = {target["user"]}
client_tls_sslmode = require
client_tls_cert_file = {folder}/tls.crt
client_tls_key_file = {folder}/tls.key
server_tls_sslmode = require
"""


def _make_cluster(initdb: Path, folder: Path, password: str) -> None:
    write(folder / "password", password)
    _run(
        initdb, "--pgdata=data", "--username=postgres", "--pwfile=password", "--auth=scram-sha-256",
        "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", folder=folder,
    )  # fmt: skip
    # Neither plain TCP nor the Unix socket: who gets in has used TLS and a password.
    whom = ("all all", "replication all")
    write(folder / "data" / "pg_hba.conf", "".join(f"hostssl {who} 127.0.0.1/32 scram-sha-256\n" for who in whom))


def certificate(folder: Path) -> None:
    """Make tls.crt and tls.key, self-signed, valid for the length of a test run."""
    _hand_over(folder)
    openssl = _program("openssl", "openssl")
    _run(
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", "tls.key", "-out", "tls.crt", folder=folder,
    )  # fmt: skip


def postgres_programs() -> Path:
    """Find the folder with PostgreSQL's server programs, the newest of Debian's first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -float(folder.parent.name))
    if config := shutil.which("pg_config"):
        folders.append(Path(subprocess.check_output([config, "--bindir"], text=True).strip()))
    folders.extend(Path(folder) for folder in os.get_exec_path())
    for folder in folders:
        # Clients' packages fill the same folders: only a server package brings both of these.
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise MissingProgram("PostgreSQL's server programs are not installed (Debian package: postgresql)")


def _program(name: str, package: str, *more_folders: str) -> Path:
    found = shutil.which(name, path=os.pathsep.join([*os.get_exec_path(), *more_folders]))
    if found is None:
        raise MissingProgram(f"{name} is not installed (Debian package: {package})")
    return Path(found)


def free_port() -> int:
    """Find a port nobody listens on, below the range that outgoing connections take theirs from.

    One from that range could be lost to any client while a stopped server waits to be started again on it.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on 127.0.0.1")


def _account() -> pwd.struct_passwd | None:
    """Give the account the servers run under, None for this process's own: they refuse to run as root."""
    if os.geteuid() != 0:
        return None
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    return accounts.get("postgres") or accounts["nobody"]


def _identity() -> dict[str, Any]:
    """Give the arguments that make `subprocess` run a program under that account."""
    account = _account()
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


def _environment(folder: Path) -> dict[str, str]:
    """libpq looks for certificates and the like at home; in this process's own, that account may read nothing."""
    return {**os.environ, "HOME": str(folder)}


@contextmanager
def server_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="todo-server-"))
    try:
        _hand_over(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(path: Path) -> None:
    if account := _account():
        os.chown(path, account.pw_uid, account.pw_gid)


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    _hand_over(path)


def _run(program: Path, *arguments: str, folder: Path) -> None:
    done = subprocess.run(
        [program, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=_environment(folder), **_identity(),
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}")


def _guard(pid: int, stop_signal: signal.Signals, folder: Path) -> subprocess.Popen[bytes]:
    name = stop_signal.name.removeprefix("SIG")
    return subprocess.Popen(
        ["sh", "-c", GUARD, "guard", name, str(pid), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_command(command: Sequence[str], dsn: str) -> int:
    """Run `command`, pass it the signals that ask this process to end, and give its exit code as a shell would."""
    child = subprocess.Popen(command, env={**os.environ, "TEST_DATABASE_URL": dsn})

    def forward(number: int, _: FrameType | None) -> None:
        # Ctrl-C in a terminal has reached the command already; twice would cut its own clean-up short.
        if number != signal.SIGINT or not sys.stdin.isatty():
            child.send_signal(number)

    _on_end_signals(forward)
    code = child.wait()
    _on_end_signals(signal.SIG_IGN)  # the servers are stopped next, and that is not to be interrupted
    return code if code >= 0 else 128 - code


def _leave(number: int, _: FrameType | None) -> None:
    _on_end_signals(signal.SIG_IGN)
    raise SystemExit(128 + number)


def _on_end_signals(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command with TEST_DATABASE_URL set to a server that lives as long as the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.servers", description=main.__doc__)
    parser.add_argument("server", choices=["postgres", "pgbouncer"])
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args(arguments)
    _on_end_signals(_leave)
    try:
        with system_postgres() as dsn:
            if options.server == "postgres":
                return _run_command(options.command, dsn)
            with pgbouncer(dsn) as pooled:
                return _run_command(options.command, pooled)
    except (RuntimeError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
