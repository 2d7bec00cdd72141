"""Reads server-sent events from bytes as they come. Does no I/O, so the sync and the async client share it."""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SseEvent:
    kind: str
    """`message` where the server names none."""
    data: str
    id: str | None = None


class SseParser:
    """Feed it chunks, cut anywhere; it gives each event once its empty line has come.

    `comment` hears what is said in comments, which are no events.
    """

    def __init__(self, comment: Callable[[str], None] = lambda text: None) -> None:
        self._comment = comment
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []
        self._kind = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[SseEvent]:
        text = self._decoder.decode(chunk)
        self._rest.append(text)
        if "\n" not in text:  # a line of a megabyte comes in many chunks, and is put together once
            return
        *lines, rest = "".join(self._rest).split("\n")
        self._rest = [rest]
        for line in lines:
            if (event := self._line(line.removesuffix("\r"))) is not None:
                yield event

    def _line(self, line: str) -> SseEvent | None:
        if not line:
            return self._finish()
        if line.startswith(":"):
            self._comment(line[1:].strip())
            return None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
            case _:
                pass  # `retry` and unknown fields: the standard says to ignore them
        return None

    def _finish(self) -> SseEvent | None:
        kind, data, self._kind, self._data = self._kind, self._data, "", []
        return SseEvent(kind or "message", "\n".join(data), self._id) if data else None
