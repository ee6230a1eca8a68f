"""The token in a cookie, for a frontend that sends no other (the dialect's `cookie=NAME`).

A browser sends cookies along whoever's page it is that makes it call. So a change by cookie must come from a page of an
origin that is listed in CORS_ORIGINS, or of the service's own; what browsers say of that, no page can say otherwise
(the Fetch standard, forbidden request headers). Reads need no such care: other pages can't see the answers.
"""

from flask import Flask, Response, current_app, request

from ..config import Settings
from ..errors import Forbidden


def register(app: Flask, settings: Settings) -> None:
    """Have `app` take tokens from the dialect's cookie, if there is one."""
    app.extensions["cookie"] = settings.dialect.cookie, frozenset(settings.cors_origins)
    if settings.dialect.cookie:
        app.after_request(vary)


def cookie_token() -> str | None:
    """The token in the cookie; None if there is none. Raises Forbidden for a change that a page not listed asks for."""
    name, origins = current_app.extensions["cookie"]
    token = request.cookies.get(name) if name else None
    if token and request.method not in ("GET", "HEAD"):
        headers = request.headers
        if headers.get("Sec-Fetch-Site") != "same-origin" and headers.get("Origin") not in origins:
            detail = "A change with a cookie must come from a page of an origin that is listed in CORS_ORIGINS."
            raise Forbidden(detail, code="cross-site")
    return token


def vary(response: Response) -> Response:
    """Let no cache give one user's answer to another."""
    response.vary.add("Cookie")
    return response
