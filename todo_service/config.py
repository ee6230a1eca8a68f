"""Settings: the environment and `.env` become one frozen, typed object, or the service refuses to start.

The only reader of the environment; `gunicorn.conf.py` and the command line get their values from here too. A refusal
lists every problem by the variable's name and never shows a value, because most of them are secrets.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from environs import Env, EnvValidationError
from marshmallow import ValidationError
from marshmallow.validate import Length, OneOf, Range, Validator
from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

from . import dialect
from .dialect import Dialect

# Of the service and its API; nowhere else.
VERSION = "1.0.0"
ROOT = Path(__file__).resolve().parent.parent
MIN_SECRET_BYTES = 32
# What Better Auth signs with when nobody configured a secret: published, so anyone can forge tokens with it.
PUBLISHED_SECRETS = frozenset({"better-auth-secret-12345678901234567890"})


class SettingsError(Exception):
    """Some settings are missing or bad. `problems`: variable name -> what is wrong with it."""

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__("\n".join(["The settings have problems:", *(f"  {k}: {v}" for k, v in problems.items())]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured. Times in seconds; `None` means not configured."""

    secrets: tuple[str, ...]
    jwks_url: str | None
    session_url: str | None
    issuers: tuple[str, ...]
    audience: tuple[str, ...]
    user_id_claims: tuple[str, ...]
    leeway: int
    database_url: str | None
    read_url: str | None
    pool_size: int
    prepare_statements: bool
    cors_origins: tuple[str, ...]
    dialect: Dialect
    rate_limit: str
    rate_limit_storage: str
    metrics_token: str | None
    log_level: str
    log_format: str
    workers: int
    threads: int
    affinity: bool
    host: str
    port: int
    trusted_hosts: tuple[str, ...]
    forwarded_allow_ips: str


class BlankIsUnset(Env):
    """`NAME=` means not set: that is what Compose passes on for a variable nobody gave."""

    def _get_value(self, env_key: str, default: Any) -> Any:
        return super()._get_value(env_key, default) or default


def load(env_file: Path | None = ROOT / ".env") -> Settings:
    """Read the settings; the environment wins over `env_file`. Raises SettingsError with all problems at once."""
    return read(env_file)[0]


def read(env_file: Path | None) -> tuple[Settings, frozenset[str]]:
    """The settings, and the names of all variables they were read from. Raises SettingsError."""
    env = BlankIsUnset(eager=False)
    if env_file is not None:
        env.read_env(env_file, recurse=False)
    problems: dict[str, str] = {}
    threads = env.int("WEB_THREADS", 8, validate=Range(1, 64))
    url = env.str("BETTER_AUTH_URL", None, validate=optional(http_url))
    jwks_url = env.str("BETTER_AUTH_JWKS_URL", None, validate=optional(http_url))
    issuer = env.str("BETTER_AUTH_ISSUER", None)
    audience: tuple[str, ...] = listed(env, "BETTER_AUTH_AUDIENCE", [])
    sessions = env.bool("BETTER_AUTH_SESSIONS", False)
    secret = env.str("BETTER_AUTH_SECRET", None, validate=optional(strong))
    rotated = listed(env, "BETTER_AUTH_SECRETS", [], validate=versioned)
    settings: dict[str, Any] = dict(
        user_id_claims=listed(env, "JWT_USER_ID_CLAIMS", ["sub", "user_id", "id"], validate=Length(min=1)),
        leeway=env.int("JWT_LEEWAY_SECONDS", 5, validate=Range(0, 60)),
        database_url=database_url(
            env.str("DATABASE_URL", None, validate=optional(postgresql)),
            env.str("NEON_DB_URL", None, validate=optional(postgresql)),
        ),
        read_url=database_url(env.str("DATABASE_READ_URL", None, validate=optional(postgresql))),
        pool_size=env.int("DB_POOL_SIZE", min(threads or 8, 8), validate=Range(1, 64)),
        prepare_statements=env.bool("DB_PREPARE", True),
        cors_origins=listed(env, "CORS_ORIGINS", ["http://localhost:3000"], validate=origins),
        rate_limit=env.str("RATELIMIT_DEFAULT", "300/minute", validate=rate),
        rate_limit_storage=env.str("RATELIMIT_STORAGE_URI", "memory://", validate=storage),
        metrics_token=env.str("METRICS_TOKEN", None, validate=optional(Length(min=16))),
        log_level=env.str("LOG_LEVEL", "INFO", validate=OneOf(["DEBUG", "INFO", "WARNING", "ERROR"])),
        log_format=env.str("LOG_FORMAT", "text", validate=OneOf(["text", "json"])),
        workers=env.int("WEB_CONCURRENCY", processor_count(), validate=Range(1, 64)),
        threads=threads,
        affinity=env.bool("WEB_AFFINITY", True),
        host=env.str("HOST", "127.0.0.1"),
        port=env.int("PORT", 8000, validate=Range(1, 65535)),
        trusted_hosts=listed(env, "TRUSTED_HOSTS", []),
        forwarded_allow_ips=env.str("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"),
    )
    spoken = env.str("API_DIALECT", "", validate=known_dialect)
    names = frozenset(env.dump())
    try:
        env.seal()
    except EnvValidationError as error:
        messages = cast("dict[str, list[str]]", error.error_messages)
        problems.update({name: " ".join(map(str, texts)) for name, texts in messages.items()})
    origin = url and web_origin(url)
    jwks_url = jwks_url or (origin and f"{origin}/api/auth/jwks")
    secrets = tuple(dict.fromkeys([s.partition(":")[2] for s in rotated or []] + ([secret] if secret else [])))
    if not secrets and not jwks_url and not problems:
        problems |= {"BETTER_AUTH_SECRET": "needed to verify tokens (or BETTER_AUTH_URL, to verify them by public key)"}
    if jwks_url and not (issuer or origin):
        problems["BETTER_AUTH_ISSUER"] = "needed with BETTER_AUTH_JWKS_URL when BETTER_AUTH_URL is not set"
    if sessions and not origin:
        problems["BETTER_AUTH_URL"] = "needed with BETTER_AUTH_SESSIONS: it's there that sessions are asked for"
    if problems:
        raise SettingsError(problems)
    # Where the service reaches Better Auth: it may be another address than the one that browsers see.
    reached_at = jwks_url if jwks_url and jwks_url.endswith("/jwks") else f"{origin}/api/auth/jwks"
    session_url = reached_at.removesuffix("jwks") + "get-session?disableCookieCache=true" if sessions else None
    # Most tokens name the origin, a signed session cookie the address as Better Auth was given it.
    issuers = (issuer,) if issuer else tuple(dict.fromkeys(filter(None, (origin, url))))
    keys: dict[str, Any] = dict(
        secrets=secrets, jwks_url=jwks_url, session_url=session_url, issuers=issuers, audience=audience or issuers
    )
    return Settings(**settings, **keys, dialect=dialect.parse(spoken)), names


def processor_count() -> int:
    """Those that this process may run on, where the system tells (Linux); else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def database_url(*urls: str | None) -> str | None:
    """A database's address, the first that is set of its names; `postgres://` is another name of `postgresql://`."""
    chosen = next(filter(None, urls), None)
    return re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", chosen) if chosen else None


def listed(
    env: Env, name: str, default: list[str], validate: Callable[[list[str]], Any] | None = None
) -> tuple[str, ...]:
    """A comma-separated setting; blanks around the commas don't count."""
    return tuple(env.list(name, default, subcast=str.strip, validate=validate) or ())


def optional(validate: Callable[[str], Any]) -> Validator | Callable[[str | None], Any]:
    return lambda value: None if value is None else validate(value)


def web_origin(value: str) -> str | None:
    """Scheme, host and port, which is what Better Auth puts in `iss` and `aud`. None for what is no web address."""
    with suppress(ValueError):
        parts = urlsplit(value)
        if parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc}"
    return None


def http_url(value: str) -> None:
    if not web_origin(value):
        raise ValidationError("must be an http:// or https:// address, without a user name.")


def strong(value: str) -> None:
    if value in PUBLISHED_SECRETS:
        raise ValidationError("is Better Auth's published default: anyone can forge tokens with it.")
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise ValidationError(f"must have at least {MIN_SECRET_BYTES} bytes (openssl rand -base64 32 makes one).")


def versioned(values: list[str]) -> None:
    for value in values:
        if not re.match(r"\d+:", value):
            raise ValidationError("must have the form 2:new-secret,1:old-secret.")
        strong(value.partition(":")[2])


def postgresql(value: str) -> None:
    """Refuse, too, what libpq would complain of by quoting it: the pieces of a password that ends at its @ or /."""
    scheme, _, rest = value.partition("://")
    if scheme not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise ValidationError("must be a postgresql:// address: no other database is supported.")
    try:
        port = parse_dsn(f"postgresql://{rest}").get("port", "")
    except (ProgrammingError, UnicodeError):
        port = "none"
    if not re.fullmatch(r"[\d,]*", port) or not re.fullmatch(r"([^@/]*@)?+[^@/?]*(/[^@?]*)?(\?.*)?", rest):
        raise ValidationError("can't be taken apart; are the special characters of its password percent-encoded?")


def origins(values: list[str]) -> None:
    for value in values:
        if "*" in value or value != web_origin(value):
            raise ValidationError("must be exact origins like https://app.example.com: no wildcard, no path, no slash.")


def known_dialect(value: str) -> None:
    try:
        dialect.parse(value)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def rate(value: str) -> None:
    if not re.fullmatch(r"[1-9][0-9]*\s*(/|per)\s*([1-9][0-9]*\s*)?(second|minute|hour|day)s?", value):
        raise ValidationError("must look like 300/minute.")


def storage(value: str) -> None:
    if not re.match(r"(memory|rediss?)://", value):
        raise ValidationError("must be memory:// or a redis:// address.")
