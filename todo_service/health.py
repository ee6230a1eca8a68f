"""Is the service alive, and can it serve? For the load balancer, the container's health check and the operator."""

from flask import Blueprint, Response, request
from sqlalchemy import literal, select

from .db import database
from .errors import Unavailable
from .etags import answer
from .statements import Query

blueprint = Blueprint("health", __name__, url_prefix="/health")

PING = Query(select(literal(1)))
# In a request's environ: whether the process that answers it has been told to stop (`worker.py`).
STOPPING = "todo_service.stopping"


@blueprint.get("/live")
def live() -> Response:
    """The process answers; says nothing of the database, so that its outage restarts no containers."""
    return answer({"status": "ok"})


@blueprint.get("/ready")
def ready() -> Response:
    """The database answers too, and the service isn't about to stop; otherwise 503, and no traffic should come here."""
    if request.environ.get(STOPPING):
        raise Unavailable("The service is stopping.")
    database().unscoped(PING)
    return answer({"status": "ok"})
