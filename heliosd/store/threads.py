"""The store's own threads: all its file and hash work is done there, never on the event loop."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """A few threads for short pieces of work: one chunk, one sync, one directory."""

    def __init__(self, count: int, *, niceness: int = 0) -> None:
        """`niceness` above 0: they run when nobody else wants to."""

        def begin() -> None:
            if niceness:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)

        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store", initializer=begin)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` in a thread and return what it returns.

        When the caller is cancelled this still waits for the function to end, and only then lets the
        cancellation rise: nobody may close or unlink a file that a thread is still writing.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            future.exception()  # marks it as seen
            raise cancelled
        return future.result()

    def close(self) -> None:
        """Wait for what runs and end the threads."""
        self._pool.shutdown(wait=True)
