"""The `flask` commands: for the operator (migrate, purge, renew, forget) and for the developer (serve, token, seed)."""

import os
import random
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

import click
import jwt
from flask import Flask, current_app
from flask.cli import with_appcontext
from psycopg2 import Error as DriverError
from sqlalchemy.exc import DBAPIError

from .config import ROOT, Settings
from .db.diagnosis import explained
from .db.engine import address
from .db.models import REVISION
from .db.session import Session
from .errors import Problem
from .formats import entries
from .tasks import retention
from .tasks.imports import add_tasks

VERBS = ("Buy", "Call", "Write to", "Repair", "Plan", "Read", "Clean", "Return", "Book", "Water")
THINGS = ("the neighbours", "the bike", "a birthday present", "the tax office", "the garden", "a train", "the library")


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its commands."""
    app.extensions["settings"] = settings
    for function in (migrate, purge, renew, forget, serve, token, seed):
        app.cli.add_command(function)


def settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def unscoped() -> Session:
    """A session for what concerns all users."""
    return Session(current_app.extensions["engine"], unscoped=True)


class Command(click.Command):
    """One that tells what it fails with in a line, what is wrong and what to do, and ends with exit status 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (Problem, DriverError, DBAPIError) as error:
            raise click.ClickException(explained(error)) from None


@click.command(cls=Command)
@with_appcontext
def migrate() -> None:
    """Bring the database's schema up to date."""
    found = upgrade(address(settings()))
    if found == REVISION:
        click.echo(f"the schema is up to date: revision {found}")
    elif found and found > REVISION:
        click.echo(f"the schema is newer than this service, and left as it is: revision {found}, needed is {REVISION}")
    else:
        click.echo(f"the schema is migrated: from {f'revision {found}' if found else 'nothing'} to revision {REVISION}")


def upgrade(url: str) -> str | None:
    """Apply the migrations that are missing; the revision that was there. Waits for another process that is at it."""
    # Large, and nothing that a server needs.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["url"] = url
    command.upgrade(config, "head")
    found: str | None = config.attributes["found"]
    return found


@click.command(cls=Command)
@with_appcontext
def purge() -> None:
    """Remove what is kept for a while only and whose time is over. For cron; may run on several machines at once."""
    with unscoped() as session:
        trash, tombstones, answers = retention.purge(session)
        left = retention.due(session)
    click.echo(f"{trash} tasks removed for good, {tombstones} tombstones dropped, {answers} Idempotency-Keys forgotten")
    if any(left):
        click.echo(f"left for the next run, as their users were busy: {listed(left)}")


@click.command(cls=Command)
@with_appcontext
def renew() -> None:
    """End all ETags and sync tokens given out so far. For a database that was restored from a backup."""
    with unscoped() as session:
        renewed = retention.renew(session)
    click.echo(f"{renewed} users renewed: their clients read lists anew, and sync from the start")


@click.command(cls=Command)
@click.argument("user_id")
@with_appcontext
def forget(user_id: str) -> None:
    """Remove everything of USER_ID, who deleted their account. To repeat it is no failure."""
    with Session(current_app.extensions["engine"], user_id) as session:
        removed = retention.forget(session)
    click.echo(f"removed all of {user_id}: {listed(removed)}" if removed else f"nothing is kept of a user {user_id}")


def listed(counts: retention.Counts) -> str:
    return f"{counts.tasks} tasks, {counts.tombstones} tombstones, {counts.answers} Idempotency-Keys"


@click.command(cls=Command)
@click.option("--user", required=True, help="The user's id: the token's subject.")
@click.option("--days", default=1, show_default=True, help="How long the token lives.")
@with_appcontext
def token(user: str, days: int) -> None:
    """Print a token for development, signed with BETTER_AUTH_SECRET."""
    click.echo(make_token(user, days))


def make_token(user: str, days: int = 1) -> str:
    secrets = settings().secrets
    if not secrets:
        raise click.ClickException("there is no BETTER_AUTH_SECRET to sign a token with")
    now = int(time.time())
    return jwt.encode({"sub": user, "iat": now, "exp": now + days * 86400}, secrets[0], "HS256")


@click.command(cls=Command)
@click.option("--users", default=10, show_default=True)
@click.option("--tasks", default=100, show_default=True, help="Tasks for each user.")
@with_appcontext
def seed(users: int, tasks: int) -> None:
    """Fill the database with made-up tasks of user-1, user-2, …; a second time adds only what is new."""
    made = 0
    in_sight = sys.stderr.isatty()
    with click.progressbar(range(1, users + 1), label="users", file=sys.stderr, hidden=not in_sight) as numbers:
        for number in numbers:
            # The same ones each time, however many.
            user, draw = f"user-{number}", random.Random(number)  # noqa: S311
            drawn = ((f"task {n}", made_up(draw)) for n in range(tasks))
            with Session(current_app.extensions["engine"], user) as session:
                made += add_tasks(session, entries.rows(user, drawn, datetime.now(UTC)))
    click.echo(f"{made} tasks made, for {users} users; {users * tasks - made} were there already")


def made_up(draw: random.Random) -> dict[str, Any]:
    return {"title": f"{draw.choice(VERBS)} {draw.choice(THINGS)}", "completed": draw.random() < 0.3}


@click.command(cls=Command)
@with_appcontext
def serve() -> None:
    """Migrate, serve with gunicorn and print what to try first: for development."""
    # gunicorn reads WEB_CONCURRENCY while it is imported, and takes neither a blank (`flask` has put the lines of .env
    # into the environment) nor what config.py has refused by now, with a better message.
    if not os.environ.get("WEB_CONCURRENCY"):
        os.environ.pop("WEB_CONCURRENCY", None)
    from gunicorn.app.wsgiapp import WSGIApplication

    # The workers find the bundled PostgreSQL by this, so that only this process starts and stops it.
    os.environ["DATABASE_URL"] = address(settings())
    upgrade(address(settings()))
    threading.Thread(target=stop_with, args=(os.getppid(),), daemon=True).start()
    sys.argv = ["gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
    gunicorn = WSGIApplication()
    first_steps = instructions(settings())
    gunicorn.cfg.set("when_ready", lambda _server: click.echo(first_steps))
    gunicorn.run()


def stop_with(parent: int) -> None:
    """End this process when `parent` (make, a terminal) is gone, so that a killed run doesn't keep the port."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def instructions(settings: Settings) -> str:
    """What to paste into a terminal and a browser first."""
    url = f"http://localhost:{settings.port}"
    send = f"curl -H 'Authorization: Bearer {make_token('alice', days=7)}'" if settings.secrets else "curl"
    return f"""
  The API's documentation:  {url}/api/docs

  Create a task:
    {send} -H 'Content-Type: application/json' -d '{{"title": "Buy milk"}}' {url}/api/tasks

  List the tasks:
    {send} {url}/api/tasks
"""
