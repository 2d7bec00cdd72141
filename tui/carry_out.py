"""Has the daemon do what was confirmed."""

import asyncio
from collections.abc import Sequence

from heliosctl.exits import Failure
from tui.ask import Ask
from tui.deeds import Verb, deed

_NO_SUCH_ROUTE = (404, 405)


async def carry_out(ask: Ask, verb: Verb, subject: str, concerned: Sequence[str]) -> str:
    """Return what has come of it, in words. `concerned`: of a device that is drained, its replicas. Raises Failure."""
    it = deed(verb, subject)
    try:
        await ask.call(it.method, it.path, it.body)
    except Failure as failure:
        if verb != "drain" or failure.status not in _NO_SUCH_ROUTE:
            raise
        await _stop(ask, concerned)
        return f"{subject}: {len(concerned)} replicas have stopped; this daemon may start others there"
    return it.done


async def _stop(ask: Ask, replicas: Sequence[str]) -> None:
    """All together: what a drain is to a daemon that keeps no device out of service. Raises the first Failure."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for it in (deed("stop", replica) for replica in replicas):
                tasks.create_task(ask.call(it.method, it.path))
    except* Failure as failures:
        raise next(each for each in failures.exceptions if isinstance(each, Failure)) from None
