"""What is to be fetched, and how long to try."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from yarl import URL

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.errors import HeliosError

Refusal = Callable[[int, Mapping[str, str], str], HeliosError]
"""From the status, the headers and the file's name of a refused request to an error that says what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch. Its `digest` or `git_sha1` says what the bytes must be."""

    name: str
    """For people."""
    url: URL | None
    """At the hub; None: only other nodes may have it."""
    key: str
    """What its part is kept under."""
    size_bytes: int
    digest: Digest | None
    git_sha1: str | None
    token: str | None
    """Sent to the origin of `url` only, never to where it redirects."""
    commit: str | None = None
    """What the server must say it serves, where it says so."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying when connections fail."""

    attempts: int = 6
    """In a row for one chunk, without `worth_bytes` of progress between them."""
    worth_bytes: int = MiB
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    silence_s: float = 60.0
    """A connection that says nothing for so long is cut."""
    longest_pause_s: float = 300.0
    """A server that asks for a longer pause is asked again after this one."""
    least_bytes_per_s: float = 0.0
    """A connection that brings less while it is waited for, on average over `slow_after_s`, is cut."""
    slow_after_s: float = 10.0

    def wait_s(self, failures: int) -> float:
        """Twice as long each time, with a random part so that many nodes do not return in step."""
        longest_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failures - 1))
        return longest_s * random.uniform(0.5, 1.0)
