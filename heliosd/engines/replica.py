"""The life of one engine from its launch to the moment its memory is free: one task, one way out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from heliosd.engines.engine import Engine, EngineKind, LaunchSpec
from heliosd.engines.stop import Stop
from heliosd.errors import EngineFailed, HeliosError

log = logging.getLogger("heliosd.engines")


async def live(
    spec: LaunchSpec,
    kind: EngineKind,
    *,
    start_timeout_s: float,
    stop: Stop,
    became_ready: Callable[[Engine], Awaitable[None]],
    died: Callable[[], None],
) -> str | None:
    """Start the engine, report it ready, keep it until the stop is asked for or it dies, and clean up after it.

    Its death is told at once: cleaning up may take a second, in which nobody should be sent to it.

    Returns None when it was told to stop, else the cause in the engine's own words. Cancelling ends the engine too.
    """
    try:
        engine = await stop.unless(_start(spec, kind, start_timeout_s))
    except EngineFailed as failure:
        return failure.cause or failure.message
    except HeliosError as error:
        return error.message
    except Exception as error:  # whatever a start throws is its cause of death, and is told as such
        log.exception("engine start broke", extra={"replica": spec.replica})
        return f"{type(error).__name__}: {error}"
    if engine is None:
        return None
    try:
        await became_ready(engine)
        cause = await stop.unless(engine.wait_dead())
        if cause is not None:
            died()
        return cause
    finally:
        await asyncio.shield(engine.stop())


async def _start(spec: LaunchSpec, kind: EngineKind, start_timeout_s: float) -> Engine:
    try:
        async with asyncio.timeout(start_timeout_s):
            return await kind.start(spec)
    except TimeoutError as error:
        raise EngineFailed(
            f"cannot start {spec.served_names[0]}: not ready after {start_timeout_s:.0f} s; "
            f"see its log or raise engines.start_timeout_s",
            cause=f"not ready after {start_timeout_s:.0f} s",
        ) from error
