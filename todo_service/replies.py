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
        return problem(414, "uri-too-long", "The address is too long.")
    if isinstance(error, LimitRequestHeaders):
        return problem(431, "headers-too-large", "The request's header fields are too large, or too many.")
    if isinstance(error, ExpectationFailed):
        return problem(417, "expectation-failed", "The only thing that can be expected here is 100-continue.")
    return problem(400, "bad-request", "The request is not HTTP as it should be.")


def late() -> Problem:
    return problem(408, "timeout", "The request took too long to arrive.")


def problem(status: int, code: str, detail: str) -> Problem:
    made = Problem(detail, code=code)
    made.status = status
    return made


def refusal(problem: Problem, request_id: str) -> bytes:
    """A whole answer, after which the connection is closed."""
    body = document(problem, request_id)
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"Date: {http_date()}",
        f"Content-Type: {PROBLEM_JSON}",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {request_id}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    return "\r\n".join([*head, "", ""]).encode() + body
