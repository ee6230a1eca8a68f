"""How Granian serves the app: faster than gunicorn, and only to be used behind the proxy (docs/servers.md).

`python granian.conf.py` serves. Processes and threads are from the settings, everything else is fixed here with its
reason. It is a script because Granian knows neither a file of its configuration nor the names of these settings, and
has nothing on its command line for what is to happen at the start and at the stop.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from types import FrameType
from typing import Any

from todo_service.api import health
from todo_service.cli import stop_with
from todo_service.config import ROOT, SettingsError, read
from todo_service.db import embedded
from todo_service.http import rate_limit
from todo_service.processors import free_place, stay_on_one
from todo_service.schemas.dialect import check

try:
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.utils.proxies import wrap_wsgi_with_proxy_headers
except ModuleNotFoundError:
    sys.exit("Granian is not installed: pip install --require-hashes -r requirements-granian.txt")

try:
    settings, names = read(ROOT / ".env")
    # Said here, once, rather than by each worker.
    rate_limit.Limiter(settings)
    check(settings.dialect)
    if settings.database_url is None:
        embedded.package()
except SettingsError as error:
    sys.exit(str(error))

# Metrics: a folder that all workers write to, which prometheus-client knows by this name.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

server = Granian(
    "wsgi:app",
    address=settings.host,
    port=settings.port,
    interface=Interfaces.WSGI,
    workers=settings.workers,
    blocking_threads=settings.threads,
    # Else it would speak HTTP/2 to whoever begins with it; nginx does that for it.
    http=HTTPModes.http1,
    websockets=False,
    # In milliseconds: for the head of a request, and as long for a connection to lie idle. Longer than the 60 s of
    # nginx, so that it is nginx who closes it.
    http1_settings=HTTP1Settings(header_read_timeout=65_000),
    # Connections for each process, idle ones included; more wait in the kernel's queue, which is as long.
    backpressure=4096,
    backlog=4096,
    # Else the first worker that is killed ends the service.
    respawn_failed_workers=True,
    # In seconds: from the start of a new worker to the stop of the one that it replaces.
    respawn_interval=0.5,
    # In seconds: how long requests that are under way may take to finish.
    workers_kill_timeout=35,
    # Requests are logged by the app, with the user and the request id.
    log_access=False,
    log_level=LogLevels(settings.log_level.lower()),
)


def app_of_worker() -> Any:
    """What each worker does first."""
    # Until Granian listens to it: the handler that the first process has does nothing here.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # It was forked before Granian counted it among the others.
    stay_on_one(settings, free_place(settings, (other.idx for other in server.wrks)))
    # One whose first process was killed would keep the port, with nobody to stop it.
    threading.Thread(target=stop_with, args=(os.getppid(),), daemon=True).start()
    from wsgi import app

    if settings.metrics_token:
        app.extensions["metrics"].begin()
    # Granian makes the environment a part of each request's environ. The app has read its settings by now.
    for name in names:
        os.environ.pop(name, None)
    return wrap_wsgi_with_proxy_headers(app, settings.forwarded_allow_ips)


def fail_readiness_before_the_stop() -> None:
    """On SIGTERM Granian refuses what is new at once."""
    stop: Any = signal.getsignal(signal.SIGTERM)

    def tell_and_stop(number: int, frame: FrameType | None) -> None:
        health.announce_the_stop()
        stop(number, frame)

    signal.signal(signal.SIGTERM, tell_and_stop)


server.on_startup(fail_readiness_before_the_stop)


if __name__ == "__main__":
    # The workers share with this process what says that the service is about to stop.
    multiprocessing.set_start_method("fork")
    if settings.metrics_token:
        # In memory, where that is to be had.
        shared = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="todo-metrics-", dir=shared)
    try:
        server.serve(target_loader=app_of_worker, wrap_loader=False)
    finally:
        if settings.metrics_token:
            shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
