"""One addition however many ask for it.

Who asks first does the work; who asks for the same meanwhile sees the same progress and gets the same answer. When
the one who works is cancelled, the next goes on with what is there; only when nobody waits any more does it end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from heliosd.core.names import ModelRef
from heliosd.errors import Conflict
from heliosd.store.sources.source import Progress, Tell
from heliosd.store.stored import Addition, StoredModel

Work = Callable[[Tell], Awaitable[StoredModel]]
Watch = Callable[[ModelRef, Addition, Progress | None], None]
"""Told of what is added under a ref, how far it is; None: it has ended."""


class _UnderWay:
    def __init__(self, wanted: Addition, watch: Tell) -> None:
        self.wanted = wanted
        self.turn = asyncio.Lock()
        self.listeners: list[Tell] = [watch]
        self.last: Progress | None = None
        self.outcome: StoredModel | Exception | None = None

    def tell(self, progress: Progress) -> None:
        self.last = progress
        for listener in self.listeners:
            listener(progress)


class Additions:
    """Those under way, by the ref they are for."""

    def __init__(self, watch: Watch = lambda ref, wanted, progress: None) -> None:
        self._watch = watch
        self._under_way: dict[ModelRef, _UnderWay] = {}

    async def join(self, ref: ModelRef, wanted: Addition, tell: Tell, work: Work) -> StoredModel:
        """Do the work, or wait for whoever does the same. Raises what it raises, or Conflict when something else is
        being added under that ref."""
        mine = self._under_way.setdefault(ref, _UnderWay(wanted, partial(self._watch, ref, wanted)))
        if mine.wanted != wanted:
            raise Conflict(f"cannot change {ref}: it is being added in another way just now; wait until that is done")
        mine.listeners.append(tell)
        try:
            if mine.last is not None:
                tell(mine.last)
            async with mine.turn:
                if mine.outcome is None:
                    mine.outcome = await _outcome(work, mine.tell)
            if isinstance(mine.outcome, Exception):
                raise mine.outcome
            return mine.outcome
        finally:
            mine.listeners.remove(tell)
            if len(mine.listeners) == 1:  # the one who only watches
                del self._under_way[ref]
                self._watch(ref, wanted, None)


async def _outcome(work: Work, tell: Tell) -> StoredModel | Exception:
    """What everybody who waits is to get; being cancelled concerns only who works."""
    try:
        return await work(tell)
    except Exception as error:
        return error
