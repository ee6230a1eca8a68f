"""A program that runs beside a test in a folder of its own: started, waited for, stopped."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Program:
    """`answers`, which a subclass has, raises OSError until it does. A context manager, which removes the folder."""

    name: str
    start_seconds: float = 10

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=f"todo-{self.name.lower()}-"))
        self._log = self._folder / "log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self, command: Sequence[str | Path]) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.answers()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"{self.name} did not start:\n{self.log}")

    def answers(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._folder)
