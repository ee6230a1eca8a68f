"""How gunicorn serves the app: processes and threads from the settings, everything else fixed here with its reason.

`gunicorn -c gunicorn.conf.py` serves; so does `python gunicorn.conf.py`, which looks at the settings first.
"""

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from gunicorn import util
from gunicorn.http.errors import InvalidHeader
from gunicorn.http.wsgi import Response
from uuid_utils import uuid7

from todo_service import errors
from todo_service.api import health
from todo_service.config import SettingsError, load
from todo_service.db import embedded
from todo_service.http import rate_limit as limits
from todo_service.http.parsing import MAX_UNREAD

try:
    settings = load()
    # Said here, once: a worker that ends for want of a database, or for an address of Redis that is none, would be
    # started anew, again and again.
    limits.Limiter(settings)
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
# For each process, idle ones included; more wait in the kernel's queue. The proxy keeps 32 idle for each process of its
# own, and has as many more as there are requests under way.
worker_connections = 1000
# The heartbeat: a worker that gives no sign of life this long is killed. No limit on requests, whose deadlines are
# those of the database (todo_service/db/session.py).
timeout = 30
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
accesslog = None
loglevel = settings.log_level.lower()


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


# RFC 3986, 3.2.2 and 3.2.3, but for names in percent-encoding, which no client sends.
HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]*)?", re.IGNORECASE)


def pre_request(worker: Any, request: Any) -> None:
    """Refuse what gunicorn takes but another server may read differently (RFC 9112, sections 3.2 and 6.1)."""
    host = next((value for name, value in request.headers if name == "HOST"), None)
    if not HOST.fullmatch(host or "") and (host is not None or request.version >= (1, 1)):
        raise InvalidHeader("HOST", req=request)
    if not request.uri.startswith(("/", "*")) and request.method != "CONNECT":
        target = urlsplit(request.uri)
        if target.scheme not in ("http", "https") or target.netloc.lower() != (host or "").lower():
            raise InvalidHeader("HOST", req=request)
    # gunicorn lets compressed bodies pass, but leaves them compressed.
    codings = [value.lower() for name, value in request.headers if name == "TRANSFER-ENCODING"]
    if codings not in ([], ["chunked"]):
        raise InvalidHeader("TRANSFER-ENCODING", req=request)
    length = next((int(value) for name, value in request.headers if name == "CONTENT-LENGTH"), 0)
    options = ",".join(value for name, value in request.headers if name == "CONNECTION")
    # The app may leave some of such a body unread (todo_service/http/parsing.py). A client who isn't told that the
    # connection ends would lose what it sends next.
    if codings or length > MAX_UNREAD or "close" in [option.strip().lower() for option in options.split(",")]:
        request.force_close()


# What gunicorn's parser refuses: the status it gives -> what is told.
REFUSALS = {
    414: ("uri-too-long", "The address is too long."),
    417: ("expectation-failed", "The only thing that can be expected here is 100-continue."),
    431: ("headers-too-large", "The request's header fields are too large, or too many."),
    500: ("internal-error", errors.BUG),
}
MALFORMED = ("bad-request", "The request is not HTTP as it should be.")


def refuse(sock: Any, status_int: int, reason: str, mesg: str) -> None:
    """Answer like all other errors what doesn't get to the app: in gunicorn's own words it would be a page of HTML."""
    code, detail = REFUSALS.get(status_int, MALFORMED)
    # A transfer coding that nobody knows (501) is the client's mistake, too.
    problem = errors.Problem(detail, status=status_int if status_int in REFUSALS else 400, code=code)
    request_id = str(uuid7())
    body = errors.document(problem, request_id)
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\nDate: {util.http_date()}\r\n"
        f"Connection: close\r\nContent-Type: {errors.PROBLEM_JSON}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Request-ID: {request_id}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode() + body)


util.write_error = refuse

send_part = Response.write


def send_at_once(response: Response, part: bytes) -> None:
    """Send the head together with a body of one part.

    gunicorn sends one after the other. A proxy that has the head can't ask another worker any more when this one is
    killed in between, though the request could be repeated.
    """
    if response.headers_sent or response.response_length != len(part) or response.req.method == "HEAD":
        send_part(response, part)
        return
    head = "".join([*response.default_headers(), *(f"{name}: {value}\r\n" for name, value in response.headers), "\r\n"])
    response.headers_sent, response.sent = True, len(part)
    util.write(response.sock, head.encode("latin-1") + part)


Response.write = send_at_once  # type: ignore[assignment, method-assign]


def fail_readiness_before_the_stop(server: Any) -> None:
    """On SIGTERM only: workers that are replaced take the service away from nobody."""
    stop = server.handle_term

    def tell_and_stop() -> None:
        health.announce_the_stop()
        stop()

    server.handle_term = tell_and_stop


# Metrics: each worker writes its numbers to a folder that all can read, which prometheus-client knows by this name.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def on_starting(server: Any) -> None:
    hold_back_while_forking()
    fail_readiness_before_the_stop(server)
    if settings.metrics_token:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="todo-metrics-", dir=worker_tmp_dir)


def spare_what_is_loaded() -> None:
    """It is never garbage: to look through it again and again would copy the memory that the processes share."""
    gc.collect()
    gc.freeze()


def when_ready(server: Any) -> None:
    spare_what_is_loaded()


def post_worker_init(worker: Any) -> None:
    spare_what_is_loaded()
    end_at_once_on_ctrl_c()
    if settings.metrics_token:
        worker.wsgi.extensions["metrics"].begin()


def on_exit(server: Any) -> None:
    if settings.metrics_token:
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


if __name__ == "__main__":
    # gunicorn takes two settings from the environment before it comes here, and neither a blank in the one nor a
    # mistake in the other, which have been told by now, and by name.
    os.environ["WEB_CONCURRENCY"] = str(workers)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", __file__])  # noqa: S606
