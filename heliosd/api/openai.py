"""The inference paths of OpenAI and Anthropic: finds the model, gets a lease, and steps out of the way.

Of what is in a request it knows `model` and, roughly, how much work it is; engines validate and answer.
"""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AsyncExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial

from aiohttp import web

from heliosd.api.hold import telling
from heliosd.api.model_field import Question, check_content_type, read_question, rename_model
from heliosd.api.parts import Parts
from heliosd.api.reply import ClientReply
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.terms import HEADERS as TERMS_HEADERS
from heliosd.api.terms import claim_of, deadline_of, headers_for_peer
from heliosd.api.trace import TRACE
from heliosd.api.tracing import CONTEXT_HEADERS, context_for, stage
from heliosd.cluster.forward import FORWARDED_HEADER
from heliosd.cluster.identity import PEER_HEADER
from heliosd.core.lifecycle import State
from heliosd.core.names import Ticket
from heliosd.engines.engine import Engine, Request
from heliosd.engines.meter import Meter
from heliosd.errors import EngineFailed, HeliosError, NotFound
from heliosd.lease import Lease, LocalLease, PeerLease

log = logging.getLogger("heliosd.api")

_DEATH_IS_KNOWN_S = 2.0
"""An engine that failed a request and is not told dead by then lives: to ask it again would be the same again."""

# What is between the client and Helios, or was undone when the body was read.
_NOT_PASSED = TERMS_HEADERS | frozenset(
    {"authorization", "x-api-key", "cookie", "x-request-id", "connection", "keep-alive", "upgrade", "te", "expect"}
    | {"transfer-encoding", "content-length", "content-encoding", "accept-encoding", PEER_HEADER, FORWARDED_HEADER}
)

_PATHS = {
    "/v1/chat/completions": "Chat.",
    "/v1/chat/completions/batch": "Several chats in one request.",
    "/v1/completions": "Complete text.",
    "/v1/responses": "OpenAI's responses.",
    "/v1/messages": "Anthropic's messages.",
    "/v1/messages/count_tokens": "Count the tokens of Anthropic messages.",
    "/v1/embeddings": "Embed texts.",
    "/v2/embed": "Embed, as Cohere does.",
    "/v1/rerank": "Order documents by how well they fit a query.",
    "/v2/rerank": "Order documents, as Cohere does.",
    "/rerank": "The same as /v1/rerank.",
    "/v1/score": "Score pairs of texts.",
    "/score": "The same as /v1/score.",
    "/v1/pooling": "A pooling model's raw output.",
    "/pooling": "The same as /v1/pooling.",
    "/v1/classify": "Classify texts.",
    "/classify": "The same as /v1/classify.",
    "/v1/tokenize": "Turn text into tokens.",
    "/tokenize": "The same as /v1/tokenize.",
    "/v1/detokenize": "Turn tokens into text.",
    "/detokenize": "The same as /v1/detokenize.",
    "/v1/audio/transcriptions": "Transcribe speech.",
    "/v1/audio/translations": "Translate speech.",
}

# Paths that vLLM serves without the version only.
_ENGINE_PATHS = {f"/v1/{name}": f"/{name}" for name in ("pooling", "classify", "tokenize", "detokenize")}


async def infer(request: web.Request, parts: Parts) -> web.StreamResponse:
    """Answer one inference request."""
    stage(request, "receive", from_start=True)
    if parts.metering:
        parts.metering.check(request[TRACE].key, request[TRACE].ticket)
    content_type = request.headers.get("Content-Type", "")
    check_content_type(content_type)
    body = await request.read()
    question = await read_question(body, content_type, request.path)
    with closing(ClientReply(request, parts.stalled_s)) as reply:
        failure = await _serve(request, parts, reply, question, body)
        stage(request, "finish")
        return await (reply.fail(failure) if failure else reply.finish())


async def earlier_response(request: web.Request, parts: Parts) -> web.StreamResponse:
    """Fetch or cancel a response by its id: whichever ready engine made it knows it.

    Nothing is leased and nothing started: an engine that has ended has forgotten its responses.
    """
    body = await request.read()
    for replica in parts.node.snapshot().replicas:
        engine = parts.node.engine(replica.id)
        if engine is None or replica.state is not State.READY:
            continue
        with closing(ClientReply(request, parts.stalled_s)) as reply:
            try:
                failure = await _answered(request, reply, _by_engine(request, engine, body, reply))
            except EngineFailed:
                continue  # it died in this moment
            if failure is not None:
                return await reply.fail(failure)
            if reply.status != 404:  # a refusal is held back until `finish`: another engine may still be asked
                request[TRACE].model, request[TRACE].replica = replica.model, replica.id
                return await reply.finish()
    raise NotFound(
        f"cannot find the response {request.match_info['id']!r}: no running engine has it", code="response_not_found"
    )


async def _serve(
    request: web.Request, parts: Parts, reply: ClientReply, question: Question, body: bytes
) -> HeliosError | None:
    """Let an engine or a peer answer, as `_answered` tells.

    Whatever the body calls the model, by an alias perhaps that only this node knows, engine and peer are asked under
    the model's own name.
    """
    trace = request[TRACE]
    trace.model = str(question.ref)

    async def answer() -> None:
        async with AsyncExitStack() as held:
            lease = await _lease(request, parts, reply, question, held)
            trace.model = lease.model
            named = body
            if question.name != lease.model:
                named = await rename_model(body, request.headers["Content-Type"], lease.model)
            match lease:
                case LocalLease():
                    trace.replica = lease.replica
                    context = context_for(request, {"helios.replica": lease.replica})
                    key = claim_of(request.headers, question.work, key=trace.key, peer=trace.peer).key
                    with parts.metering.request(key, lease) if parts.metering else nullcontext() as meter:
                        trace.meter = meter
                        await _by_engine(request, lease.engine, named, reply, context, meter)
                    if trace.first_byte_s is not None:
                        parts.node.answered(lease.replica, trace.started, trace.started + trace.first_byte_s)
                case PeerLease():
                    trace.served_by = lease.peer
                    added = (*headers_for_peer(lease), *context_for(request, {"helios.peer": lease.peer}))
                    passed = _passed(request, trace.ticket, request.rel_url.raw_path, named, added)
                    await parts.peers.forward(lease.peer, passed, reply)

    async def answer_or_retry() -> None:
        """An engine that dies before its first word has done nothing that another may not do: once more, then."""
        parts.retries.asked()
        try:
            await answer()
        except EngineFailed as failure:
            dead = trace.replica or failure.replica
            if dead is None or not reply.repeatable or not await _gone(parts, dead) or not parts.retries.spend():
                raise
            parts.metrics.retried(trace.model or "")
            why = f"{dead} died before the first word; asked once more: {failure.message}"
            parts.journal.note("retry", why, ticket=trace.ticket, model=trace.model, replica=dead)
            reply.again()
            trace.replica = None
            await answer()

    return await _answered(request, reply, answer_or_retry())


async def _gone(parts: Parts, replica: str) -> bool:
    """Wait until the scheduler knows that a replica serves nobody any more; False when it goes on to serve."""
    try:
        async with asyncio.timeout(_DEATH_IS_KNOWN_S):
            version = -1
            while any(each.id == replica and each.state is State.READY for each in parts.node.snapshot().replicas):
                version = await parts.node.changed(version)
    except TimeoutError:
        return False
    return True


async def _lease(
    request: web.Request, parts: Parts, reply: ClientReply, question: Question, held: AsyncExitStack
) -> Lease:
    """Wait for the lease, which `held` gives back. A client that asked for a stream is told what it waits for."""
    trace = request[TRACE]
    waiting = partial(
        parts.node.lease,
        trace.ticket,
        question.ref,
        claim=claim_of(request.headers, question.work, key=trace.key, peer=trace.peer),
        deadline_s=deadline_of(request.headers),
        forwarded=trace.peer is not None or FORWARDED_HEADER in request.headers,
    )
    if not question.streams:
        return await held.enter_async_context(waiting())
    async with telling(reply, parts.tell_after_s()) as told:
        return await held.enter_async_context(waiting(told=told))


async def _by_engine(
    request: web.Request,
    engine: Engine,
    body: bytes,
    reply: ClientReply,
    added: tuple[tuple[str, str], ...] = (),
    meter: Meter | None = None,
) -> None:
    path = _ENGINE_PATHS.get(request.path, request.rel_url.raw_path)
    passed = _passed(request, request[TRACE].ticket, path, body, added)
    await engine.frontend.handle(replace(passed, meter=meter), reply)


async def _answered(request: web.Request, reply: ClientReply, answering: Awaitable[None]) -> HeliosError | None:
    """Returns what went wrong after the answer had begun, raises what did before."""
    try:
        await answering
    except ConnectionResetError:  # the client is gone
        raise
    except Exception as error:
        if not reply.begun:
            raise
        return _told(error, request[TRACE].ticket)
    return None


def _told(error: Exception, ticket: Ticket) -> HeliosError:
    if isinstance(error, HeliosError):
        return error
    log.exception("answer broke off", exc_info=error)
    return HeliosError(
        f"cannot finish the answer: heliosd itself failed; its log has the details under ticket={ticket}"
    )


def _passed(
    request: web.Request, ticket: Ticket, path: str, body: bytes, added: tuple[tuple[str, str], ...] = ()
) -> Request:
    replaced = request[TRACE].spans is not None
    # aiohttp reads header bytes as UTF-8, ASGI wants them as latin-1: the bytes stay the same.
    headers = tuple(
        (name, value.encode("utf-8", "surrogateescape").decode("latin-1"))
        for name, value in request.headers.items()
        if name.lower() not in _NOT_PASSED and not (replaced and name.lower() in CONTEXT_HEADERS)
    )
    return Request(ticket, request.method, path, request.rel_url.raw_query_string, headers + added, body)


def _passed_on(method: str, path: str, summary: str) -> Route:
    return Route(
        method,
        path,
        earlier_response if "{id}" in path else infer,
        Scope.USE,
        summary,
        Answer("What vLLM answers: JSON, or an event stream when `stream` is true.", media="*/*"),
        group="inference",
    )


ROUTES = (
    *(_passed_on("POST", path, summary) for path, summary in _PATHS.items()),
    _passed_on("GET", "/v1/responses/{id}", "An earlier response, where the engine keeps them."),
    _passed_on("POST", "/v1/responses/{id}/cancel", "Cancel a response that runs in the background."),
)
