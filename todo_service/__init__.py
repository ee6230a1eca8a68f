"""Tasks for the users of Better Auth: tokens verified, tasks kept in PostgreSQL, nobody's rows shown to anyone else.

What stands where; a module imports only from the lines below its own, never from above:

    app          the factory: puts everything together
    worker       how gunicorn serves it             serving    requests taken, answers sent
    cli          the `flask` commands               connections the clients' connections
    service      views that wait for their turn     replies    what the worker answers by itself
    tasks        one task, and the list             batch      many operations as one
    changes      delta sync                         stats      counts
    transfer     export and import                  metrics    Prometheus
    health       is it alive, can it serve
    docs         the OpenAPI document               blueprint  routes in both families
    swagger      the pages that show it             retention  what is removed for good
    idempotency  a POST repeated is done once
    portable     what files have -> tasks           imports    many tasks at once, all or none
    formats_json, formats_csv, formats_ics          what the files look like
    plans        changes that must look first       planning   what operations make of tasks
    creation     new tasks                          ordering    the manual order, and room in it
    auth         bearer token -> owner              jwks       the key server's keys
    mutations    changes in one statement           queries    everything that reads tasks
    schemas      the shapes of requests, answers    parameters what addresses may ask for
    fields       the types of their fields
    parsing      body and query -> view             etags      versions and conditions
    listing      filters and order of a list        dues       due dates compared
    recurrence   what follows an occurrence         rrule      the language of its rules
    limits       how often a user may ask           logs       one line a request
    cors         which pages may read the answers   search     text as it is compared
    pagination   cursors
    db           connections, and whose rows a statement sees
    turns        one user's changes, in turn        statements SQL, compiled and prepared
    errands      what one thread leaves to another  lead       which thread serves
    deadlines    how long an answer may take        embedded   the bundled PostgreSQL
    models       the tables                         config     settings
    errors       every failure, and its one way out
"""

from .app import create_app

__all__ = ["create_app"]
