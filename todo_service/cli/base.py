"""What the commands have in common: how they fail, and what they get at."""

from typing import Any

import click
from flask import current_app
from psycopg2 import Error as DriverError
from sqlalchemy.exc import DBAPIError

from ..config import Settings
from ..db.diagnosis import explained
from ..db.session import Session
from ..errors import Problem


class Command(click.Command):
    """One that tells what it fails with in a line, what is wrong and what to do, and ends with exit status 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (Problem, DriverError, DBAPIError) as error:
            raise click.ClickException(explained(error)) from None


def settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def session_of(user: str) -> Session:
    return Session(current_app.extensions["engine"], user)


def unscoped() -> Session:
    """A session for what concerns all users."""
    return Session(current_app.extensions["engine"], unscoped=True)
