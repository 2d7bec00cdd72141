"""How a node finds the others and hears of them. Gossip and `Alone` implement it; nothing else knows how."""

from collections.abc import AsyncIterator
from typing import Protocol

from heliosd.cluster.member import Member, Meta


class Membership(Protocol):
    """One run of one node in a cluster. Its methods are called from one event loop."""

    async def join(self, meta: Meta) -> None:
        """Become a member; returns even when no other node answers, and keeps looking for them.

        Raises ConfigError when this node cannot be a member as it is configured, and Unavailable when no
        seed's name can be resolved now; joining may then be tried again.
        """
        ...

    def members(self) -> tuple[Member, ...]:
        """This node first, then the others by name: also those that died or left a short while ago."""
        ...

    def events(self) -> AsyncIterator[Member]:
        """Every other member as it is now, then each one again whenever it changes. To be read by one reader.

        Ends after `leave`. Raises Unavailable when membership broke; `join` may then be tried again.
        """
        ...

    async def set_meta(self, meta: Meta) -> None:
        """Tell the others something new about this node. Before `join` it has no effect."""
        ...

    async def leave(self) -> None:
        """Tell the others that this node goes on purpose, and stop. Harmless when repeated or never joined."""
        ...
