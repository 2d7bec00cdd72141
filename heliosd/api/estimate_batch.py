"""Many estimates in one call: cut into entries, calculated in slices, sent as they come. An entry's error is a value.

The body is cut by the JSON reader itself, so an entry is known by its own bytes, and what was asked before is not read
again.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence

from aiohttp import web

from heliosd.api.errors import error_body
from heliosd.api.estimate_target import Target
from heliosd.api.estimator import Answered, Estimator
from heliosd.api.sse import EventStream
from heliosd.errors import BadRequest, HeliosError
from heliosd.wire import EstimateRequest

MOST_ENTRIES = 10_000
NDJSON = "application/x-ndjson"
_SLICE = 16
"""Entries calculated without looking up: some ten milliseconds."""

_SPACE = re.compile(r"[ \t\n\r]*")
_HEAD = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"entries"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*')
_TAIL = re.compile(r"\][ \t\n\r]*\}[ \t\n\r]*")

Lookup = Callable[[EstimateRequest], Awaitable[Answered]]
"""Answers an entry that needs the store or the hub."""


async def send_batch(
    request: web.Request, body: bytes, estimator: Estimator, here: Target | None, lookup: Lookup
) -> web.StreamResponse:
    """Answer all entries, one a line for who accepts NDJSON, else as one object. Raises BadRequest for no batch."""
    entries = await estimator.run(lambda: cut(body))
    lines = NDJSON in request.headers.get("Accept", "")
    response = web.StreamResponse(headers={"Content-Type": NDJSON if lines else "application/json"})
    await response.prepare(request)
    stream = EventStream(request, response)
    if not lines:
        await stream.send(b'{"estimates":[')
    for start in range(0, len(entries), _SLICE):
        part = entries[start : start + _SLICE]
        answers = [
            await _looked_up(answer, lookup) if isinstance(answer, EstimateRequest) else answer
            for answer in await estimator.run(lambda part=part: list(_answers(part, estimator, here)))  # type: ignore[misc]
        ]
        texts = [_entry(start + place, answer) for place, answer in enumerate(answers)]
        chunk = b"".join(text + b"\n" for text in texts) if lines else b",".join(texts)
        await stream.send(chunk if lines or start == 0 else b"," + chunk)
    if not lines:
        await stream.send(b"]}")
    await response.write_eof()
    return response


def cut(body: bytes) -> list[bytes]:
    """The entries of `{"entries": [...]}`, each as it was sent. Raises BadRequest when it is anything else."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _malformed("it is no UTF-8") from error
    head = _HEAD.match(text)
    if head is None:
        raise _malformed('it must be {"entries": [...]} and nothing else')
    found: list[bytes] = []
    place, closed = head.end(), text[head.end() : head.end() + 1] == "]"
    while not closed:
        try:
            _, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
            raise _malformed(f"entry {len(found)}: {reason}") from error
        if len(found) == MOST_ENTRIES:
            raise BadRequest(
                f"cannot estimate more than {MOST_ENTRIES} models at once: send several batches",
                code="bad_limits",
                param="entries",
            )
        found.append(text[place:end].encode())
        place = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches nothing, too
        closed = text[place : place + 1] == "]"
        if not closed:
            if text[place : place + 1] != ",":
                raise _malformed(f"entry {len(found) - 1} is followed by {text[place : place + 10]!r}")
            place = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
    if _TAIL.fullmatch(text, place) is None:
        raise _malformed("something follows the entries")
    return found


_DECODER = json.JSONDecoder()  # it takes NaN and Infinity, which published configurations have


def _malformed(reason: str) -> BadRequest:
    return BadRequest(f"cannot read the batch: {reason}", code="malformed_json")


def _answers(
    part: Sequence[bytes], estimator: Estimator, here: Target | None
) -> Iterator[Answered | EstimateRequest | HeliosError]:
    for text in part:
        try:
            yield estimator.from_text(text, here, changes=False)
        except HeliosError as error:
            yield error


async def _looked_up(asked: EstimateRequest, lookup: Lookup) -> Answered | HeliosError:
    try:
        return await lookup(asked)
    except HeliosError as error:
        return error


def _entry(index: int, answer: Answered | HeliosError) -> bytes:
    """A BatchEntry as JSON."""
    if isinstance(answer, Answered):
        cached = b"true" if answer.cached else b"false"
        return b'{"index":%d,"cached":%s,"estimate":%s,"error":null}' % (index, cached, answer.body)
    error = error_body(answer).error.model_dump_json().encode()
    return b'{"index":%d,"cached":false,"estimate":null,"error":%s}' % (index, error)
