"""Programs of npm packages for tests: their locked packages installed, and run. Without Node.js the test is skipped."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SECONDS = 300


def run(*command: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; what it wrote is in the result."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH: the test needs Node.js and npm (Debian packages: nodejs, npm)")
    return path


def install(folder: Path) -> None:
    """Install a folder's locked packages, unless that was done since its lock file last changed."""
    program("node")
    lock_file, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with lock_file.open() as turn:
        # npm ci begins by deleting node_modules, so test processes side by side have to take turns.
        fcntl.flock(turn, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock_file.stat().st_mtime:
            return
        # npm reads its registry and its cache from the user's own configuration: so with the whole environment.
        command = [program("npm"), "ci", "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
