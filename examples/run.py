"""`make example`: the service and, in front of it, the Next.js app with its Better Auth. Ctrl-C ends both.

The service is what `make run` starts, on PORT; the app listens on APP_PORT, 3000 by default. Both know the same
BETTER_AUTH_SECRET, that of `.env`, and the service knows the app's public keys as well.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1]))

from todo_service.config import ROOT, SettingsError, load

APP = ROOT / "examples" / "nextjs"
INSTALLED = APP / "node_modules" / ".package-lock.json"
START_SECONDS = 240
NODE = (20, 19)


def main() -> None:
    check_node()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    port = os.environ.get("APP_PORT") or "3000"
    app = f"http://localhost:{port}"
    os.environ |= {"BETTER_AUTH_URL": app, "CORS_ORIGINS": app}
    settings = load()
    if not settings.secrets:
        sys.exit("BETTER_AUTH_SECRET is not set: Better Auth needs it for its sessions")
    tasks = f"http://127.0.0.1:{settings.port}"
    install()
    os.environ |= {
        "BETTER_AUTH_SECRET": settings.secrets[0],
        "TASKS_URL": tasks,
        "NEXT_TELEMETRY_DISABLED": "1",
    }
    with running(ROOT, [sys.executable, "-m", "flask", "--app", "wsgi", "serve"]) as service:
        wait_for(f"{tasks}/health/ready", service)
        programs = APP / "node_modules" / ".bin"
        types: list[str | Path] = [programs / "openapi-typescript", f"{tasks}/api/openapi.json", "-o", "lib/api.d.ts"]
        subprocess.run(types, cwd=APP, check=True, capture_output=True)
        with running(APP, [programs / "next", "dev", "--hostname", "localhost", "--port", port]) as shown:
            wait_for(f"{app}/sign-in", shown)
            print(f"\n  The app:  {app}\n", flush=True)
            while service.poll() is None and shown.poll() is None:
                time.sleep(0.2)
    sys.exit("one of the two has ended, and so the other one, too")


def check_node() -> None:
    """Exit where there is no Node.js for Better Auth and Next.js."""
    needed = "Node.js 20.19 or newer and npm are needed"
    if not shutil.which("node") or not shutil.which("npm"):
        sys.exit(f"{needed} (Debian packages: nodejs, npm)")
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(int(part) for part in found.lstrip("v").split(".")[:2]) < NODE:
        sys.exit(f"{needed}; this is {found}")


def install() -> None:
    """Install the app's locked packages, unless that was done since they last changed."""
    locked = APP / "package-lock.json"
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < locked.stat().st_mtime:
        print("Installing what the app needs (some ten seconds, once)", flush=True)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=APP, check=True)


@contextmanager
def running(folder: Path, command: list[str | Path]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program and all that it starts, in a process group that is ended with the block: Ctrl-C comes here first."""
    process = subprocess.Popen(command, cwd=folder, start_new_session=True)
    try:
        yield process
    finally:
        for sign in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urlopen(url, timeout=START_SECONDS).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"{url} doesn't answer")


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(str(error))
