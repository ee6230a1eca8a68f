"""What the worker sends by itself: the head of each answer, and refusals of what doesn't get to the app.

When to send it is left to `worker.py`, what is wrong with a request to gunicorn's parser.
"""

import time
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

from gunicorn.http import wsgi
from gunicorn.http.errors import ExpectationFailed, LimitRequestHeaders, LimitRequestLine
from gunicorn.util import http_date

from .errors import PROBLEM_JSON, Problem, document
from .etags import NOT_KEPT


class Reply(wsgi.Response):
    """gunicorn's response, less what it checks of headers: they come from Werkzeug, which has checked them."""

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        self.headers = list(headers)
        length = next((value for name, value in self.headers if name == "Content-Length"), None)
        self.response_length = None if length is None else int(length)

    def default_headers(self) -> list[str]:
        version: tuple[int, int] = self.req.version  # type: ignore[assignment]
        lines = [
            f"HTTP/{version[0]}.{version[1]} {self.status}\r\n",
            date_line(int(time.time())),
            "Connection: close\r\n" if self.should_close() else "Connection: keep-alive\r\n",
        ]
        return [*lines, "Transfer-Encoding: chunked\r\n"] if self.chunked else lines


@lru_cache(maxsize=1)
def date_line(second: int) -> str:
    return f"Date: {http_date(second)}\r\n"


def malformed(error: Exception) -> Problem:
    """What is wrong with a request that gunicorn can't read (RFC 9112), told without repeating any of it."""
    if isinstance(error, LimitRequestLine):
        return Problem("The address is too long.", status=414, code="uri-too-long")
    if isinstance(error, LimitRequestHeaders):
        return Problem("The request's header fields are too large, or too many.", status=431, code="headers-too-large")
    if isinstance(error, ExpectationFailed):
        detail = "The only thing that can be expected here is 100-continue."
        return Problem(detail, status=417, code="expectation-failed")
    return Problem("The request is not HTTP as it should be.", status=400, code="bad-request")


def late() -> Problem:
    return Problem("The request took too long to arrive.", status=408, code="timeout")


def refusal(problem: Problem, request_id: str) -> bytes:
    """A whole answer, after which the connection is closed."""
    body = document(problem, request_id)
    headers = NOT_KEPT | {
        "Content-Type": PROBLEM_JSON,
        "Content-Length": str(len(body)),
        "X-Request-ID": request_id,
        "Connection": "close",
    }
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
    return "".join([status, date_line(int(time.time())), *lines, "\r\n"]).encode() + body
