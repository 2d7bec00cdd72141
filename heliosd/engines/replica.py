"""The life of one engine from its launch to the moment its memory is free: one task, one way out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Never, TypeVar

from heliosd.engines.engine import Engine, LaunchSpec
from heliosd.engines.stop import Stop
from heliosd.errors import EngineFailed, HeliosError

log = logging.getLogger("heliosd.engines")

T = TypeVar("T")


class HandedOver(Exception):
    """The engine has become another replica's: this one's life is over, the engine's is not."""


Order = Callable[[LaunchSpec, Engine], Awaitable[None]]
"""What a ready engine is told to do: to sleep, to wake. Raises EngineFailed when it cannot, which ends the engine."""


async def live(
    spec: LaunchSpec,
    start: Callable[[], Awaitable[Engine]],
    *,
    stop: Stop,
    orders: "asyncio.Queue[Order]",
    became_ready: Callable[[Engine], Awaitable[None]],
    died: Callable[[], None],
) -> str | None:
    """Start the engine, report it ready, carry out orders until a stop is asked for or it ends, and clean up after it.

    Its death is told at once: cleaning up may take a second, in which nobody should be sent to it.

    Returns None when it was told to stop, else the cause in the engine's own words. Cancelling ends the engine too.
    """
    try:
        engine = await stop.unless(start())
    except Exception as error:
        return _cause(spec, error)
    if engine is None:
        return None
    ours = True
    try:
        await became_ready(engine)
        cause = await stop.unless(_until_it_dies(engine, _obey(spec, engine, orders)))
        if cause is not None:
            died()
        return cause
    except HandedOver:
        ours = False
        return None
    except Exception as error:
        return _cause(spec, error)
    finally:
        if ours:
            await asyncio.shield(engine.stop())


async def _obey(spec: LaunchSpec, engine: Engine, orders: "asyncio.Queue[Order]") -> Never:
    while True:
        order = await orders.get()
        await order(spec, engine)


async def _until_it_dies(engine: Engine, work: Coroutine[Any, Any, Never]) -> str:
    """Return the cause of its death; raise what `work` raises. A call to an engine that dies may never return."""
    try:
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work)
            cause = await engine.wait_dead()
            working.cancel()
            return cause
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _cause(spec: LaunchSpec, error: Exception) -> str:
    """Whatever an engine's start, sleep or wake throws is its cause of death, and is told as such."""
    if isinstance(error, EngineFailed):
        return error.cause or error.message
    if isinstance(error, HeliosError):
        return error.message
    log.error("engine broke", extra={"replica": spec.replica}, exc_info=error)
    return f"{type(error).__name__}: {error}"


async def within(limit_s: float, work: Awaitable[T], cannot: str, state: str) -> T:
    """Await `work`. Raises EngineFailed, beginning with `cannot`, when it takes longer."""
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        late = f"{state} after {limit_s:.0f} s"
        raise EngineFailed(f"{cannot}: {late}; see its log or raise engines.start_timeout_s", cause=late) from error
