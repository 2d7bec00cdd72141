"""The recording: every event the scheduler was given and the commands it answered, so that replay can compare.

Segments of JSON lines, each of which can be replayed alone: it begins with the scheduler's whole state. The oldest go
when all together grow beyond the limit. Lines are encoded at once and written in batches by a thread; the last
`LINGER_S` before a kill may be missing, and the last line may be torn.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from heliosd import __version__
from heliosd.core.codec import Codec
from heliosd.core.messages import Command, Demand, Event
from heliosd.core.scheduler import Scheduler

log = logging.getLogger("heliosd.state")

LINGER_S = 0.1
SEGMENTS = 8
"""The recording's limit is so many segments' worth."""
MOST_FILES = 256
"""A daemon that starts again and again leaves small segments."""
MOST_UNWRITTEN_BYTES = 64 * 2**20
TRY_AGAIN_AFTER = 1000
"""Events, once the disk did not take one."""
_BLOCK_BYTES = 256 * 1024
_EVENT = b'{"event"'
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


class Recording:
    """Owner of one folder of segments. `run` must be running for anything to be written."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._codec = segment_codec()
        self._room_bytes = 0
        """Until the next segment begins."""
        self._unwritten: list[tuple[bool, bytes]] = []
        """Lines, and whether one begins a segment."""
        self._unwritten_bytes = 0
        self._queued_lines = self._settled_lines = 0
        """Since this process began; settled: written or given up."""
        self._something, self._hurry, self._written = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._file: BinaryIO | None = None
        self._broken_for: int | None = None
        """Events that went unrecorded since the disk did not take one; None while it takes them."""
        self.events = 0
        """Recorded since this process began."""
        self.lost = 0
        """Not recorded since then, because they could not be written."""

    # ---- on the event loop -----------------------------------------------------

    def begin(self, scheduler: Scheduler) -> None:
        """Begin a segment with what the scheduler knows now."""
        self._codec = segment_codec()
        state = self._codec.encode(Scheduler, scheduler)
        head = {
            "helios": __version__,
            "began_at": time.time(),
            "shared": self._codec.fresh,
            "state": state,
        }
        line = _line(head)
        self._codec.fresh = []
        # Never less than its beginning is long: or a long queue would be written again with every event.
        self._room_bytes = max(self._max_bytes // SEGMENTS, len(line))
        self._queue(line, begins=True)

    def note(self, scheduler: Scheduler, event: Event, commands: Sequence[Command] | None) -> None:
        """Record what `scheduler` was just given and what it answered; None: it failed. Never blocks."""
        if self._broken_for is not None:
            self.lost += 1
            self._broken_for += 1
            if self._broken_for >= TRY_AGAIN_AFTER and self._unwritten_bytes == 0:
                self._broken_for = None
                self.begin(scheduler)
            return
        told = self._codec.encode(Event, event)
        answered = None if commands is None else [self._codec.encode(Command, each) for each in commands]
        for shared in self._codec.fresh:
            self._queue(_line({"shared": shared}))
        self._codec.fresh.clear()
        # `_EVENT` knows how such a line begins.
        self._queue(_line({"event": told, "commands": answered}))
        self.events += 1
        if self._unwritten_bytes > MOST_UNWRITTEN_BYTES:
            self._break_off("it is too slow")
        elif self._room_bytes <= 0 and commands is not None:
            self.begin(scheduler)

    async def flushed(self) -> None:
        """Return once everything noted so far is in its file, or given up."""
        wanted = self._queued_lines
        while self._settled_lines < wanted:
            self._hurry.set()
            await self._written.wait()

    async def run(self) -> None:
        """Write what is noted, batch by batch, until cancelled; what is queued then is still written."""
        try:
            while True:
                await self._something.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        await self._hurry.wait()
                await self._write_all()
        finally:
            await self._write_all()
            await asyncio.to_thread(self._close)

    async def stream(self) -> AsyncIterator[bytes]:
        """All segments as they are now, the oldest first, in blocks of bytes."""
        await self.flushed()
        files = await asyncio.to_thread(self._open_all)
        try:
            for file, size_bytes in files:
                left, last = size_bytes, b"\n"
                while block := await asyncio.to_thread(file.read, min(left, _BLOCK_BYTES)):
                    left, last = left - len(block), block
                    yield block
                if not last.endswith(b"\n"):  # torn by a kill: what follows is a line of its own
                    yield b"\n"
        finally:
            for file, _ in files:
                file.close()

    def _queue(self, line: bytes, *, begins: bool = False) -> None:
        self._unwritten.append((begins, line))
        self._unwritten_bytes += len(line)
        self._queued_lines += 1
        self._room_bytes -= 0 if begins else len(line)
        self._something.set()

    async def _write_all(self) -> None:
        batch, self._unwritten = self._unwritten, []
        self._something.clear()
        self._hurry.clear()
        try:
            # A batch that has left the list is written to the end, also when this task is cancelled meanwhile.
            await asyncio.shield(asyncio.to_thread(self._write, batch))
        except OSError as error:  # a full disk costs the recording, never the service
            self._break_off(str(error), batch)
        finally:
            self._unwritten_bytes = sum(len(line) for _, line in self._unwritten)
            self._settled_lines = self._queued_lines - len(self._unwritten)
            self._written.set()
            self._written = asyncio.Event()

    def _break_off(self, cause: str, batch: Sequence[tuple[bool, bytes]] = ()) -> None:
        """What comes after a gap cannot be replayed: leave it out, until a new segment can be tried."""
        gone = sum(line.startswith(_EVENT) for _, line in (*batch, *self._unwritten))
        self.events -= gone
        self.lost += gone
        if self._broken_for is None:
            log.error("scheduler cannot be recorded", extra={"cause": cause})
        self._broken_for = 0
        self._unwritten.clear()
        self._unwritten_bytes = 0

    # ---- in a thread -----------------------------------------------------------

    def _write(self, batch: Sequence[tuple[bool, bytes]]) -> None:
        try:
            for begins, line in batch:
                if begins:
                    self._next_file()
                if self._file is not None:
                    self._file.write(line)
            if self._file is not None:
                self._file.flush()
        except OSError:
            self._close()
            raise

    def _next_file(self) -> None:
        self._close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = segments(self._folder)
        sizes = {file: file.stat().st_size for file in files}
        kept_bytes = self._max_bytes - self._max_bytes // SEGMENTS
        while files and (sum(sizes[file] for file in files) > kept_bytes or len(files) >= MOST_FILES):
            files.pop(0).unlink()
        number = int(files[-1].stem) + 1 if files else 1
        path = self._folder / f"{number:08}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _open_all(self) -> list[tuple[BinaryIO, int]]:
        files = [file.open("rb") for file in segments(self._folder)]
        return [(file, os.fstat(file.fileno()).st_size) for file in files]


def segment_codec() -> Codec:
    """One for each segment. A demand is long and every request carries it: it is told once."""
    return Codec(shared=(Demand,))


def segments(folder: Path) -> list[Path]:
    """The files of a recording, oldest first."""
    return sorted(file for file in folder.glob("*.jsonl") if file.stem.isdecimal())


def _line(value: object) -> bytes:
    return _encode(value).encode() + b"\n"
