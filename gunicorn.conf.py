"""How gunicorn serves the app: processes and threads from the settings, everything else fixed here with its reason.

`gunicorn -c gunicorn.conf.py` serves; so does `python gunicorn.conf.py`, which looks at the settings first.
"""

import gc
import os
import shutil
import signal
import sys
import tempfile
from typing import Any

from todo_service.api import health
from todo_service.config import SettingsError, load
from todo_service.db import embedded
from todo_service.http.parsing import MAX_UNREAD
from todo_service.http.rate_limit import Limiter
from todo_service.processors import free_place, stay_on_one
from todo_service.schemas.dialect import check

try:
    settings = load()
    # Said here, once: a worker that ends for want of a database, for an address of Redis that is none, or for a name
    # that can't be given, would be started anew, again and again.
    Limiter(settings)
    check(settings.dialect)
    if settings.database_url is None:
        embedded.package()
except SettingsError as error:
    sys.exit(str(error))

wsgi_app = "wsgi:app"
bind = f"{settings.host}:{settings.port}"
# Slow clients hold its threads, so in production nginx takes them in (deploy/nginx.conf).
worker_class = "gthread"
workers = settings.workers
threads = settings.threads
# On SIGTERM: how long requests that are under way may take to finish.
graceful_timeout = 30
# Longer than the 60 s of nginx and common load balancers, so that it is they who close a connection that lies idle.
keepalive = 65
# The heartbeat is a file: on a disk it could block, and a read-only root has no place for it.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
# It would listen in $HOME, which a container may not have.
control_socket_disable = True
forwarded_allow_ips = settings.forwarded_allow_ips
# No field moves the app to another address: a proxy may pass on one that the client made up.
forwarder_headers = ""
# Searches and tags in any script, which an address spells out byte by byte.
limit_request_line = 8190
# As many as the proxy lets through by their size, so that it is the one who refuses more.
limit_request_fields = 10000
# Where gunicorn's other parser is installed too, it isn't taken: what this one refuses is known.
http_parser = "python"
# Requests are logged by the app, with the user and the request id.
loglevel = settings.log_level.lower()

# Metrics: each worker writes its numbers to a folder that all can read, which prometheus-client knows by this name.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


# The signals that end a worker are held back from the moment it is forked until it listens to them: one that came in
# between would reach the master's handlers, which do nothing there, and the worker would live on until it is killed.
ENDING = {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}


def hold_back_while_forking() -> None:
    # First, because a master that was started by another one (SIGUSR2) is such a fork itself.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ENDING),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING),
    )


def end_at_once_on_ctrl_c() -> None:
    """SIGTERM is the signal that lets requests finish; Ctrl-C and SIGQUIT cut them off, and wait for no thread."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def on_starting(server: Any) -> None:
    hold_back_while_forking()
    fail_readiness_before_the_stop(server)
    # The workers share what is loaded by now as long as nobody writes to it, which looking for garbage there would do.
    gc.freeze()
    if settings.metrics_token:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="todo-metrics-", dir=worker_tmp_dir)


def fail_readiness_before_the_stop(server: Any) -> None:
    """On SIGTERM to the master only: workers that are replaced take the service away from nobody."""
    stop = server.handle_term

    def tell_and_stop() -> None:
        health.announce_the_stop()
        stop()

    server.handle_term = tell_and_stop


def pre_fork(server: Any, worker: Any) -> None:
    # Of the youngest only: on a reload those before them are there as well, and about to go.
    others = sorted(server.WORKERS.values(), key=lambda other: other.age, reverse=True)[: settings.workers - 1]
    worker.place = free_place(settings, (other.place for other in others))


def post_fork(server: Any, worker: Any) -> None:
    stay_on_one(settings, worker.place)


def post_worker_init(worker: Any) -> None:
    end_at_once_on_ctrl_c()
    # What is loaded is never garbage, and need not be looked through again and again.
    gc.collect()
    gc.freeze()
    if settings.metrics_token:
        worker.wsgi.extensions["metrics"].begin()


def pre_request(worker: Any, request: Any) -> None:
    """Have the answer say that the connection ends, where gunicorn would only end it, or not see that it is to end.

    The app may leave some of such a body unread (todo_service/http/parsing.py): who isn't told would lose what it sends
    next. And `close` may stand in a list (RFC 9110, section 7.6.1).
    """
    for name, value in request.headers:
        if (
            name == "TRANSFER-ENCODING"
            or (name == "CONTENT-LENGTH" and int(value) > MAX_UNREAD)
            or (name == "CONNECTION" and "close" in map(str.strip, value.lower().split(",")))
        ):
            request.force_close()


def on_exit(server: Any) -> None:
    if settings.metrics_token:
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


if __name__ == "__main__":
    # gunicorn takes two settings from the environment before it comes here, and neither a blank in the one nor a
    # mistake in the other, which have been told by now, and by name.
    os.environ["WEB_CONCURRENCY"] = str(workers)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", __file__])  # noqa: S606
