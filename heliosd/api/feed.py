"""/helios/v1/events: the journal as it was and as it is written, with snapshots of the node for those who show it."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from heliosd.api.asked import flag_of, json_of, number_of
from heliosd.api.now import snapshot_now
from heliosd.api.parts import Entry, Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.api.sse import EventStream, event_stream, frame
from heliosd.api.views import event_view
from heliosd.wire import EventList, EventView, Snapshot

CLOSING = web.AppKey("closing", asyncio.Event)
"""Set when the daemon stops listening: endless answers end."""

_DEFAULT = 500
_MOST = 100_000
_UNSENT = 1000
"""Events that may wait for a slow reader; one more and it is cut off, so that it can ask again from its last id."""
_SNAPSHOT_S = 0.5


async def events(request: web.Request, parts: Parts) -> web.StreamResponse:
    """The journal's lines: at once, or as a stream that goes on."""
    subject = await subject_of(parts, request.query.get("subject"))
    after = number_of(request, "after", 0, most=2**62)
    limit = number_of(request, "limit", _DEFAULT, most=_MOST)
    if not flag_of(request, "follow"):
        found = await parts.journal.read(after=after, limit=limit, subject=subject)
        return json_of(EventList(events=[event_view(entry) for entry in found]))
    after = max(after, _last_seen(request))
    async with event_stream(request) as (stream, response):
        await _until_closing(
            request.app[CLOSING],
            lambda tasks: [
                tasks.create_task(_journal(parts, stream, after, limit, subject)),
                tasks.create_task(stream.keep_alive()),
                *([tasks.create_task(_snapshots(parts, stream))] if flag_of(request, "snapshots") else []),
            ],
        )
    return response


async def subject_of(parts: Parts, text: str | None) -> str | None:
    """What the journal calls it: a model's alias becomes its ref."""
    found = await parts.store.by_name(text) if text else None
    return str(found.ref) if found else text


async def _until_closing(
    closing: asyncio.Event, begin: Callable[[asyncio.TaskGroup], list[asyncio.Task[None]]]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        begun = begin(tasks)
        await closing.wait()
        for task in begun:
            task.cancel()


async def _journal(parts: Parts, stream: EventStream, after: int, limit: int, subject: str | None) -> None:
    """First what is already written after `after`, then what comes: nothing twice, nothing left out."""
    unsent: asyncio.Queue[Entry] = asyncio.Queue(_UNSENT)
    async with asyncio.TaskGroup() as tasks:
        # It listens before the past is read, so that nothing falls between the two.
        tasks.create_task(_collect(parts, stream, unsent, subject))
        await asyncio.sleep(0)
        last = after
        while past := await parts.journal.read(after=last, limit=limit, subject=subject):
            for entry in past:
                await stream.send(_frame(entry))
            last = past[-1].id
        while True:
            entry = await unsent.get()
            if entry.id > last:
                await stream.send(_frame(entry))


async def _collect(parts: Parts, stream: EventStream, unsent: asyncio.Queue[Entry], subject: str | None) -> None:
    async for entry in parts.journal.follow():
        if subject is not None and subject not in (entry.ticket, entry.model, entry.replica):
            continue
        try:
            unsent.put_nowait(entry)
        except asyncio.QueueFull:
            break
    stream.drop()  # the journal, too, lets go of who is too slow
    raise ConnectionResetError("the reader of the event stream is too slow")


async def _snapshots(parts: Parts, stream: EventStream) -> None:
    version = -1
    while True:
        version = await parts.node.changed(version)
        await stream.send(frame("snapshot", snapshot_now(parts)))
        await asyncio.sleep(_SNAPSHOT_S)


def _frame(entry: Entry) -> bytes:
    return frame("journal", event_view(entry), id=entry.id)


def _last_seen(request: web.Request) -> int:
    """Where a browser's EventSource goes on after a broken connection."""
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isdecimal() and len(text) < 19 else 0


ROUTES = (
    Route(
        "GET",
        "/helios/v1/events",
        events,
        Scope.ADMIN,
        "The journal: every decision with its reason, newest last.",
        Answer(
            "events; with `follow` a stream of them",
            EventList,
            events=(("journal", EventView), ("snapshot", Snapshot)),
        ),
        parameters=(
            Parameter("after", "integer", "only what has a greater id"),
            Parameter(
                "limit",
                "integer",
                f"only so many, {_DEFAULT} when not given: the last, or with `after` the first behind it; "
                "with both `after` and `follow` all come",
            ),
            Parameter("subject", "string", "only what is about this ticket, replica or model"),
            Parameter("follow", "boolean", "go on with what happens, as server-sent events"),
            Parameter("snapshots", "boolean", "with `follow`: also the whole state, at once and when it changed"),
        ),
        detail="A reader that takes events too slowly is cut off; it can go on with `after`, or with the header "
        "`Last-Event-ID`.",
    ),
)
