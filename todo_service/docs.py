"""The API's documentation: OpenAPI 3.1 at /api/openapi.json, Swagger UI at /api/docs from files the service has itself.

The document is made from the blueprints and schemas when the app starts; what holds for many operations alike (errors,
conditional headers, the bearer token) is added here instead of on every view.
"""

from importlib.resources import files
from typing import Any

import flask_smorest
import orjson
from flask import Blueprint, Flask, Response, current_app, g, send_from_directory
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from . import errors
from .fields import Time
from .schemas import ID, ProblemDetails

VERSION = "1.0.0"
ABOUT = """\
Tasks for apps whose users sign in with [Better Auth](https://www.better-auth.com). Press **Authorize** and paste
a token: `(await authClient.token()).data.token` in the frontend, or `flask token --user NAME` in development.

Every path under `/api/tasks` also exists as `/api/{user_id}/tasks`, for the token's own user. Unknown fields and
parameters are ignored; send `Prefer: handling=strict` to be told of them.
"""

# Each error as the service would answer it, and what it means.
ERRORS: dict[errors.Problem | HTTPException, str] = {
    errors.InvalidRequest("The body names the same field twice.", code="duplicate-field"): (
        "Not JSON, not UTF-8, a field twice, or nested too deep; or an `Authorization` header that can't be read."
    ),
    errors.Unauthorized("the token has expired; get a fresh one with authClient.token()"): (
        "No token, or not a valid one; the `WWW-Authenticate` header and `detail` say why."
    ),
    errors.Forbidden("This task belongs to another user."): "The task is another user's, or there is no room for more.",
    errors.NotFound("There is no task with this id."): "No such task.",
    errors.PreconditionFailed('The task has changed: its version is now "18". Read it again, then retry.'): (
        "The task has changed since the version in `If-Match`."
    ),
    RequestEntityTooLarge(): "The body is larger than 1 MiB.",
    errors.UnsupportedMedia("The body must be JSON."): "The body is not sent as `application/json`.",
    errors.Invalid([("title", "Length must be between 1 and 200.")]): "A bad value; `errors` names each field.",
    errors.TooManyRequests("Too many requests; try again in 42 s.", 42): "Try again after `Retry-After` seconds.",
    errors.Unavailable("The database cannot be reached."): "Try again after `Retry-After` seconds.",
}
IF_MATCH = 'Change only this version: an ETag, as `"17"`. Answered by 412 when the task has changed since.'
IF_NONE_MATCH = "The ETag of what the client has: answered by 304 while nothing has changed."
PREFER = "`handling=strict` refuses unknown fields and parameters with 422."
# What Swagger UI proposes to send: a few fields, where the schema's own examples would make it all of them.
BODIES = {
    "TaskCreate": {"title": "Buy milk", "priority": "high", "due_date": "2026-12-31", "tags": ["shopping"]},
    "TaskUpdate": {"title": "Buy oat milk", "due_date": "2026-12-31T18:00:00+01:00"},
}

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>todo_service API</title>
<link rel="icon" href="/api/docs/favicon-32x32.png">
<link rel="stylesheet" href="/api/docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="/api/docs/swagger-ui-bundle.js"></script>
<script src="/api/docs/start.js"></script>
</html>
"""
START = """window.ui = SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
"""
# Nothing from elsewhere, and no script that is not one of the files above; the interface sets styles of its own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)

blueprint = Blueprint("docs", __name__, url_prefix="/api")


class Api(flask_smorest.Api):  # type: ignore[misc]  # the library has no types
    """flask-smorest's document, without its own errors and pages: errors leave through `errors.py`."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        pass


def api_of(app: Flask) -> Api:
    """The document of `app`, to register blueprints in; `publish` serves it when all are there."""
    app.config |= {"API_TITLE": "todo_service", "API_VERSION": VERSION, "OPENAPI_VERSION": "3.1.0"}
    api = Api(app, spec_kwargs={"info": {"description": ABOUT}})
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    api.register_field(Time, "string", "date-time")
    api.spec.components.schema("Problem", schema=ProblemDetails)
    with app.app_context():
        g.request_id = ID
        for error, description in ERRORS.items():
            answer = errors.from_http(error) if isinstance(error, HTTPException) else errors.render(error)
            api.spec.components.response(f"Error{answer.status_code}", documented(answer, description))
    return api


def documented(error: Response, description: str) -> dict[str, Any]:
    """An OpenAPI response whose example is `error`, with the headers that belong to it."""
    schema = {"$ref": "#/components/schemas/Problem"}
    headers = {name: value for name, value in error.headers.items() if not name.startswith("Content-")}
    return {
        "description": description,
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in headers.items()},
        "content": {errors.PROBLEM_JSON: {"schema": schema, "example": orjson.loads(error.get_data())}},
    }


def publish(app: Flask, api: Api) -> None:
    """Complete the document and serve it."""
    document = api.spec.to_dict()
    for path, operations in document["paths"].items():
        operations.pop("parameters", None)
        for method, operation in operations.items():
            complete(path, method, operation)
    for name, schema in document["components"]["schemas"].items():
        # Unknown fields are ignored, and an answer may get new ones.
        schema.pop("additionalProperties", None)
        if name in BODIES:
            schema["example"] = BODIES[name]
    app.extensions["openapi"] = orjson.dumps(document)
    app.register_blueprint(blueprint)


def complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add what every operation of this kind has."""
    one, body = "{id}" in path, "requestBody" in operation
    parameters = operation.setdefault("parameters", [])
    statuses = ["400", "401", "429", "503", *(["413", "415"] if body else []), *(["403", "404"] if one else [])]
    if body or parameters:
        statuses.append("422")
        parameters.append(parameter("header", "Prefer", PREFER, {"examples": ["handling=strict"]}))
    if method == "get":
        operation["responses"]["304"] = {"description": "Nothing has changed since the version in `If-None-Match`."}
        parameters.append(parameter("header", "If-None-Match", IF_NONE_MATCH, {"examples": ['"17"']}))
    elif one:
        statuses.append("412")
        parameters.append(parameter("header", "If-Match", IF_MATCH, {"examples": ['"17"']}))
    if one:
        parameters.insert(0, parameter("path", "id", "The task's id.", {"format": "uuid", "examples": [ID]}))
    elif method == "post":
        statuses.append("403")
    operation["responses"] |= {status: {"$ref": f"#/components/responses/Error{status}"} for status in statuses}
    operation["responses"] = dict(sorted(operation["responses"].items()))
    operation["security"] = [{"bearer": []}]


def parameter(place: str, name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A string. Examples stand in its schema: Swagger UI would send one of the parameter's own if nobody removed it."""
    described = {"description": description, "required": place == "path", "schema": {"type": "string"} | schema}
    return {"in": place, "name": name} | described


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document"""
    return Response(current_app.extensions["openapi"], content_type="application/json")


@blueprint.get("/docs")
def page() -> Response:
    """Swagger UI"""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@blueprint.get("/docs/start.js")
def start() -> Response:
    """What starts Swagger UI: a file, so that the page needs no inline script"""
    return Response(START, content_type="text/javascript; charset=utf-8")


@blueprint.get("/docs/<asset>")
def asset(asset: str) -> Response:
    """A file of Swagger UI"""
    if asset not in ASSETS:
        raise errors.NotFound("The documentation has no such file.")
    return send_from_directory(str(files("flask_swagger_ui") / "dist"), asset, mimetype=ASSETS[asset], max_age=86400)
