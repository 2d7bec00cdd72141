"""What machines ask: does it live, may it get requests, how much of everything."""

import asyncio

from aiohttp import web

from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.scrape import scrape_of
from heliosd.errors import Unavailable
from heliosd.telemetry.metrics import CONTENT_TYPE


async def alive(request: web.Request, parts: Parts) -> web.StreamResponse:
    return web.Response(text="ok\n")


async def ready(request: web.Request, parts: Parts) -> web.StreamResponse:
    if not parts.node.accepting:
        draining = parts.node.snapshot().draining
        raise Unavailable(
            f"cannot take requests: the node is {'draining' if draining else 'starting'}",
            code="draining" if draining else "starting",
        )
    return web.Response(text="ready\n")


async def metrics(request: web.Request, parts: Parts) -> web.StreamResponse:
    scrape = await scrape_of(parts)
    body = await asyncio.to_thread(parts.metrics.render, scrape)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


ROUTES = (
    Route(
        "GET",
        "/healthz",
        alive,
        Scope.OPEN,
        "200 as long as the daemon's event loop lives.",
        Answer("`ok`", media="text/plain"),
        group="machines",
    ),
    Route(
        "GET",
        "/health",
        alive,
        Scope.OPEN,
        "The same, where vLLM's clients look for it.",
        Answer("`ok`", media="text/plain"),
        group="machines",
    ),
    Route(
        "GET",
        "/readyz",
        ready,
        Scope.OPEN,
        "200 when requests are taken, 503 while starting or draining.",
        Answer("`ready`", media="text/plain"),
        group="machines",
        errors=("starting", "draining"),
    ),
    Route(
        "GET",
        "/metrics",
        metrics,
        Scope.OPEN,
        "Metrics of Helios and of its engines, for Prometheus.",
        Answer(
            "`helios_*`, and the engines' `vllm:*` with the label `replica` added", media="text/plain; version=0.0.4"
        ),
        group="machines",
    ),
)
