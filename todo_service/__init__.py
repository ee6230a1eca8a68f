"""Tasks for the users of Better Auth: tokens verified, tasks kept in PostgreSQL, nobody's rows shown to anyone else.

What stands where; a module imports only from the lines below its own, never from above:

    app          the factory: puts everything together
    cli          the `flask` commands
    tasks        the tasks blueprint               health    is it alive, can it serve
    docs         OpenAPI and Swagger UI            blueprint routes in both families
    metrics      numbers for Prometheus
    auth         bearer token -> owner             jwks      the key server's keys
    mutations    everything that changes tasks     retention what is removed for good
    schemas      the shapes of requests and answers
    queries      everything that reads tasks
    parsing      body and query -> view            etags     versions and conditions
    limits       requests a user may make
    pagination   cursors                           logs      one line a request
    db           connections, and whose rows a statement sees
    models       the tables                        embedded  the bundled PostgreSQL
    errors       every failure, and its one way out
    config       settings
"""

from .app import create_app

__all__ = ["create_app"]
