"""What the service tells its operator: one line a request, as text or as JSON, with an id that the client sees too.

Never in a line: tokens, bodies, query strings, settings. Paths are written percent-encoded, so nobody can forge a line.
"""

import logging
import re
import sys
import time
from urllib.parse import quote

import orjson
from flask import Flask, Response, g, request
from uuid_utils import uuid7

from .config import Settings

log = logging.getLogger("todo_service.requests")

LINE = "%s %s %s %sms user=%s id=%s"
FIELDS = ("method", "path", "status", "ms", "user", "request_id")
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", flags=re.ASCII)


class JsonLine(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(settings: Settings) -> None:
    """Send this process's log to standard error in the configured form, times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
    handler.setFormatter(JsonLine() if settings.log_format == "json" else text)
    handler.formatter.converter = time.gmtime  # type: ignore[union-attr]
    logger = logging.getLogger("todo_service")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(settings.log_level)


def register(app: Flask) -> None:
    """Give every request an id and log its end."""
    app.before_request(begin)
    app.after_request(end)


def begin() -> None:
    """Take the client's X-Request-ID where it is harmless, so that its log and ours can be put side by side."""
    g.began = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else str(uuid7())


def end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if log.isEnabledFor(logging.INFO):
        ms = round((time.perf_counter() - g.began) * 1000, 1)
        values = (request.method, quote(request.path), response.status_code, ms, g.get("owner"), g.request_id)
        # Without the search for the line of code that writes it: it's this one.
        record = logging.LogRecord(log.name, logging.INFO, __file__, 0, LINE, tuple(map(printable, values)), None)
        record.__dict__.update(zip(FIELDS, values, strict=True))
        log.handle(record)
    return response


def printable(value: object) -> object:
    return value.encode("unicode_escape").decode() if isinstance(value, str) and not value.isprintable() else value
