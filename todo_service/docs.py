"""The API's documentation: OpenAPI 3.1 at /api/openapi.json, Swagger UI at /api/docs from files the service has itself.

The document is made from the blueprints and schemas when the app starts; what holds for many operations alike (errors,
conditional headers, the bearer token) is added here instead of on every view.
"""

from importlib.resources import files
from typing import Any

import flask_smorest
import orjson
from flask import Blueprint, Flask, Response, send_from_directory

from .errors import PROBLEM_JSON, NotFound
from .schemas import ProblemDetails

VERSION = "1.0.0"
ABOUT = """\
Tasks for apps whose users sign in with [Better Auth](https://www.better-auth.com). Press **Authorize** and paste
a token: `(await authClient.token()).data.token` in the frontend, or `flask token --user NAME` in development.

Every path under `/api/tasks` also exists as `/api/{user_id}/tasks`, for the token's own user. Unknown fields and
parameters are ignored; send `Prefer: handling=strict` to be told of them.
"""

ERRORS = {
    "400": "Not JSON, not UTF-8, a field twice, or nested too deep.",
    "401": "No token, or not a valid one; the `WWW-Authenticate` header and `detail` say why.",
    "403": "The task is another user's, or there is no room for more.",
    "404": "No such task.",
    "412": "The task has changed since the version in `If-Match`.",
    "413": "The body is larger than 1 MiB.",
    "415": "The body is not sent as `application/json`.",
    "422": "A field or parameter has a bad value; `errors` names each.",
    "503": "The database or the key server cannot be reached; try again after `Retry-After` seconds.",
}
IF_MATCH = 'Change only this version: an ETag, as `"17"`. Answered by 412 when the task has changed since.'
IF_NONE_MATCH = "The ETag of what the client has: answered by 304 while nothing has changed."
PREFER = "`handling=strict` refuses unknown fields and parameters with 422."

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
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
    """flask-smorest's document, without its error handler: errors leave through `errors.py`."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        pass


def api_of(app: Flask) -> Api:
    """The document of `app`, to register blueprints in; `publish` serves it when all are there."""
    app.config |= {"API_TITLE": "todo_service", "API_VERSION": VERSION, "OPENAPI_VERSION": "3.1.0"}
    api = Api(app, spec_kwargs={"info": {"description": ABOUT}})
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    api.spec.components.schema("Problem", schema=ProblemDetails)
    for status, description in ERRORS.items():
        content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        api.spec.components.response(f"Error{status}", {"description": description, "content": content})
    return api


def publish(app: Flask, api: Api) -> None:
    """Complete the document and serve it."""
    document = api.spec.to_dict()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "parameters":
                complete(path, method, operation)
    app.extensions["openapi"] = orjson.dumps(document)
    app.register_blueprint(blueprint)


def complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add what every operation of this kind has."""
    one, body = "{id}" in path, "requestBody" in operation
    statuses = ["401", "422", "503", *(["400", "413", "415"] if body else []), *(["403", "404"] if one else [])]
    parameters = operation.setdefault("parameters", [])
    if method == "get":
        operation["responses"]["304"] = {"description": "Nothing has changed since the version in `If-None-Match`."}
        parameters.append(header("If-None-Match", IF_NONE_MATCH, '"17"'))
    elif one:
        statuses.append("412")
        parameters.append(header("If-Match", IF_MATCH, '"17"'))
    parameters.append(header("Prefer", PREFER, "handling=strict"))
    for status in sorted(statuses):
        operation["responses"][status] = {"$ref": f"#/components/responses/Error{status}"}
    operation["security"] = [{"bearer": []}]


def header(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "in": "header",
        "name": name,
        "description": description,
        "schema": {"type": "string", "examples": [example]},
    }


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document"""
    from flask import current_app

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
        raise NotFound("The documentation has no such file.")
    return send_from_directory(str(files("flask_swagger_ui") / "dist"), asset, mimetype=ASSETS[asset], max_age=86400)
