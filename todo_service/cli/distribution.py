"""`flask distribute`: the tables spread over the nodes of a Citus cluster."""

import click
from flask.cli import with_appcontext

from ..db import distribution
from ..db.engine import address
from .base import Command, settings

NO_EXTENSION = "the database has no extension citus, so there are no nodes to spread tables over; nothing was changed"


@click.command(cls=Command)
@click.option("--check", is_flag=True, help="Change nothing; tell what is to be done yet. Exit status 1 if there is.")
@with_appcontext
def distribute(check: bool) -> None:
    """Spread the tables over the nodes of a Citus cluster, by user. To repeat it is no failure."""
    with distribution.cluster(address(settings())) as cursor:
        if cursor is None:
            raise click.ClickException(NO_EXTENSION)
        if check:
            found = list(distribution.state(cursor))
            for what, todo in found:
                click.echo(f"to do  {what}: {todo}" if todo else f"done   {what}")
            raise click.exceptions.Exit(int(any(todo for _, todo in found)))
        for table in distribution.distribute(cursor):
            click.echo(f"{table}: spread by user_id")
    click.echo("all tables lie on the nodes")
