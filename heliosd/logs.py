"""One line per record on stderr, key=value or JSON, without ever holding up the caller.

A record is formatted where it is logged, because the request's ticket is known there; a thread writes it out.
"""

import asyncio
import contextlib
import json
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

log = logging.getLogger("heliosd.logs")

ticket_var: ContextVar[str | None] = ContextVar("ticket", default=None)
"""The request that is being worked on; on every line logged meanwhile."""

trace_id_var: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""Of the trace that tells of that request, where one is kept."""

Format = Literal["keyvalue", "json"]

_KEPT_LINES = 5000
_UNWRITTEN_LINES = 10_000
"""Lines that wait for a stderr nobody reads; beyond them lines are dropped and counted."""

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """All that a line says, in its order: ts, level, logger, msg, ticket, the record's own fields, the exception."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any] = {
        "ts": at,
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": record.getMessage(),
    }
    if (ticket := ticket_var.get()) is not None:
        fields["ticket"] = ticket
    if (trace_id := trace_id_var.get()) is not None:
        fields["trace_id"] = trace_id
    for name, value in record.__dict__.items():
        if name not in _STANDARD:
            fields[f"{name}_" if name in ("ts", "level", "logger") else name] = value
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        fields["stack"] = record.stack_info
    return fields


class KeyValue(logging.Formatter):
    """`ts=… level=info logger=heliosd.engines msg="engine ready" replica=r1 seconds=1.9`"""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{_name(name)}={_value(value)}" for name, value in fields_of(record).items())


class JsonLine(logging.Formatter):
    """The same fields as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(fields_of(record), default=str)


def _name(name: str) -> str:
    return name if name.isidentifier() else "".join(c if c.isalnum() else "_" for c in name) or "_"


def _value(value: Any) -> str:
    """Unprintable characters are always escaped: no client can forge a line or colour the operator's terminal."""
    match value:
        case None | bool():
            return json.dumps(value)
        case float():
            return repr(round(value, 6))
        case dict() | list() | tuple():
            text = json.dumps(value, default=str, separators=(",", ":"))
        case _:
            text = str(value)
    if text and text.isprintable() and not any(c in ' ="' for c in text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


class RecentLog:
    """The last lines, for whoever asks the daemon for its own log. Lines may come from any thread."""

    def __init__(self, kept: int = _KEPT_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=kept)
        self._followers: list[_Follower] = []
        self._lock = threading.Lock()

    def append(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            for follower in self._followers:
                follower.tell(line)

    def lines(self, n: int = _KEPT_LINES) -> list[str]:
        """The last `n` lines, oldest first."""
        with self._lock:
            return list(self._lines)[-n:] if n > 0 else []

    async def follow(self, last: int = 0) -> AsyncIterator[str]:
        """The last `last` lines, then every new one. Who reads too slowly loses the oldest."""
        follower = _Follower(asyncio.get_running_loop(), self._lines.maxlen or _KEPT_LINES)
        with self._lock:
            first = list(self._lines)[-last:] if last > 0 else []
            self._followers.append(follower)
        try:
            for line in first:
                yield line
            while True:
                for line in await follower.take():
                    yield line
        finally:
            with self._lock:
                self._followers.remove(follower)


class _Follower:
    """Lines on their way from any thread to one reader on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kept: int) -> None:
        self._loop = loop
        self._lines: deque[str] = deque(maxlen=kept)
        self._there = asyncio.Event()

    def tell(self, line: str) -> None:
        self._lines.append(line)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._there.set)

    async def take(self) -> Iterable[str]:
        await self._there.wait()
        self._there.clear()
        taken = []
        while self._lines:
            taken.append(self._lines.popleft())
        return taken


class Writer:
    """Writes lines to a stream from its own thread, so that a stalled stderr stalls nothing else."""

    def __init__(self, stream: TextIO, limit: int = _UNWRITTEN_LINES, *, own: bool = False) -> None:
        """`own`: close the stream at the end."""
        self._stream = stream
        self._own = own
        self._lines: queue.Queue[str | None] = queue.Queue(limit)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Never waits."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, for at most `timeout_s` seconds each for handing over and for writing."""
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return  # nobody reads the stream: the thread is a daemon and ends with the process
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log.warning("log lines dropped", extra={"lines": dropped})
            # The reader of stderr may have gone away, or the stream be closed: there is nowhere to say so.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
        with contextlib.suppress(OSError, ValueError):
            self._stream.close() if self._own else self._stream.flush()


class LineHandler(logging.Handler):
    """Hands formatted lines to the writer and to the recent log."""

    def __init__(self, writer: Writer, recent: RecentLog) -> None:
        super().__init__()
        self.writer = writer
        self.recent = recent

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # a record that cannot be formatted must not end what logged it
            self.handleError(record)
            return
        self.recent.append(line)
        self.writer.put(line)

    def close(self) -> None:
        self.writer.close()
        super().close()


def setup(level: str, format: Format, stream: TextIO | None = None) -> LineHandler:
    """Send all logging of this process through one LineHandler. Close it at the end to flush it."""
    private = None if stream else _private_stderr()
    writer = Writer(stream or private or sys.stderr, own=private is not None)
    handler = LineHandler(writer, RecentLog())
    root = logging.getLogger()
    for previous in root.handlers[:]:
        root.removeHandler(previous)
    root.addHandler(handler)
    logging.captureWarnings(True)
    set_format(format)
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Change what is logged from now on. Other libraries are one step quieter than Helios."""
    asked = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("heliosd").setLevel(asked)
    logging.getLogger().setLevel(logging.INFO if asked <= logging.DEBUG else max(asked, logging.WARNING))


def level_now() -> str:
    """What is logged of Helios now, as `set_level` takes it."""
    return logging.getLevelName(logging.getLogger("heliosd").getEffectiveLevel()).lower()


def set_format(format: Format) -> None:
    """Change how lines look from now on."""
    for handler in _ours():
        handler.setFormatter(JsonLine() if format == "json" else KeyValue())


def recent_log() -> RecentLog:
    """The recent log that `setup` made; an empty one when logging was not set up."""
    return next((handler.recent for handler in _ours()), RecentLog())


def _ours() -> list[LineHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)]


def _private_stderr() -> TextIO | None:
    """A copy of stderr: a stall while writing must not hold the lock of `sys.stderr`, which others print to."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace")
    except (OSError, ValueError, AttributeError):
        return None  # stderr is closed, or no file
