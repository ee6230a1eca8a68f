"""The service as it is shipped, for tests: gunicorn with the project's own configuration, on a free local port.

Where it makes a difference and the service is behind a proxy, Granian as well (`SERVERS`, `command_of`).

And a client that keeps its connection, as browsers and load balancers do, and repeats nothing, so that nothing which
goes wrong stays hidden.
"""

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.support.servers import free_port
from todo_service.config import ROOT

READY_SECONDS = 30
# What a process needs to run at all; nothing of the machine's own configuration gets through.
KEPT = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


SERVERS = {
    "gunicorn": [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
    "granian": [sys.executable, "granian.conf.py"],
}


def command_of(server: str) -> list[str]:
    """What starts the service with `server`; skips the test where that is not installed."""
    if find_spec(server) is None:
        pytest.skip(f"{server} is not installed (.venv/bin/pip install --require-hashes -r requirements-{server}.txt)")
    return SERVERS[server]


class Service:
    """A running service. `url` is its address; what it logged is in `log`. A context manager.

    It has started when it answers at `probe`. `project`: the folder with its code, if not this one's.
    """

    def __init__(
        self,
        database_url: str,
        secret: str,
        command: list[str] | None = None,
        probe: str = "/health/ready",
        project: str = str(ROOT),
        **environment: str,
    ) -> None:
        self.port = free_port()
        self._project = project
        self._probe = probe
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "DATABASE_URL": database_url,
            "BETTER_AUTH_SECRET": secret,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
        }
        self.environment |= environment
        self.command = command or SERVERS["gunicorn"]
        with tempfile.NamedTemporaryFile(prefix="todo-service-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
        self.start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self._project, env=self.environment, stdout=log, stderr=log
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}{self._probe}", timeout=2).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError(f"the service did not become ready:\n{self.log}")

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    def kill_worker(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def restart_with(self, **environment: str) -> None:
        """Have these variables in the environment; nothing happens where they are there already."""
        if self.environment | environment != self.environment:
            self.stop()
            self.environment |= environment
            self.start()

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """End the service; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(timeout=40)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # At once: what SIGTERM does has tests of its own, and takes its time.
        self.stop(signal.SIGQUIT)
        self._log.unlink()


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class NotSentError(Exception):
    """No connection could be made: the service knows nothing of the request."""


class UnansweredError(Exception):
    """The connection was lost before the answer was there, all of it. `kept`: it had answered a request before."""

    def __init__(self, error: Exception, kept: bool) -> None:
        super().__init__(repr(error))
        self.kept = kept


class Connection:
    """A client with a connection that it keeps; one that the service has closed in the meantime it makes anew."""

    def __init__(self, url: str, bearer: str | None = None, timeout: float = 20) -> None:
        self._http = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout)
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self._answered = False

    @property
    def port(self) -> int:
        """The client's own port, by which the service's end can be found."""
        port: int = self._http.sock.getsockname()[1]
        return port

    @property
    def open(self) -> bool:
        """Whether the next request will go out on the connection that the last one came in on."""
        # There is nothing to read between two requests but the end.
        return bool(self._http.sock) and not select.select([self._http.sock], [], [], 0)[0]

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if not self.open:
            self.connect()
        """`body`: bytes as they are, all else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        type_ = {} if body is None else {"Content-Type": "application/json"}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._http.request(method, path, data, self._headers | type_ | headers)
            response = self._http.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise UnansweredError(error, self._answered) from error
        self._answered = True
        return answer

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        self.close()
        self._answered = False
        try:
            self._http.connect()
        except OSError as error:
            self.close()
            raise NotSentError(repr(error)) from error


def connections(pid: int) -> set[tuple[int, int]]:
    """The TCP connections of process `pid` over IPv4: its own port and the other side's."""
    targets = " ".join(map(_target, Path(f"/proc/{pid}/fd").iterdir()))
    inodes = set(re.findall(r"socket:\[(\d+)\]", targets))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[3] == "01" and row[9] in inodes]
    return {(int(row[1].partition(":")[2], 16), int(row[2].partition(":")[2], 16)) for row in established}


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:  # closed in between
        return ""
