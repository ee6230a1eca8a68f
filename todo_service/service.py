"""The Flask app, where it does other than Flask: views may wait for their turn, and do so without a thread.

A view that changes something is a coroutine, which awaits its turn and nothing else (`turns.py`). A server that knows
how to go on later gets the request back as it stands, `Pending`; for any other it's answered when this returns, as WSGI
has it (PEP 3333). What the app consists of is left to `app.py`.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import copy_context
from typing import Any, cast

from flask import Flask, Request, request_started
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.routing import MapAdapter

from .turns import Change, finish

# In the environ: whether the server takes Pending for an answer.
LATER = "todo_service.later"


class Pending:
    """A request that waits for its `change`. Which thread goes on with it does not matter."""

    def __init__(self, answering: Coroutine[Change, None, Iterable[bytes]]) -> None:
        self._answering, self._context = answering, copy_context()
        self.change: Change

    def go_on(self) -> "Iterable[bytes] | Pending":
        """Its answer; or itself, when it waits for another change."""
        try:
            self.change = self._context.run(self._answering.send, None)
        except StopIteration as end:
            return cast(Iterable[bytes], end.value)
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Its answer, for who takes this for one, such as a middleware in between. The thread waits for it."""
        answer = self._context.run(finish, self._answering, self.change)
        try:
            yield from answer
        finally:
            if hasattr(answer, "close"):
                answer.close()


class NoSession(SessionInterface):
    """Nothing is kept in cookies, so none is read or written."""

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        return None


class Service(Flask):
    session_interface = NoSession()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Views that are coroutines are awaited in `respond`; nothing has to be found out with each request."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """No address depends on the host, so none is looked at here; which are accepted, `refuse_other_hosts` knows."""
        if request is None:
            return super().create_url_adapter(None)
        root = request.environ.get("SCRIPT_NAME") or "/"
        return MapAdapter(self.url_map, "localhost", root, "", "http", request.path, request.method)

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The answer; or Pending, to a server that knows about it."""
        answering = self.respond(environ, start_response)
        return Pending(answering).go_on() if environ.get(LATER) else finish(answering)

    async def respond(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """What Flask's own `wsgi_app` does, for views of both kinds."""
        context, failure = self.request_context(environ), None
        try:
            try:
                context.push()
                response = self.finalize_request(await self.result())
            except Exception as error:
                failure, response = error, self.handle_exception(error)
            return response(environ, start_response)
        finally:
            context.pop(failure)

    async def result(self) -> Any:
        """What the view returns, or what is made of its exception."""
        try:
            request_started.send(self, _async_wrapper=self.ensure_sync)
            result = self.preprocess_request()
            if result is None:
                result = self.dispatch_request()
            return await result if isinstance(result, Coroutine) else result
        except Exception as error:
            return self.handle_user_exception(error)
