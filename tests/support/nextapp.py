"""The example app of `examples/nextjs` for tests: its packages installed, its types made, built, and served.

Built once for a folder and an address of the service, and started with any settings after that. What it is held against
is left to the tests.
"""

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from tests.support.npm import install, program, run
from todo_service.config import ROOT

APP = ROOT / "examples" / "nextjs"
PROGRAMS = APP / "node_modules" / ".bin"
READY_SECONDS = 60


@contextmanager
def built(tasks_url: str, secret: str) -> Iterator[None]:
    """Have the app built for the service at `tasks_url`, and nobody else build it while the block lasts."""
    install(APP)
    # In the app's own folder, of which there is one: test processes side by side take turns.
    with (APP / "package.json").open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        types = str(PROGRAMS / "openapi-typescript")
        made = run(types, f"{tasks_url}/api/openapi.json", "-o", "lib/api.d.ts", cwd=APP)
        assert made.returncode == 0, made.stderr
        environment = {"TASKS_URL": tasks_url, "BETTER_AUTH_SECRET": secret, "NEXT_TELEMETRY_DISABLED": "1"}
        done = run(str(PROGRAMS / "next"), "build", cwd=APP, HOME=os.environ.get("HOME", "/"), **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        yield


class App:
    """The built app on `port` of localhost, with this environment. A context manager."""

    def __init__(self, port: int, **environment: str) -> None:
        self.url = f"http://localhost:{port}"
        self._port = port
        self._environment = {"PATH": os.environ["PATH"], "BETTER_AUTH_URL": self.url, "NEXT_TELEMETRY_DISABLED": "1"}
        self._environment |= environment

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        main = str(APP / "node_modules" / "next" / "dist" / "bin" / "next")
        self._process = subprocess.Popen(
            [program("node"), main, "start", "--hostname", "localhost", "--port", str(self._port)],
            cwd=APP, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urlopen(f"{self.url}/sign-in", timeout=READY_SECONDS).close()
            except OSError:
                time.sleep(0.1)
            else:
                return self
        self._log.seek(0)
        log = self._log.read()
        self.__exit__(None, None, None)
        raise RuntimeError(f"the app did not become ready:\n{log}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
