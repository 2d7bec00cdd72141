"""What is done around every change of the node: its dry run instead, once for an idempotency key, a line for the audit.

No handler knows of it: `api.app` puts it around each route that changes something.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from heliosd.api.asked import flag_of, json_of
from heliosd.api.auth import Auth
from heliosd.api.errors import error_bytes, helios_error
from heliosd.api.once import Once
from heliosd.api.parts import Parts
from heliosd.api.routes import Route
from heliosd.api.sse import HEADERS, LAST_FRAME
from heliosd.api.trace import TRACE
from heliosd.core.redact import HIDDEN, is_secret_name, redact
from heliosd.errors import BadRequest, HeliosError, NeedsKey
from heliosd.state.kept_answers import Kept

REASON_HEADER = "X-Helios-Reason"
KEY_HEADER = "Idempotency-Key"
REPEATED_HEADER = "Idempotency-Replayed"
AUDIT = "audit"
"""The journal's kind of these lines."""

_LONGEST_BODY = 4096
_STRANGERS = 30
"""So many refusals of people without a key are noted in a minute, others counted: they must not push out the rest."""
_MINUTE_S = 60.0


@dataclass(slots=True)
class _Outcome:
    result: str = "left"
    status: int = 499
    code: str | None = None
    message: str | None = None
    body: Any = None

    def failed(self, error: HeliosError) -> None:
        refused = 400 <= error.status < 500 or error.status == 503
        self.result = "refused" if refused else "failed"
        self.status, self.code, self.message = error.status, error.code, error.message


class Changes:
    """One for each application."""

    def __init__(self, parts: Parts, auth: Auth) -> None:
        self._parts = parts
        self._auth = auth
        self._once = Once(parts.kept)
        self._strangers: list[float] = []
        self._unnoted = 0

    async def carry_out(self, route: Route, request: web.Request) -> web.StreamResponse:
        """Answer a request for a route that changes something."""
        loop = asyncio.get_running_loop()
        began, who, outcome = loop.time(), self._auth.who(request), _Outcome()
        try:
            return await self._answer(route, request, who, outcome)
        except (HeliosError, BaseExceptionGroup) as error:
            found = helios_error(error)
            outcome.failed(found) if found else None
            raise
        except web.HTTPException as error:
            outcome.result, outcome.status, outcome.message = "refused", error.status, error.reason
            raise
        except Exception as error:
            outcome.result, outcome.status, outcome.message = "failed", 500, type(error).__name__
            raise
        finally:
            self._note(request, who, outcome, loop.time() - began)

    async def _answer(self, route: Route, request: web.Request, who: str, outcome: _Outcome) -> web.StreamResponse:
        trace, caller = request[TRACE], self._auth.admit(request, route.scope)
        trace.peer, trace.key = caller.peer, caller.key
        content = await request.read() if route.body is not None else b""
        outcome.body = _shown(content)
        if "dry_run" in request.query and request.query["dry_run"].lower() not in ("0", "1", "false", "true", "yes"):
            raise BadRequest(f"cannot read dry_run={request.query['dry_run']!r}: say true or false", param="dry_run")
        if flag_of(request, "dry_run"):
            assert route.preview is not None, "a route that changes something has one"
            response: web.StreamResponse = json_of(await route.preview(request, self._parts))
            outcome.result, outcome.status = "planned", 200
            return response
        key = request.headers.get(KEY_HEADER)
        if key is None:
            response = await route.handler(request, self._parts)
            _told(request, response, outcome)
            return response
        made: list[web.StreamResponse] = []
        kept, repeated = await self._once.answer(
            who, key, _fingerprint(route, request, content), lambda: self._act(route, request, made)
        )
        if made:
            if isinstance(made[0], _Refused):
                outcome.failed(made[0].error)
                trace.code = made[0].error.code
            else:
                _told(request, made[0], outcome)
            return made[0]
        assert repeated, "what is not kept was made now"
        outcome.result, outcome.status = "repeated", kept.status
        headers = {REPEATED_HEADER: "true"}
        if kept.media == "text/event-stream":
            headers |= HEADERS
        else:
            headers["Content-Type"] = kept.media
        return web.Response(status=kept.status, body=kept.body, headers=headers)

    async def _act(self, route: Route, request: web.Request, made: list[web.StreamResponse]) -> Kept:
        """Make the change; what is refused for good is kept like what is done. Raises what may go better next time."""
        try:
            response: web.StreamResponse = await route.handler(request, self._parts)
        except (HeliosError, BaseExceptionGroup) as error:
            found = helios_error(error)
            if found is None or found.status >= 500 or found.status in (404, 409, 429):
                raise
            response = _Refused(found)
        made.append(response)
        fingerprint = _fingerprint(route, request, await request.read() if route.body is not None else b"")
        if isinstance(response, web.Response):
            body = response.body if isinstance(response.body, bytes) else b""
            return Kept(fingerprint, response.status, response.content_type, _without_secrets(body))
        frame = request.get(LAST_FRAME, b"")
        status = 0 if frame.startswith(b"event: error") else response.status  # 0: who repeats it tries again
        return Kept(fingerprint, status, "text/event-stream", b": repeated\n\n" + frame)

    def _note(self, request: web.Request, who: str, outcome: _Outcome, took_s: float) -> None:
        stranger = outcome.code in (NeedsKey.code, "invalid_api_key", "invalid_peer_token", "host_not_allowed")
        if stranger and not self._worth_a_line():
            self._unnoted += 1
            return
        also, self._unnoted = self._unnoted, 0
        what = f"{request.method} {_path(request)}"
        text = f"{who}: {what}: {outcome.result}"
        text += f" ({outcome.message})" if outcome.message else ""
        text += f"; {also} more refusals of callers without a key were not noted" if also else ""
        detail = {
            "who": who,
            "what": what,
            "body": outcome.body,
            "why": _header(request, REASON_HEADER),
            "result": outcome.result,
            "status": outcome.status,
            "code": outcome.code,
            "message": outcome.message,
            "took_s": round(took_s, 4),
            "idempotency_key": _header(request, KEY_HEADER),
        }
        self._parts.journal.note(AUDIT, redact(text, longest=1000), ticket=request[TRACE].ticket, detail=detail)

    def _worth_a_line(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._strangers = [at for at in self._strangers if now - at < _MINUTE_S]
        if len(self._strangers) >= _STRANGERS:
            return False
        self._strangers.append(now)
        return True


class _Refused(web.Response):
    """A refusal that would be the same next time."""

    def __init__(self, error: HeliosError) -> None:
        super().__init__(status=error.status, body=error_bytes(error, anthropic=False), content_type="application/json")
        self.error = error


def _told(request: web.Request, response: web.StreamResponse, outcome: _Outcome) -> None:
    """How it ended: by its status, or by the last event of its stream."""
    outcome.result, outcome.status = "done", response.status
    frame = request.get(LAST_FRAME, b"")
    if frame.startswith(b"event: error"):
        detail: Mapping[str, Any] = json.loads(frame.partition(b"data: ")[2])["error"]
        outcome.result, outcome.code, outcome.message = "failed", detail["code"], detail["message"]


def _fingerprint(route: Route, request: web.Request, content: bytes) -> str:
    """Of what is asked. Of a body that is streamed, only the length."""
    query = sorted((name, value) for name, value in request.query.items() if name != "dry_run")
    said = json.dumps([request.method, request.path, query, None if route.body else request.content_length])
    return hashlib.sha256(said.encode() + content).hexdigest()


def _without_secrets(body: bytes) -> bytes:
    """The secret of a new key is shown once, and kept nowhere."""
    try:
        told = json.loads(body)
    except ValueError:
        return body
    if not isinstance(told, dict) or not any(is_secret_name(name) and told[name] for name in told):
        return body
    return json.dumps({name: None if is_secret_name(name) else each for name, each in told.items()}).encode()


def _shown(content: bytes) -> Any:
    """A body as the audit shows it."""
    if not content:
        return None
    try:
        told = redact(json.loads(content), longest=500)
    except (ValueError, RecursionError):
        return f"{len(content)} bytes that are no JSON"
    return told if len(json.dumps(told)) <= _LONGEST_BODY else f"{len(content)} bytes of JSON"


def _path(request: web.Request) -> str:
    said = [f"{name}={HIDDEN if is_secret_name(name) else value[:100]}" for name, value in request.query.items()]
    return f"{request.path[:500]}{'?' if said else ''}{'&'.join(said)}"


def _header(request: web.Request, name: str) -> str | None:
    text = request.headers.get(name)
    return None if text is None else redact(text, longest=500)
