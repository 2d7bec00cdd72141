"""Tells a client that waits for its stream what it waits for: comments of the stream, before the engine's own words."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from heliosd.core.messages import Hold

HEARTBEAT_S = 10.0
"""Told at least so often, which also keeps proxies from giving up."""


class Heard(Protocol):
    """Where comments go; `api.reply.ClientReply` fits."""

    async def hold(self, comment: str) -> None: ...


class Telling:
    """What one waiting request was told last. Called with each `Hold`."""

    def __init__(self, reply: Heard, after_s: float, heartbeat_s: float) -> None:
        self._reply = reply
        self._after_s = after_s
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._hold: Hold | None = None
        self._at = 0.0
        self._news = asyncio.Event()

    def __call__(self, hold: Hold) -> None:
        self._hold, self._at = hold, self._loop.time()
        self._news.set()

    async def tell(self) -> None:
        """For ever: at once when something changes, and as a heartbeat."""
        await asyncio.sleep(self._after_s)
        while True:
            self._news.clear()
            passed_s = self._loop.time() - self._at
            await self._reply.hold(comment_of(self._hold, passed_s))
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._news.wait()
            except TimeoutError:
                pass


def comment_of(hold: Hold | None, passed_s: float = 0.0) -> str:
    """The comment's words; `passed_s` after the hold. None: the node is not ready to say anything yet."""
    if hold is None:
        return 'helios state=starting reason="the node is getting ready"'
    words = ["helios", "state=queued", f"position={hold.position}"]
    if hold.eta_s is not None:
        words.append(f"eta={max(0.0, hold.eta_s - passed_s):.0f}")
    return " ".join([*words, f"reason={json.dumps(hold.reason)}"])


@asynccontextmanager
async def telling(reply: Heard, after_s: float, heartbeat_s: float = HEARTBEAT_S) -> AsyncIterator[Telling]:
    """While the block runs, and it does so for longer than `after_s`, the client is told what the `Telling` is told.

    When the block is left nothing more is written. Raises ConnectionResetError, inside the block's place, when the
    client has gone.
    """
    told = Telling(reply, after_s, heartbeat_s)
    try:
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(told.tell(), name="tell a waiting client")
            yield told
            speaking.cancel()
    except BaseExceptionGroup as group:
        # One thing ends it: the block's own error, or that the client has gone, which cancels the block.
        first = group.exceptions[0]
        raise first from first.__cause__
