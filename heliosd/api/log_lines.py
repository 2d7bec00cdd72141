"""/helios/v1/logs: what an engine process or the daemon itself wrote, and goes on writing."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from heliosd.api.asked import flag_of, number_of, ref_of
from heliosd.api.feed import CLOSING
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.core.names import ReplicaId
from heliosd.errors import NotFound

_DEFAULT = 200
_MOST = 100_000
_BLOCK = 64 * 1024
_LOOK_S = 0.3  # an engine process writes to its file without telling us


async def logs(request: web.Request, parts: Parts) -> web.StreamResponse:
    """Lines of text, oldest first; with `follow` the answer does not end."""
    lines = number_of(request, "lines", _DEFAULT, most=_MOST)
    file = await _file_of(request, parts)
    source = parts.log.follow(lines) if file is None else _followed(file, lines)
    if not flag_of(request, "follow"):
        text = "\n".join([*parts.log.lines(lines), ""])
        if file is not None:
            text, _ = await asyncio.to_thread(_tail, file, lines)
        return web.Response(text=text, content_type="text/plain")
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)

    async def copy() -> None:
        async for text in source:
            await response.write(text.encode(errors="replace") + (b"\n" if file is None else b""))

    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(copy())
        await request.app[CLOSING].wait()
        copying.cancel()
    await response.write_eof()
    return response


async def _file_of(request: web.Request, parts: Parts) -> Path | None:
    """The file asked for; None: the daemon's own log."""
    replica = request.query.get("replica")
    if replica is None and (model := request.query.get("model")):
        replica = await _latest_replica(parts, str(ref_of(model)))
    if replica is None:
        return None
    file = parts.node.log_file(ReplicaId(replica)) if _plain(replica) else None
    if file is None or not await asyncio.to_thread(file.is_file):
        raise NotFound(f"cannot show the log of {replica}: there is none; `heliosctl ps` lists the replicas")
    return file


async def _latest_replica(parts: Parts, model: str) -> str:
    """The newest replica of a model, also when it runs no more: its log tells why."""
    stored = await parts.store.find(ref_of(model))
    name = model if stored is None else str(stored.adapter.base if stored.adapter else stored.ref)
    running = [replica for replica in parts.node.snapshot().replicas if replica.model == name]
    if running:
        return max(running, key=lambda replica: replica.started_at).id
    past = [entry.replica for entry in await parts.journal.read(subject=name, limit=_DEFAULT) if entry.replica]
    if not past:
        raise NotFound(f"cannot show the log of {name}: no replica of it was ever started here")
    return past[-1]


def _plain(replica: str) -> bool:
    """A replica's id names a file: it must not lead elsewhere."""
    return bool(replica) and "/" not in replica and "\0" not in replica and not replica.startswith(".")


def _tail(file: Path, lines: int) -> tuple[str, int]:
    """The last lines, and where they end; reads no more of the file than they need."""
    with file.open("rb") as log:
        start = end = log.seek(0, os.SEEK_END)
        data = b""
        while start > 0 and data.count(b"\n") <= lines:
            step = min(_BLOCK, start)
            start -= step
            log.seek(start)
            data = log.read(step) + data
    kept = data.splitlines(keepends=True)
    return b"".join(kept[len(kept) - lines :] if lines < len(kept) else kept).decode(errors="replace"), end


async def _followed(file: Path, lines: int) -> AsyncIterator[str]:
    text, position = await asyncio.to_thread(_tail, file, lines)
    yield text
    while True:
        await asyncio.sleep(_LOOK_S)
        text, position = await asyncio.to_thread(_since, file, position)
        if text:
            yield text


def _since(file: Path, position: int) -> tuple[str, int]:
    try:
        with file.open("rb") as log:
            log.seek(position)
            data = log.read()
    except FileNotFoundError:
        return "", position
    return data.decode(errors="replace"), position + len(data)


ROUTES = (
    Route(
        "GET",
        "/helios/v1/logs",
        logs,
        Scope.ADMIN,
        "What an engine wrote; without `replica` and `model`, the daemon's own log.",
        Answer("lines of text, oldest first", media="text/plain"),
        parameters=(
            Parameter("replica", "string", "a replica's id"),
            Parameter("model", "string", "a model's ref: its newest replica"),
            Parameter("lines", "integer", f"how many of the last lines; {_DEFAULT} when not given"),
            Parameter("follow", "boolean", "go on with what is written"),
        ),
        errors=("not_found",),
    ),
)
