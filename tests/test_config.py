"""Settings: what is taken, what is refused and how, and that `.env.example` lists them all."""

import os
import re
from pathlib import Path

import pytest

from todo_service.config import ROOT, Settings, SettingsError, load, read
from todo_service.processors import stay_on_one

GOOD = "g" * 32
NO_URLS = ["https://u:canary@h", "https://[canary", "https://h:canary", "https://h:99999", "https://canary@h/p"]
# As part of an address, each of these would be read as something else: libpq's message would quote it.
UNENCODED = ["can%canary", "canary@[", "p@canary", "canary@/p", "canary/p", "12/canary", "p?@canary", "p:canary/"]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in read_names():
        monkeypatch.delenv(name, raising=False)


def read_names() -> set[str]:
    source = (ROOT / "todo_service" / "config.py").read_text()
    return set(re.findall(r'(?:env\.\w+\(|listed\(env, )\s*"([A-Z_]+)"', source))


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in ({"BETTER_AUTH_SECRET": GOOD} | environment).items():
        monkeypatch.setenv(name, value)
    return load(env_file=None)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert found.secrets == (GOOD,)
    assert found.database_url is None
    assert found.jwks_url is None
    assert found.cors_origins == ("http://localhost:3000",)
    assert (found.host, found.port, found.threads, found.pool_size) == ("127.0.0.1", 8000, 8, 8)
    assert found.workers >= 1
    with pytest.raises(AttributeError):
        found.port = 1  # type: ignore[misc]


def test_where_the_system_does_not_tell_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS doesn't: there are as many processes as processors, and they run anywhere."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    found = settings(monkeypatch, DATABASE_URL="postgresql://localhost/tasks")
    assert found.workers == os.cpu_count()
    stay_on_one(found, 0)


def test_the_example_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BETTER_AUTH_SECRET", GOOD)
    by_default, names = read(None)
    lines = (ROOT / ".env.example").read_text().splitlines()
    listed = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(listed) == sorted(names)
    assert names == read_names()
    assert load(ROOT / ".env.example") == by_default
    for line, above in zip(lines[1:], lines, strict=False):
        assert line.startswith("#") or not line or above.startswith("# "), f"{line} has no line that says what it does"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"BETTER_AUTH_SECRET={GOOD}\nPORT=1111\nHOST=0.0.0.0\nLOG_LEVEL=\n")
    monkeypatch.setenv("PORT", "2222")
    monkeypatch.setenv("WEB_THREADS", "")
    found = load(file)
    assert (found.secrets, found.port, found.host, found.log_level, found.threads) == (
        (GOOD,),
        2222,
        "0.0.0.0",
        "INFO",
        8,
    )


@pytest.mark.parametrize(
    ("url", "is_read_as"),
    [
        ("postgres://u:p@h/d?sslmode=require", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql+psycopg2://h/d", "postgresql://h/d"),
        ("postgres://u:%40%2F%3F%25%5B@h:5432/d%40", "postgresql://u:%40%2F%3F%25%5B@h:5432/d%40"),
        ("postgresql://u:a#b:c[d]?e@h:1,i:2/d", "postgresql://u:a#b:c[d]?e@h:1,i:2/d"),
        ("postgresql:///d?host=/run/postgresql&user=a@b", "postgresql:///d?host=/run/postgresql&user=a@b"),
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "NEON_DB_URL"])
def test_database_addresses(monkeypatch: pytest.MonkeyPatch, name: str, url: str, is_read_as: str) -> None:
    assert settings(monkeypatch, **{name: url}).database_url == is_read_as


def test_database_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, DATABASE_URL="postgresql://one/d", NEON_DB_URL="postgresql://two/d")
    assert found.database_url == "postgresql://one/d"


@pytest.mark.parametrize(
    ("environment", "jwks_url", "issuers", "audience"),
    [
        (
            {"BETTER_AUTH_URL": "https://app.example.com/base/"},
            "https://app.example.com/api/auth/jwks",
            ("https://app.example.com", "https://app.example.com/base/"),
            ("https://app.example.com", "https://app.example.com/base/"),
        ),
        (
            {"BETTER_AUTH_URL": "https://a.example", "BETTER_AUTH_JWKS_URL": "http://auth:3000/jwks"},
            "http://auth:3000/jwks",
            ("https://a.example",),
            ("https://a.example",),
        ),
        (
            {
                "BETTER_AUTH_URL": "https://a.example",
                "BETTER_AUTH_ISSUER": "me",
                "BETTER_AUTH_AUDIENCE": "tasks, https://b",
            },
            "https://a.example/api/auth/jwks",
            ("me",),
            ("tasks", "https://b"),
        ),
    ],
)
def test_public_keys(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    jwks_url: str,
    issuers: tuple[str, ...],
    audience: tuple[str, ...],
) -> None:
    found = settings(monkeypatch, **environment, BETTER_AUTH_SECRET="")
    assert (found.secrets, found.jwks_url, found.issuers, found.audience) == ((), jwks_url, issuers, audience)


def test_secrets_in_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, BETTER_AUTH_SECRETS=f"2:{'n' * 32},1:{'o' * 32}")
    assert found.secrets == ("n" * 32, "o" * 32, GOOD)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("BETTER_AUTH_SECRET", ["short-canary", "better-auth-secret-12345678901234567890"]),
        ("BETTER_AUTH_SECRETS", ["canary" * 9, "2:short-canary", f"x:{'canary' * 9}"]),
        ("BETTER_AUTH_URL", ["canary.example.com", "ftp://canary.example.com", "https://", *NO_URLS]),
        ("BETTER_AUTH_JWKS_URL", ["/canary/jwks", *NO_URLS]),
        ("JWT_LEEWAY_SECONDS", ["-1", "61", "canary"]),
        ("DATABASE_URL", ["sqlite:///canary.db", "mysql://canary@h/d", "canary"]),
        ("DATABASE_URL", [f"postgresql://u:{password}@h/d" for password in UNENCODED]),
        ("NEON_DB_URL", ["canary"]),
        ("DATABASE_READ_URL", ["sqlite:///canary.db", "canary"]),
        ("DB_POOL_SIZE", ["0", "canary"]),
        (
            "CORS_ORIGINS",
            ["*", "https://*.canary.example", "https://canary.example/", "canary.example", "null", *NO_URLS],
        ),
        ("RATELIMIT_DEFAULT", ["canary", "0/minute", "300/0minutes", "300"]),
        ("RATELIMIT_STORAGE_URI", ["memcached://canary"]),
        ("METRICS_TOKEN", ["canary"]),
        ("LOG_LEVEL", ["canary", "info"]),
        ("LOG_FORMAT", ["canary"]),
        ("WEB_CONCURRENCY", ["0", "canary"]),
        ("WEB_THREADS", ["0", "65", "canary"]),
        ("PORT", ["0", "65536", "canary"]),
    ],
)
def test_bad_setting_is_refused_by_name_and_never_by_value(
    monkeypatch: pytest.MonkeyPatch, name: str, values: list[str]
) -> None:
    for value in values:
        with pytest.raises(SettingsError) as refused:
            settings(monkeypatch, **{name: value})
        assert set(refused.value.problems) == {name}
        assert f"\n  {name}: " in str(refused.value)
        assert "canary" not in str(refused.value)


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(monkeypatch, PORT="x", LOG_LEVEL="x", BETTER_AUTH_SECRET="x", BETTER_AUTH_JWKS_URL="https://h/jwks")
    assert set(refused.value.problems) == {"PORT", "LOG_LEVEL", "BETTER_AUTH_SECRET", "BETTER_AUTH_ISSUER"}


def test_some_way_to_verify_tokens_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(monkeypatch, BETTER_AUTH_SECRET="")
    assert set(refused.value.problems) == {"BETTER_AUTH_SECRET"}
