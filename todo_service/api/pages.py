"""The document and the pages that show it: Swagger UI at /api/docs, from files the service has itself.

What the document says is left to `document.py`.
"""

from importlib.resources import files

from flask import Blueprint, Response, current_app, redirect, send_from_directory
from werkzeug import Response as Redirect

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
<style>
  /* No answer has links, and their column is more than a phone has room for. */
  .swagger-ui .response-col_links { display: none }
  @media (max-width: 480px) {
    body { margin: 0 }
    .swagger-ui .wrapper { padding: 0 8px }
    .swagger-ui :is(.responses-inner, .opblock-section .table-container) { padding: 8px }
  }
</style>
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

blueprint = Blueprint("docs", __name__)


@blueprint.get("/api/openapi.json")
def openapi() -> Response:
    """The OpenAPI document"""
    return Response(current_app.extensions["openapi"], content_type="application/json")


@blueprint.get("/")
@blueprint.get("/api")
@blueprint.get("/docs")
def to_page() -> Redirect:
    """Where people look first"""
    return redirect("/api/docs")


@blueprint.get("/api/docs")
def page() -> Response:
    """Swagger UI"""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@blueprint.get("/api/docs/start.js")
def start() -> Response:
    """What starts Swagger UI: a file, so that the page needs no inline script"""
    return Response(START, content_type="text/javascript; charset=utf-8")


# No other names: what else is there may be the tasks of a user called docs.
@blueprint.get(f"/api/docs/<any({','.join(map(repr, ASSETS))}):asset>")
def asset(asset: str) -> Response:
    """A file of Swagger UI"""
    return send_from_directory(str(files("flask_swagger_ui") / "dist"), asset, mimetype=ASSETS[asset], max_age=86400)
