"""The service's own questions: JSON from the auth server, at the address that the operator has given and no other."""

import json
import time
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

MAX_BYTES = 64 * 1024


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """The answer comes from the configured address or not at all."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def get(url: str, headers: Mapping[str, str], seconds: float) -> Any:
    """The JSON value at `url`. Raises OSError, HTTPException, or ValueError for an answer that is none, or too long.

    A server that trickles the head of its answer can take longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (config.py takes http and https alone)
    with urllib.request.build_opener(NoRedirects).open(request, timeout=seconds) as response:
        body = b""
        while chunk := response.read1(MAX_BYTES):
            body += chunk
            if len(body) > MAX_BYTES or time.monotonic() > deadline:
                raise ValueError("the answer is too long, or too slow")
    return json.loads(body)
