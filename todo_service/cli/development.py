"""What a developer runs: `flask serve`, `flask token`, `flask seed`."""

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
from flask.cli import with_appcontext

from ..config import ROOT, Settings
from ..db.engine import address
from ..formats import entries
from ..tasks.imports import add_tasks
from .base import Command, progress, session_of, settings
from .schema import upgrade

VERBS = ("Buy", "Call", "Write to", "Repair", "Plan", "Read", "Clean", "Return", "Book", "Water")
THINGS = ("the neighbours", "the bike", "a birthday present", "the tax office", "the garden", "a train", "the library")


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
    with progress("users", users) as done:
        for number in range(1, users + 1):
            # The same ones each time, however many.
            user, draw = f"user-{number}", random.Random(number)  # noqa: S311
            drawn = ((f"task {n}", made_up(draw)) for n in range(tasks))
            with session_of(user) as session:
                made += add_tasks(session, entries.rows(user, drawn, datetime.now(UTC)))
            done(1)
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
