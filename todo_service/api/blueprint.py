"""A blueprint whose every route exists twice: /api/tasks… (in the documentation) and /api/{user_id}/tasks….

Half of the frontends call the second family. It is the same view with the same endpoint; the `user_id` is taken out of
the arguments before the view sees them, and `authentication.bearer` holds it against the token.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

import flask
import flask_smorest
from flask import g, request
from marshmallow import Schema
from werkzeug.routing import BaseConverter

from ..http import parsing
from ..http.current import current_request
from ..schemas.dialect import Shapes, shapes

View = TypeVar("View", bound=Callable[..., Any])

# What stands beside the tasks: not an id, so that a method which it doesn't take is a 405 with its own Allow.
BESIDE = ("batch", "changes", "export", "import", "stats")


class TaskConverter(BaseConverter):
    """What may be a task's id in an address; whether it is one, the view finds out when it knows who asks."""

    regex = f"(?!(?:{'|'.join(BESIDE)})$)[^/]+"
    # One part of the address, so that a slash may follow; werkzeug would conclude otherwise from the slash above.
    part_isolating = True


ETAG = '"17-5f0c93b1a2d4"'
HEADERS = {
    "ETag": ("For If-Match and If-None-Match. No other user's is the same.", ETAG),
    "Link": ('The next page, `<…>; rel="next"`; absent on the last one.', '<https://…/api/tasks?cursor=…>; rel="next"'),
    "Ignored-Parameters": (
        "The names of parameters that the service doesn't know, percent-encoded; cut short after 50 characters, and "
        "after ten names.",
        "page, fields",
    ),
    "Location": ("Where the new task is.", "/api/tasks/0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10"),
    "Content-Disposition": ("That it is a file, and its name.", 'attachment; filename="tasks-2026-12-31.json"'),
    "X-Total-Count": ("With `count=true`: how many tasks match, on all pages together.", "42"),
    "Idempotency-Replayed": ("`true` when this is the answer to an earlier request with the same key.", "true"),
}


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # the library has no types
    """flask-smorest's blueprint under /api, with both families and stable operation ids.

    What flask-smorest does for a route it does once, for the documentation; nothing of it runs with each request.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, __name__, url_prefix="/api", description=description)
        self.url_value_preprocessor(take_path_user)

    def add_url_rule(
        self, rule: str, endpoint: str | None = None, view_func: Callable[..., Any] | None = None, **options: Any
    ) -> None:
        assert view_func is not None
        endpoint = endpoint or view_func.__name__
        super().add_url_rule(rule, endpoint, view_func, **options)
        options = {name: value for name, value in options.items() if name not in ("parameters", "tags")}
        flask.Blueprint.add_url_rule(self, f"/<user_id>{rule}", endpoint, view_func, alias=True, **options)
        for method, doc in self._docs[endpoint].items():
            if method != "parameters":
                verb, _, noun = endpoint.partition("_")
                doc["manual_doc"] = doc.get("manual_doc", {}) | {
                    "operationId": ("put" if method == "put" else verb) + noun.title().replace("_", "")
                }

    if TYPE_CHECKING:  # the library has no types

        def get(self, rule: str) -> Callable[[View], View]: ...
        def post(self, rule: str) -> Callable[[View], View]: ...
        def patch(self, rule: str) -> Callable[[View], View]: ...
        def delete(self, rule: str) -> Callable[[View], View]: ...
        def route(self, rule: str, *, methods: list[str]) -> Callable[[View], View]: ...
        def doc(self, **documented: Any) -> Callable[[View], View]: ...

    def arguments(self, schema: Schema, *, location: str = "json", **options: Any) -> Callable[[View], View]:
        """Give a view what the request has of `schema`, in the body or (`location="query"`) in the address."""
        document = super().arguments(schema, location=location, **options)
        read = parsing.query if location == "query" else parsing.body

        def decorate(view: View) -> View:
            @functools.wraps(view)
            def reading(*args: Any, **kwargs: Any) -> Any:
                return view(*args, read(shapes().schema(schema)), **kwargs)

            reading._apidoc = document(view)._apidoc  # type: ignore[attr-defined]
            return cast(View, reading)

        return decorate

    def response(self, status: int, schema: Any = None, **documented: Any) -> Callable[[View], View]:
        """Document an answer. The views make their answers themselves, so nothing is wrapped around them."""
        document = super().response(status, schema, **documented)

        def decorate(view: View) -> View:
            view._apidoc = document(view)._apidoc  # type: ignore[attr-defined]
            return view

        return decorate

    def _prepare_arguments_doc(self, doc: Any, doc_info: dict[str, Any], *, app: flask.Flask, **kwargs: Any) -> Any:
        """Put the dialect's schemas in here, as flask-smorest asks for this first when it documents a view."""
        spoken: Shapes = app.extensions["shapes"]
        if not spoken.blank:
            doc_info |= spoken.documented(doc_info)
        return super()._prepare_arguments_doc(doc, doc_info, app=app, **kwargs)

    @staticmethod
    def headers(*names: str) -> dict[str, Any]:
        """The documentation of response headers."""
        return {
            name: {"description": HEADERS[name][0], "schema": {"type": "string"}, "example": HEADERS[name][1]}
            for name in names
        }


def take_path_user(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values and "user_id" in values:
        g.path_user = values.pop("user_id")


def path() -> str:
    """The path of this request, as it has to stand in a header: percent-encoded (RFC 3986, section 2.1)."""
    asked = current_request()
    return quote(asked.root_path + asked.path)


def address() -> str:
    """Where the tasks are, at the address that this request goes to."""
    assert request.url_rule is not None
    parts = request.url_rule.rule.split("/")
    depth = parts.index("<task:id>") if "<task:id>" in parts else len(parts) - (parts[-1] in BESIDE)
    whole = quote(request.root_path + "/".join(request.path.split("/")[:depth]))
    return f"{request.scheme}://{request.host}{whole}"
