"""How many requests a user may make in a while, counted in this process or, for all processes together, in Redis.

A window opens with a user's first request and lasts as long as the rate says; requests beyond the limit are refused
until it ends. Requests without a valid token are counted by the client's address, so nobody can try tokens without end;
valid ones pass from there all the same, because many users may share an address. `authentication.py` calls this where
it knows which it is, so what needs no token (health, documentation) is never counted.

Answers tell the client where it stands in the fields of draft-ietf-httpapi-ratelimit-headers (since its version 08),
which can say what is counted; the three fields of older drafts (RateLimit-Remaining, …) can't.

The library of the same name, which Flask-Limiter wraps, does the counting. When Redis fails, requests are let through:
a limit is no reason for an outage.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from flask import Flask, Response, current_app, g, request
from limits import parse
from limits.errors import ConfigurationError, StorageError
from limits.storage import RedisStorage, storage_from_string

from ..config import Settings, SettingsError
from ..errors import TooManyRequests

log = logging.getLogger(__name__)

# Counts one more for a name in its window of so many seconds: how many there are now, and the time when it ends.
Counter = Callable[[str, int], tuple[int, float]]

# How long Redis may take to connect, and then to answer, in seconds; a name may stand for two addresses (::1).
# `retry=None`: it is not tried again within a request.
REDIS: dict[str, Any] = dict(
    socket_connect_timeout=0.1, socket_timeout=0.25, retry=None, key_prefix="todo_service", wrap_exceptions=True
)
# After a failure Redis is left alone this long; then one request tries it again.
PAUSE_SECONDS = 3
REMIND_SECONDS = 60
# So many windows a process counts in (some 10 MB): beyond it those that are over are forgotten or, if that doesn't make
# room for as many again as are left, all of them, and counting starts anew.
MAX_WINDOWS = 50_000


class Limiter:
    """Counts requests. Raises SettingsError at once for settings that it can't work with."""

    def __init__(self, settings: Settings) -> None:
        try:
            self.rate = parse(settings.rate_limit)
        except ValueError:
            raise SettingsError({"RATELIMIT_DEFAULT": "must look like 300/minute."}) from None
        self.proxies = Proxies(settings.forwarded_allow_ips)
        self.redis = Breaker()
        self.hit = counter_at(settings.rate_limit_storage)

    def count(self, policy: str, name: str) -> None:
        """Count a request of `name`, a "user" or an "address". Raises TooManyRequests beyond the limit."""
        if not self.redis.may_be_asked():
            return
        limit, window = self.rate.amount, self.rate.get_expiry()
        try:
            count, end = self.hit(f"{policy}/{name}", window)
        except StorageError as error:
            self.redis.failed(error)
            return
        self.redis.answered()
        seconds = min(window, max(1, math.ceil(end - time.time())))
        g.rate = f'"{policy}";q={limit};w={window}', f'"{policy}";r={max(0, limit - count)};t={seconds}'
        if count > limit:
            raise TooManyRequests(f"Too many requests; try again in {seconds} s.", seconds, policy)


def counter_at(url: str) -> Counter:
    """What counts; imports redis only if `url` is one, and connects with the first request. Raises SettingsError."""
    try:
        storage = storage_from_string(url, **REDIS)
        if not isinstance(storage, RedisStorage):
            return Windows().hit
        # Only a connection finds out about options in the URL that there are not.
        pool = storage.storage.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (ConfigurationError, ValueError, TypeError):
        raise SettingsError({"RATELIMIT_STORAGE_URI": "is no address that redis-py understands."}) from None

    def hit(key: str, seconds: int) -> tuple[int, float]:
        return storage.incr(key, seconds), storage.get_expiry(key)

    return hit


class Windows:
    """The windows of one process. The library's own start a thread every 10 ms, which costs more than the request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def hit(self, key: str, seconds: int) -> tuple[int, float]:
        """Count one more for `key`: how many there are in its window, and when that ends."""
        now = time.time()
        with self._lock:
            count, end = self._windows.get(key, (0, now))
            if end <= now:
                count, end = 0, now + seconds
                if len(self._windows) >= MAX_WINDOWS:
                    self._forget(now)
            self._windows[key] = count + 1, end
        return count + 1, end

    def _forget(self, now: float) -> None:
        running = {key: window for key, window in self._windows.items() if window[1] > now}
        self._windows = running if len(running) <= MAX_WINDOWS // 2 else {}


class Breaker:
    """Leaves a storage alone for a while after a failure, so that requests don't wait for it one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing = False
        self._try_at = self._remind_at = 0.0

    def may_be_asked(self) -> bool:
        """Whether it works or, if it failed, this request is the one that tries it again."""
        if not self._failing:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._try_at:
                return False
            self._try_at = now + PAUSE_SECONDS
            return True

    def failed(self, error: Exception) -> None:
        with self._lock:
            now = time.monotonic()
            self._failing, self._try_at = True, now + PAUSE_SECONDS
            if now < self._remind_at:
                return
            self._remind_at = now + REMIND_SECONDS
        log.warning("Redis fails, so requests are not limited: %s", error)

    def answered(self) -> None:
        if self._failing:
            self._failing, self._remind_at = False, 0.0
            log.warning("Redis answers again: requests are limited")


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its limiter."""
    app.extensions["limiter"] = Limiter(settings)
    app.after_request(tell)


def count_user(owner: str) -> None:
    """Count the current request as one of `owner`'s. Raises TooManyRequests."""
    limiter: Limiter = current_app.extensions["limiter"]
    limiter.count("user", owner)


def count_stranger() -> None:
    """Count the current request, which has no valid token, by where it comes from. Raises TooManyRequests."""
    limiter: Limiter = current_app.extensions["limiter"]
    limiter.count("address", limiter.proxies.client(request.remote_addr, request.headers.getlist("X-Forwarded-For")))


def tell(response: Response) -> Response:
    if rate := g.get("rate"):
        for name, value in zip(("RateLimit-Policy", "RateLimit"), rate, strict=True):
            response.headers.add(name, value)
    return response


class Proxies:
    """The proxies that are believed. gunicorn takes the same setting, but gets no more than the protocol from them."""

    def __init__(self, allowed: str) -> None:
        names = [name.strip() for name in allowed.split(",") if name.strip()]
        self._any = "*" in names
        try:
            self._networks = [ip_network(name) for name in names if name != "*"]
        except ValueError:
            raise SettingsError({"FORWARDED_ALLOW_IPS": "must be IP addresses or networks, or *."}) from None

    def client(self, peer: str | None, forwarded: list[str]) -> str:
        """Whom to count: `peer` or, if that is a proxy, its caller; of an IPv6 address the /64, which one customer has.

        Each proxy adds its caller at the end of X-Forwarded-For. What stands before the first address that is no
        trusted proxy's may be the client's own invention.
        """
        address = parsed(peer or "")
        for hop in reversed(",".join(forwarded).split(",")):
            caller = parsed(hop)
            if caller is None or not self._trusted(address):
                break
            address = caller
            if self._any:
                break
        return str(ip_network((address, 64), strict=False) if isinstance(address, IPv6Address) else address)

    def _trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        return self._any or any(address in network for network in self._networks)


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address; None for what is none, such as a proxy's `unknown`."""
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
