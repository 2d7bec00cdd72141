"""Calls an ASGI application with an admitted request and passes its answer on. Knows nothing of what it serves."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

from heliosd.engines.engine import Reply, Request

Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[Mapping[str, Any]]], Callable[[Mapping[str, Any]], Awaitable[None]]],
    Awaitable[None],
]


class Look(Protocol):
    """Sees each piece of an answer before it is sent: the first with its status, later ones with None."""

    async def __call__(self, status: int | None, chunk: bytes) -> bytes: ...


async def call(app: Application, served: object, request: Request, reply: Reply, look: Look) -> None:
    """Run `app` for one request. `served` becomes `request.app`, from which handlers take their state.

    The answer's status is held back until its first piece: until then another answer can be given.
    """
    scope = {
        "type": "http",
        # From 2.4 on Starlette learns of a lost client by an error of `send`, not by a task that listens.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "query_string": request.query.encode(),
        "root_path": "",
        "headers": [
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers),
            (b"x-request-id", request.ticket.encode()),
        ],
        "client": None,
        "server": None,
        "app": served,
    }
    body: list[bytes] = [request.body]
    task = asyncio.current_task()
    assert task is not None, "called in a task"
    cancelled = task.cancelling()
    never: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
    held: list[tuple[int, list[tuple[str, str]]]] = []

    async def receive() -> Mapping[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        # A client that goes away cancels our task; nobody needs to be told by message.
        return await never

    def stay_cancelled() -> None:
        """An application may turn our cancellation into an answer; nobody is there to read it."""
        if task.cancelling() > cancelled:
            raise asyncio.CancelledError

    async def send(message: Mapping[str, Any]) -> None:
        stay_cancelled()
        if message["type"] == "http.response.start":
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            held.append((message["status"], headers))
            return
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if held and (chunk or not more):
            status, headers = held.pop()
            seen = await look(status, chunk)
            await reply.start(status, headers)
            if seen:
                await reply.write(seen)
        elif chunk:
            await reply.write(await look(None, chunk))

    await app(scope, receive, send)
    stay_cancelled()
