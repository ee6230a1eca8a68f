"""Which origins' pages may read the answers, for browsers (the Fetch standard, section 3.3).

flask-cors says what to answer; it depends on four things of the request only, so it's asked once for each.
"""

from collections.abc import Iterable
from functools import lru_cache

from flask import Flask, Response
from flask_cors.core import get_cors_headers, get_cors_options
from werkzeug.datastructures import Headers

from .current import current_request

PREFLIGHT_SECONDS = 600
EXPOSED = [
    "Content-Disposition",
    "ETag",
    "Idempotency-Replayed",
    "Ignored-Parameters",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
    "X-Total-Count",
]
ASKED = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


def register(app: Flask, origins: Iterable[str]) -> None:
    """Let pages of `origins` read the answers of `app`, errors included."""
    options = get_cors_options(
        app,
        {
            "origins": list(origins),
            "supports_credentials": True,
            "expose_headers": EXPOSED,
            "max_age": PREFLIGHT_SECONDS,
        },
    )

    @lru_cache(maxsize=256)
    def headers(method: str, *asked: str | None) -> list[tuple[str, str]]:
        given = Headers([(name, value) for name, value in zip(ASKED, asked, strict=True) if value is not None])
        found = get_cors_headers(options, given, method)
        return [(name, str(value)) for name, value in found.items(multi=True)]

    @app.after_request
    def allow(response: Response) -> Response:
        asked = current_request()
        if "HTTP_ORIGIN" in asked.environ:
            for name, value in headers(asked.method, *map(asked.headers.get, ASKED)):
                response.headers.add(name, value)
        return response
