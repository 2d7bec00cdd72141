"""One and the same change asked for again under its idempotency key: done once, answered as often as it is asked."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from heliosd.api.errors import HttpFault
from heliosd.errors import BadRequest, HeliosError
from heliosd.state.kept_answers import Kept, KeptAnswers

log = logging.getLogger("heliosd.api")

_LONGEST = 255


class Once:
    """Who repeats a change while it is being made waits for it; who repeats it within a day gets the kept answer."""

    def __init__(self, kept: KeptAnswers) -> None:
        self._kept = kept
        self._running: dict[tuple[str, str], tuple[str, asyncio.Event]] = {}

    async def answer(
        self, who: str, key: str, fingerprint: str, act: Callable[[], Awaitable[Kept]]
    ) -> tuple[Kept, bool]:
        """The answer, and whether it is a kept one. `act` raises what is not worth keeping: then nothing is.

        A first one that is given up (its client left, the daemon ended) leaves it to the next to make the change.
        Raises HttpFault (422) when the key was used for something else.
        """
        if not (0 < len(key) <= _LONGEST and key.isprintable()):
            raise BadRequest(
                f"cannot use the Idempotency-Key {key[:40]!r}: it must have 1 to {_LONGEST} printable characters"
            )
        mine = who, key
        while (running := self._running.get(mine)) is not None:
            _same(key, running[0], fingerprint)
            await running[1].wait()
        over = asyncio.Event()
        self._running[mine] = fingerprint, over
        try:
            return await self._act(who, key, fingerprint, act)
        finally:
            del self._running[mine]
            over.set()

    async def _act(self, who: str, key: str, fingerprint: str, act: Callable[[], Awaitable[Kept]]) -> tuple[Kept, bool]:
        try:
            before = await self._kept.begin(who, key, fingerprint)
        except sqlite3.Error as error:
            raise HeliosError(
                f"cannot promise to do this once: the state database cannot be written ({error}). Make room on the "
                "disk, or leave out the Idempotency-Key",
                code="state_not_written",
            ) from error
        if before is not None:
            _same(key, before.fingerprint, fingerprint)
            if before.status:
                return before, True
        try:
            answer = await act()
        except HeliosError:
            await self._write(self._kept.forget(who, key))
            raise
        await asyncio.shield(self._write(self._kept.keep(who, key, answer)))
        return answer, False

    @staticmethod
    async def _write(writing: Awaitable[None]) -> None:
        try:
            await writing
        except sqlite3.Error as error:  # the change is made; who repeats it makes it again
            log.error("answer not kept", extra={"cause": str(error)})


def _same(key: str, before: str, now: str) -> None:
    if before != now:
        raise HttpFault(
            422,
            "idempotency_key_reused",
            f"cannot do this under the Idempotency-Key {key!r}: it was used for another request within the last day "
            "(path, query or body differ); take a new key",
        )
