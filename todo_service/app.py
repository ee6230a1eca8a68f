"""The app factory: puts the parts together, in the order in which a request meets them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, request
from werkzeug.wsgi import get_host

from . import cli, errors
from .api import addresses, batch, blueprint, changes, document, health, stats, tasks, transfer
from .api.blueprint import TaskConverter
from .config import Settings, load
from .db import embedded
from .db.engine import make_engine
from .db.replica import Replica
from .http import conditions, cookie, cors, logs, metrics, parsing, rate_limit
from .http.gate import gate_for
from .http.tokens.authenticator import Authenticator
from .schemas import dialect

MAX_BODY = 1024 * 1024


class Service(Flask):
    """Flask, whose functions are all plain ones."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Not looked at to find out whether it is a coroutine, as Flask does several times in each request."""
        return func


def refuse_other_hosts(trusted: tuple[str, ...]) -> None:
    """Raise SecurityError, a 400, for a Host that is none of `trusted`.

    Flask's own TRUSTED_HOSTS would refuse kubelets, load balancers and Prometheus, who send the address they call.
    """
    if request.blueprint != health.blueprint.name and request.path != metrics.PATH:
        get_host(request.environ, trusted)


def create_app(settings: Settings | None = None) -> Flask:
    """The service as a WSGI app. Without `settings` they are read from the environment; raises SettingsError."""
    settings = settings or load()
    if settings.database_url is None:
        embedded.package()
    logs.configure(settings)
    app = Service("todo_service", static_folder=None)
    app.request_class = parsing.Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    # A redirect, be it to the address without the slash or to the other family, would break a browser's preflight.
    app.url_map.strict_slashes = app.url_map.merge_slashes = app.url_map.redirect_defaults = False
    app.url_map.converters["task"] = TaskConverter
    cli.register(app, settings)
    logs.register(app)
    if settings.trusted_hosts:
        app.before_request(partial(refuse_other_hosts, settings.trusted_hosts))
    rate_limit.register(app, settings)
    app.after_request(conditions.caching)
    app.after_request(parsing.read_the_rest)
    if settings.cors_origins:
        cors.register(app, settings.cors_origins)
    cookie.register(app, settings)
    errors.register(app, settings.dialect.error)
    conditions.register(app, settings.dialect.mark)
    dialect.register(app, settings.dialect, blueprint.address)
    api = document.api_of(app)
    for module in (tasks, batch, changes, stats, transfer):
        api.register_blueprint(module.blueprint)
    document.publish(app, api)
    app.register_blueprint(health.blueprint)
    app.extensions["authenticator"] = Authenticator(settings)
    app.extensions["gate"] = gate_for(settings.threads, settings.pool_size)
    app.extensions["engine"] = make_engine(settings)
    app.extensions["replica"] = Replica(make_engine(settings, settings.read_url)) if settings.read_url else None
    metrics.register(app, settings)
    addresses.add_routes(app, settings.dialect)
    return app
