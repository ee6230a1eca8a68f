# The service in a container. Stateless: it needs a database, a secret or a key server (see .env.example), and nothing
# on its disk, so it runs with a read-only root. `flask --app wsgi migrate` in the same image prepares the database.

# Python 3.11 rather than a newer one, because requirements.txt is resolved for it and all tests run on it. The tag
# pins the series and Debian's release; patch releases, which bring the security fixes, come with each build.
FROM python:3.11-slim-bookworm AS builder
WORKDIR /build
RUN python -m venv /venv
COPY requirements.txt ./
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

FROM python:3.11-slim-bookworm
# Given by who builds it for others (.github/workflows/ci.yml).
ARG REVISION= SOURCE=
LABEL org.opencontainers.image.title="todo_service" \
      org.opencontainers.image.description="Tasks for the users of Better Auth: a Flask microservice on PostgreSQL" \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE
WORKDIR /app
COPY --from=builder /venv /venv
# Readable for the user below, whatever the umask of the clone was; writable for nobody but root.
COPY --chmod=0755 wsgi.py gunicorn.conf.py ./
COPY --chmod=0755 todo_service ./todo_service
COPY --chmod=0755 migrations ./migrations
ENV PATH=/venv/bin:$PATH HOST=0.0.0.0 PORT=8000 LOG_FORMAT=json PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# By number, so that an orchestrator can see that it isn't root; the image has no name for it, and no home.
USER 10001:10001
EXPOSE 8000
# Liveness only: an outage of the database restarts no containers.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT'] or 8000), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
# Rather than `gunicorn -c`, which stops at a blank WEB_CONCURRENCY: what an env-file has for a setting left alone.
CMD ["python", "gunicorn.conf.py"]
