"""What the commands have in common: how they fail, and what they get at."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress(of: str, number: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many of `number` are done, told by calls of what this gives with how many more."""
    in_sight = sys.stderr.isatty()
    with click.progressbar(length=number, label=of, file=sys.stderr, hidden=not in_sight) as bar:
        yield bar.update
