"""Builds the web application: the routes of all rooms, and what is done around every request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from heliosd import __version__
from heliosd.api.auth import Auth
from heliosd.api.changes import Changes
from heliosd.api.errors import HttpFault, error_response, helios_error
from heliosd.api.feed import CLOSING
from heliosd.api.openapi import ROUTES
from heliosd.api.parts import Parts
from heliosd.api.routes import Route, Scope
from heliosd.api.trace import TRACE, Trace
from heliosd.api.tracing import begin_trace, end_trace
from heliosd.errors import HeliosError, NotFound
from heliosd.logs import ticket_var

log = logging.getLogger("heliosd.api")

AUTH = web.AppKey("auth", Auth)

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(parts: Parts) -> web.Application:
    """The application; `api.listen` gives it sockets. Needs `parts.keys` loaded."""
    auth = Auth(parts.keys, parts.peers, admin_group=parts.admin_group, hosts=parts.hosts)
    app = web.Application(client_max_size=parts.max_body_bytes, middlewares=[_around(parts)])
    app[AUTH] = auth
    changes = Changes(parts, auth)
    closing = app[CLOSING] = asyncio.Event()

    async def end_streams(app: web.Application) -> None:
        closing.set()

    app.on_shutdown.append(end_streams)
    app.on_response_prepare.append(_stamp)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _bound(route, parts, auth, changes))
    return app


def _bound(route: Route, parts: Parts, auth: Auth, changes: Changes) -> Next:
    async def change(request: web.Request) -> web.StreamResponse:
        return await changes.carry_out(route, request)

    if route.changes:
        return change

    async def handle(request: web.Request) -> web.StreamResponse:
        trace, caller = request[TRACE], auth.admit(request, route.scope)
        trace.peer, trace.key = caller.peer, caller.key
        return await route.handler(request, parts)

    return handle


async def _stamp(request: web.BaseRequest, response: web.StreamResponse) -> None:
    trace = request.get(TRACE)
    response.headers["Server"] = f"heliosd/{__version__}"
    if trace is not None:
        response.headers["X-Request-Id"] = trace.ticket
        if trace.spans is not None:
            response.headers["traceparent"] = trace.spans.traceparent
        trace.response = response


def _around(parts: Parts) -> Middleware:
    quiet = {route.path for route in ROUTES if route.scope is Scope.OPEN}

    @web.middleware
    async def around(request: web.Request, handler: Next) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        trace = request[TRACE] = Trace(parts.node.new_ticket(), loop.time())
        ticket_var.set(trace.ticket)
        begin_trace(request, parts, _route_of(request))
        status = 499  # the client went away: nobody sees it, but the log and the metrics should
        try:
            response = await _answered(request, handler, parts.max_body_bytes)
            status = response.status
        finally:
            seconds = loop.time() - trace.started
            route = _route_of(request)
            parts.metrics.request_answered(route, status, trace.code, seconds=seconds, first_byte_s=trace.first_byte_s)
            log.log(
                logging.DEBUG if route in quiet else logging.INFO,
                "request",
                extra=_fields(request, trace, status, seconds),
            )
            end_trace(request, status)
        return response

    return around


async def _answered(request: web.Request, handler: Next, max_body_bytes: int) -> web.StreamResponse:
    try:
        if (request.content_length or 0) > max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(max_body_bytes, request.content_length or 0)
        return await handler(request)
    except web.HTTPException as error:
        return _refuse(request, _fault(request, error, max_body_bytes), error.headers.getall("Allow", []))
    except Exception as error:
        if _gone(error):  # the client is: aiohttp closes what is left of the connection
            raise ConnectionResetError from error
        found = helios_error(error)
        if found is None:
            log.exception("request failed", extra={"method": request.method, "path": request.path})
            found = HeliosError(
                f"cannot answer: heliosd itself failed; its log has the details under ticket={request[TRACE].ticket}"
            )
        return _refuse(request, found)


def _refuse(request: web.Request, error: HeliosError, allow: list[str] | None = None) -> web.StreamResponse:
    trace = request[TRACE]
    trace.code = error.code
    if trace.response is not None:  # half an answer is out: only a cut connection tells that the rest is missing
        if request.transport is not None:
            request.transport.abort()
        return trace.response
    response = error_response(error, request.path)
    if allow:
        response.headers["Allow"] = ", ".join(allow)
    return response


def _gone(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_gone, error.exceptions))
    return isinstance(error, ConnectionResetError)


def _fault(request: web.Request, error: web.HTTPException, max_body_bytes: int) -> HeliosError:
    match error:
        case web.HTTPNotFound():
            return NotFound(
                f"cannot find {request.method} {request.path}: no such path; /openapi.json lists them",
                code="unknown_path",
            )
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return HttpFault(
                405, "method_not_allowed", f"cannot {request.method} {request.path}: it answers to {allowed}"
            )
        case web.HTTPRequestEntityTooLarge():
            return HttpFault(
                413,
                "body_too_large",
                f"cannot take a request body of more than {max_body_bytes} bytes: send less, "
                "or let the operator raise api.max_body_bytes",
            )
    return HttpFault(error.status, "bad_request", f"cannot understand the request: {error.reason}")


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _fields(request: web.Request, trace: Trace, status: int, seconds: float) -> dict[str, object]:
    tokens = trace.meter.read() if trace.meter else None
    fields = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "seconds": round(seconds, 4),
        "client": request.remote or "unix",
        "model": trace.model,
        "replica": trace.replica,
        "served_by": trace.served_by,
        "peer": trace.peer,
        "key": trace.key.name if trace.key else None,
        "peer_ticket": request.headers.get("X-Request-Id") if trace.peer else None,
        "code": trace.code or None,
        "prompt_tokens": tokens.prompt if tokens else None,
        "completion_tokens": tokens.completion if tokens else None,
    }
    return {name: value for name, value in fields.items() if value is not None}
