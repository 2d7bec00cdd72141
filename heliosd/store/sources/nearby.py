"""Other nodes as places that files come from: what the store asks of the cluster, which it does not know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from yarl import URL

from heliosd.core.names import Digest, ModelRef
from heliosd.store.sources.source import SourceFile

Proof = Callable[[], Mapping[str, str]]
"""Headers that prove to a node who asks. Made anew for each request: they are good for a short time only."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that says it has a file."""

    node: str
    url: URL
    """Of the file."""
    proof: Proof


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as a node tells of it. Nothing of it is believed: each file is checked against its hash."""

    node: str
    files: tuple[SourceFile, ...]
    """All with their sha256."""
    origin: Mapping[str, Any]
    """Where that node has it from."""


class Nearby(Protocol):
    """The nodes of the cluster that are alive."""

    async def holders(self, digest: Digest, size_bytes: int) -> Sequence[Holder]:
        """Who has this file now, whom to ask first first. Raises nothing: who does not answer has nothing."""
        ...

    async def offers(self, ref: ModelRef) -> Sequence[Offer]:
        """Who has a model of that name, and what files it is made of. Raises nothing."""
        ...

    def failed(self, node: str, file: str, why: str, *, lied: bool) -> None:
        """A node did not deliver what it said it has; `lied`: it delivered other bytes."""
        ...


class Nobody:
    """Implements `Nearby` for a node that is alone."""

    async def holders(self, digest: Digest, size_bytes: int) -> Sequence[Holder]:
        return ()

    async def offers(self, ref: ModelRef) -> Sequence[Offer]:
        return ()

    def failed(self, node: str, file: str, why: str, *, lied: bool) -> None:
        return
