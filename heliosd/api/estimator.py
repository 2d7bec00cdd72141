"""Where estimates are calculated and kept: one thread beside the event loop, so that ten thousand block nobody.

A request that says all there is to know (its configuration) is answered from its bytes: equal bytes, equal answer.
"""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from heliosd.api.asked import parse_body
from heliosd.api.estimate_plan import Subject, planned, subject_of
from heliosd.api.estimate_target import Target, target_of
from heliosd.errors import BadRequest
from heliosd.estimation.service import EstimateCache, content_digest
from heliosd.wire import EstimateRequest

R = TypeVar("R")

_SOURCES = ("model", "config", "hub")
_LIMITS = frozenset((*_SOURCES, "kv_cache_bytes", "max_model_len", "max_num_seqs", "revision"))


@dataclass(frozen=True, slots=True)
class Answered:
    """An EstimateView as JSON."""

    body: bytes
    cached: bool


class Estimator:
    """Its cache belongs to its one thread; the thread ends with it."""

    def __init__(self, capacity: int = 4096, ttl_s: float = 600.0) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="estimate")
        self._cache = EstimateCache[bytes](capacity, ttl_s)

    async def run(self, work: Callable[[], R]) -> R:
        """Do `work`, which may use `from_text` and `from_subject`, in the thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def from_text(self, text: bytes, here: Target | None, *, changes: bool) -> Answered | EstimateRequest:
        """The answer to a request that brings its configuration; any other request, read. Raises BadRequest."""
        asked: list[EstimateRequest] = []

        def make() -> bytes:
            asked.append(parse_estimate(text))
            if asked[0].config is None:
                raise _NeedsSource
            return _answer(asked[0], subject_of(asked[0]), here, changes=changes)

        try:
            return self._kept((content_digest(text), here, changes), make)
        except _NeedsSource:
            return asked[0]

    def from_subject(
        self, asked: EstimateRequest, subject: Subject, content: str, here: Target | None, *, changes: bool
    ) -> Answered:
        """The answer for a model that was read from files whose content is known by `content`. Raises BadRequest."""
        key = (content, asked.model_dump_json(), here, changes)
        return self._kept(key, lambda: _answer(asked, subject, here, changes=changes))

    def _kept(self, key: Hashable, make: Callable[[], bytes]) -> Answered:
        misses = self._cache.counts.misses
        body = self._cache.get(key, make, monotonic())
        return Answered(body, self._cache.counts.misses == misses)


class _NeedsSource(Exception):
    """The request names a model instead of describing it."""


def parse_estimate(text: bytes) -> EstimateRequest:
    """A request for one estimate. Raises BadRequest: `bad_config` where the configuration is none."""
    try:
        asked = parse_body(text, EstimateRequest)
    except BadRequest as error:
        if error.param is None or error.param.split(".")[0] != "config":
            raise
        message = f"cannot read the configuration: a JSON object is expected ({error.message})"
        raise BadRequest(message, code="bad_config", param="config") from error
    said = [name for name in _SOURCES if getattr(asked, name) is not None]
    if not said:
        raise BadRequest(
            "cannot tell which model is meant: set `model`, `config` or `hub`", code="missing_model", param="model"
        )
    if len(said) > 1:
        raise BadRequest(f"cannot estimate {' and '.join(said)} at once: set one of them", param=said[1])
    return asked


def wants_this_node(asked: EstimateRequest) -> bool:
    """Whether it is about a stored model as this node would serve it, and not about what would be elsewhere."""
    return asked.model is not None and asked.model_fields_set <= _LIMITS


def _answer(asked: EstimateRequest, subject: Subject, here: Target | None, *, changes: bool) -> bytes:
    wanted = changes if asked.changes is None else asked.changes
    return planned(asked, subject, target_of(asked, here), changes=wanted).model_dump_json().encode()
