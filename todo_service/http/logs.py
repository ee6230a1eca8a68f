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

from ..config import Settings

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
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = given if given and REQUEST_ID.fullmatch(given) else str(uuid7())


def end(response: Response) -> Response:
    response.headers.add("X-Request-ID", g.request_id)
    if log.isEnabledFor(logging.INFO):
        ms = round((time.perf_counter() - g.began) * 1000, 1)
        log.handle(Line(request.method, quote(request.path), response.status_code, ms, g.get("owner"), g.request_id))
    return response


RECORD = vars(logging.makeLogRecord({"name": log.name, "levelno": logging.INFO, "levelname": "INFO"}))


class Line(logging.LogRecord):
    """The record of a request; where in the code it is made, and in which thread, is not found out each time."""

    def __init__(self, *values: object) -> None:
        self.__dict__.update(RECORD)
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        line = LINE % values
        self.msg = line if line.isprintable() else LINE % tuple(map(printable, values))
        self.__dict__.update(zip(FIELDS, values, strict=True))


def printable(value: object) -> object:
    return value.encode("unicode_escape").decode() if isinstance(value, str) and not value.isprintable() else value
