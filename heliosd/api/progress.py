"""Long work while somebody watches: its progress as events, at most some ten times a second, and how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from heliosd.api.parts import Progress
from heliosd.api.sse import EventStream, frame
from heliosd.errors import HeliosError
from heliosd.wire import ProgressView

T = TypeVar("T")

_PROGRESS_S = 0.1


async def watched(stream: EventStream, work: Callable[[Callable[[Progress], None]], Awaitable[T]]) -> T | HeliosError:
    """Do the work, which is given whom to tell of its progress; returns what it returned or raised."""
    latest = _Latest()
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(latest.send_all(stream)), tasks.create_task(stream.keep_alive())]
        outcome: T | HeliosError
        try:
            outcome = await work(latest.tell)
        except HeliosError as error:
            outcome = error
        finally:
            for task in background:
                task.cancel()
    await latest.send_waiting(stream)
    return outcome


class _Latest:
    """Where progress waits for its turn to be sent: only the last of each phase is kept."""

    def __init__(self) -> None:
        self._waiting: dict[str, ProgressView] = {}
        self._there = asyncio.Event()

    def tell(self, progress: Progress) -> None:
        self._waiting[progress.phase] = ProgressView(
            phase=progress.phase,
            item=progress.item,
            done_bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            rate_bytes_per_s=progress.rate_bytes_per_s,
            eta_s=progress.eta_s,
        )
        self._there.set()

    async def send_all(self, stream: EventStream) -> None:
        while True:
            await self._there.wait()
            await self.send_waiting(stream)
            await asyncio.sleep(_PROGRESS_S)

    async def send_waiting(self, stream: EventStream) -> None:
        self._there.clear()
        views, self._waiting = self._waiting, {}
        for view in views.values():
            await stream.send(frame("progress", view))
