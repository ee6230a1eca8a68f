"""The service as it is shipped, for tests: gunicorn with the project's own configuration, on a free local port."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from todo_service.config import ROOT

READY_SECONDS = 30
# What a process needs to run at all; nothing of the machine's own configuration gets through.
KEPT = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """A running service. `url` is its address; what it logged is in `log`. A context manager.

    It has started when it answers at `probe`.
    """

    def __init__(
        self,
        database_url: str,
        secret: str,
        command: list[str] | None = None,
        probe: str = "/health/ready",
        **environment: str,
    ) -> None:
        self.port = free_port()
        self._probe = probe
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "DATABASE_URL": database_url,
            "BETTER_AUTH_SECRET": secret,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
        }
        self.environment |= environment
        self.command = command or [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
        with tempfile.NamedTemporaryFile(prefix="todo-service-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
        self.start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
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
