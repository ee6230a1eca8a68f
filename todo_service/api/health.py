"""Is the service alive, and can it serve? For the load balancer, the container's health check and the operator."""

import mmap
import time

from flask import Blueprint, Response, current_app

from ..config import VERSION
from ..db.diagnosis import not_migrated, schema_revision
from ..db.models import REVISION
from ..db.session import Session
from ..errors import Unavailable
from ..http.conditions import answer

blueprint = Blueprint("health", __name__, url_prefix="/health")

# One byte, which a server's first process shares with all that it forks: 1 from when the service is about to stop.
STOP = mmap.mmap(-1, 1)
# How long requests are still taken while readiness fails, so that balancers see it before they are refused.
LINGER_SECONDS = 2


def announce_the_stop() -> None:
    """Let readiness fail, in all processes, and wait until that has got around."""
    STOP[0] = 1
    time.sleep(LINGER_SECONDS)


@blueprint.get("/live")
def live() -> Response:
    """The process answers; says nothing of the database, so that its outage restarts no containers."""
    return answer({"status": "ok"})


@blueprint.get("/ready")
def ready() -> Response:
    """The database answers too, with a schema that is not older than the code, and the service is not about to stop.

    Otherwise 503, and no traffic should come here. A newer schema will do: migrations add before they take away.
    """
    if STOP[0]:
        raise Unavailable("The service is stopping.")
    with Session(current_app.extensions["engine"], unscoped=True) as session:
        found = schema_revision(session)
    if found is None or found < REVISION:
        raise not_migrated(f"found revision {found or 'none'}, needed is {REVISION}.")
    return answer({"status": "ok", "version": VERSION, "schema": found})
