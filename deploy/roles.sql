-- todo_service, the role that the service logs in as: no superuser, owner of nothing, with no rights but on the rows of
-- the service's tables. psql runs this as the owner of the database, the role that migrates too (on Neon, the one that
-- the console shows), before the first migration or at any time after it; to repeat it sets the password anew:
--
--     SERVICE_PASSWORD=… psql "$OWNERS_DATABASE_URL" -f deploy/roles.sql
--
-- From then on migrations have the owner's address, everything else that of todo_service.

\set ON_ERROR_STOP on
\getenv password SERVICE_PASSWORD
\if :{?password}
\else
    DO $$ BEGIN RAISE EXCEPTION 'SERVICE_PASSWORD is not set: it is to be the password of todo_service'; END $$;
\endif

BEGIN;
-- As the first migration makes it: what a request runs as, which sees one user's rows.
SELECT 'CREATE ROLE todo_app NOLOGIN' WHERE to_regrole('todo_app') IS NULL \gexec
SELECT 'CREATE ROLE todo_service LOGIN' WHERE to_regrole('todo_service') IS NULL \gexec
ALTER ROLE todo_service PASSWORD :'password';
GRANT todo_app TO todo_service;

-- What concerns all users (the purge, readiness, whose task an id is) it does itself, past row-level security, which an
-- owner is past as well. Who has BYPASSRLS may give it since PostgreSQL 16, as on Neon; before that, a superuser. Where
-- nobody may, `GRANT <the owner> TO todo_service` does instead; but then the service can drop tables, too.
ALTER ROLE todo_service BYPASSRLS;
SELECT format('GRANT CONNECT ON DATABASE %I TO todo_service', current_database()) \gexec
GRANT USAGE ON SCHEMA public TO todo_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO todo_service;
-- Those that this role's migrations will make.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO todo_service;
COMMIT;
