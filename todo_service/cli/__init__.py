"""The `flask` commands: the operator's (schema.py, distribution.py, upkeep.py, users.py), the developer's
(development.py).
"""

from flask import Flask

from ..config import Settings
from .base import unscoped
from .development import seed, serve, stop_with, token
from .distribution import distribute
from .schema import migrate, upgrade
from .upkeep import check, purge, renew
from .users import export_user, forget, user

__all__ = ["register", "stop_with", "unscoped", "upgrade"]


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its commands."""
    app.extensions["settings"] = settings
    for command in (migrate, distribute, check, purge, renew, user, export_user, forget, serve, token, seed):
        app.cli.add_command(command)
