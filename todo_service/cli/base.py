"""What the commands have in common: how they fail, and what they get at."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
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
def progress(of: str, number: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many of `number` are done, told by calls of what this gives with how many more.

    Without a `number` only how many: to count what there is of all users may take longer than a statement may.
    """
    shown: dict[str, Any] = {"label": of, "file": sys.stderr, "hidden": not sys.stderr.isatty()}
    shown |= {"iterable": count(), "show_pos": True} if number is None else {"length": number}
    with click.progressbar(**shown) as bar:
        yield bar.update
