"""The request that is being answered and what belongs to it, found once for all that a function does with it.

Flask's `request` and `g` look for it again at each use of an attribute, which takes twenty times as long as the use;
that is up to a tenth of what a read takes. What is behind them is to be had in the way that Flask documents ("Notes On
Proxies"). A function that needs a single attribute takes it from them.
"""

from typing import cast

import flask
from flask.ctx import _AppCtxGlobals
from werkzeug.local import LocalProxy


def current_request() -> flask.Request:
    """What stands behind `flask.request`."""
    return cast("LocalProxy[flask.Request]", flask.request)._get_current_object()


def current_g() -> _AppCtxGlobals:
    """What stands behind `flask.g`."""
    return cast("LocalProxy[_AppCtxGlobals]", flask.g)._get_current_object()
