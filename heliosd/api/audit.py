"""/helios/v1/audit: who changed what, why, and what came of it."""

from aiohttp import web

from heliosd.api.asked import json_of, number_of
from heliosd.api.changes import AUDIT
from heliosd.api.parts import Entry, Parts
from heliosd.api.routes import Answer, Parameter, Route, Scope
from heliosd.errors import BadRequest
from heliosd.wire import AuditEntry, AuditList

_CODE = "code"
_DEFAULT = 200
_MOST = 100_000


async def audit(request: web.Request, parts: Parts) -> web.StreamResponse:
    limit = number_of(request, "limit", _DEFAULT, least=1, most=_MOST)
    after = number_of(request, "after", 0, most=2**62)
    since = _moment(request.query.get("since"))
    found = await parts.journal.read(after=after, limit=limit, kinds=(AUDIT,), since=since)
    return json_of(AuditList(entries=[entry_view(entry) for entry in found]))


def entry_view(entry: Entry) -> AuditEntry:
    detail = entry.detail
    return AuditEntry(
        id=entry.id,
        at=entry.at,
        who=detail["who"],
        what=detail["what"],
        body=detail.get("body"),
        why=detail.get("why"),
        result=detail["result"],
        status=detail["status"],
        code=detail.get(_CODE),
        message=detail.get("message"),
        took_s=detail["took_s"],
        idempotency_key=detail.get("idempotency_key"),
        ticket=entry.ticket,
    )


def _moment(text: str | None) -> float:
    try:
        moment = float(text or 0)
    except ValueError:
        moment = -1.0
    if not 0 <= moment < 1e12:
        raise BadRequest(f"cannot accept since={text}: it must be seconds since the epoch", param="since")
    return moment


ROUTES = (
    Route(
        "GET",
        "/helios/v1/audit",
        audit,
        Scope.ADMIN,
        "Who changed what, why, and what came of it; refused calls and dry runs too.",
        Answer("the last of them, oldest first", AuditList),
        parameters=(
            Parameter("since", "string", "only from this moment on, in seconds since the epoch"),
            Parameter("after", "integer", "only behind this id: the first so many, not the last"),
            Parameter("limit", "integer", f"how many; {_DEFAULT} when not given"),
        ),
        detail="Bodies are shown without secrets. Of callers without a key 30 refusals a minute are noted, others "
        "counted. The journal keeps its last 200,000 lines, of which these are some.",
    ),
)
