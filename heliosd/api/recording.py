"""/helios/v1/recording: what the scheduler was told and answered, for replay."""

from aiohttp import web

from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.errors import NotFound

_MEDIA = "application/x-ndjson"


async def recording(request: web.Request, parts: Parts) -> web.StreamResponse:
    if parts.recording is None:
        raise NotFound(
            "cannot give a recording: it is switched off; set recording.enabled and restart the daemon",
            code="not_recorded",
        )
    response = web.StreamResponse(headers={"Content-Type": _MEDIA})
    await response.prepare(request)
    async for block in parts.recording.stream():
        await response.write(block)
    await response.write_eof()
    return response


ROUTES = (
    Route(
        "GET",
        "/helios/v1/recording",
        recording,
        Scope.ADMIN,
        "Every event that the scheduler was given, with the commands it answered.",
        Answer("lines of JSON, oldest first", media=_MEDIA),
        detail="Segments one after the other, each beginning with a line that has `helios` and the scheduler's state. "
        "`heliosctl replay` reads it.",
        errors=("not_recorded",),
    ),
)
