"""Shows a long operation on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import ProgressView

Show = Callable[[ProgressView], None]
QUIET_S = 5.0
"""A log that grows by a line in so many seconds can still be read."""


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Show]:
    """Give a function that shows each ProgressView it is handed."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _bars(stream) as show:
            yield show
    else:
        yield PlainProgress(lambda line: print(line, file=stream, flush=True), time.monotonic)


class PlainProgress:
    """One line when a phase or file begins or is complete, and at most one in QUIET_S in between."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._subject: tuple[str, str | None] | None = None
        self._began = (0.0, 0)
        self._said_at = 0.0

    def __call__(self, view: ProgressView) -> None:
        now = self._clock()
        subject = (view.phase, view.item)
        fresh = subject != self._subject
        complete = view.total_bytes is not None and view.done_bytes >= view.total_bytes
        if fresh:
            self._subject, self._began = subject, (now, view.done_bytes)
        if fresh or complete or now - self._said_at >= QUIET_S:
            self._said_at = now
            self._write(progress_line(view, now - self._began[0], view.done_bytes - self._began[1]))


def progress_line(view: ProgressView, span_s: float, span_bytes: int) -> str:
    """`fetch model.safetensors 1.2 GiB of 4.0 GiB, 30%, 50.0 MiB/s, 57.3 s left`.

    The speed is what the daemon says; where it says nothing, that of the `span_bytes` that came in `span_s`.
    """
    parts = [format_bytes(view.done_bytes)] if view.done_bytes or view.total_bytes else []
    if view.total_bytes:
        parts[0] += f" of {format_bytes(view.total_bytes)}"
        parts.append(f"{100 * view.done_bytes // view.total_bytes}%")
    parts += _speed(view, span_bytes / span_s if span_s > 0 and span_bytes > 0 else None)
    return " ".join(filter(None, [view.phase, view.item, ", ".join(parts)]))


def _speed(view: ProgressView, seen_bytes_per_s: float | None) -> list[str]:
    """`50.0 MiB/s` and `57.3 s left`, as far as they are known."""
    speed = view.rate_bytes_per_s or seen_bytes_per_s
    if not speed:
        return []
    parts = [f"{format_bytes(round(speed))}/s"]
    if view.total_bytes and view.total_bytes > view.done_bytes:
        left_s = (view.total_bytes - view.done_bytes) / speed if view.eta_s is None else view.eta_s
        parts.append(f"{format_seconds(left_s)} left")
    return parts


@contextmanager
def _bars(stream: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[speed]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(file=stream)) as bars:

        def show(view: ProgressView) -> None:
            words = f"{view.phase} {_short(view.item)}" if view.item else view.phase
            if view.phase not in tasks:
                tasks[view.phase] = bars.add_task(words, total=view.total_bytes, speed="")
            task = tasks[view.phase]
            bars.update(task, description=words, completed=view.done_bytes, total=view.total_bytes)
            own = next((each.speed for each in bars.tasks if each.id == task), None)
            bars.update(task, speed=", ".join(_speed(view, own)))

        yield show


def _short(item: str, width: int = 32) -> str:
    return item if len(item) <= width else "…" + item[-width + 1 :]
