"""The membership of a node that has no cluster: it is its own only member."""

import asyncio
from collections.abc import AsyncIterator

from heliosd.cluster.member import Member, Meta, self_of
from heliosd.core.names import PeerName


class Alone:
    """Implements `Membership`."""

    def __init__(self, name: PeerName) -> None:
        self._name = name
        self._meta = Meta(None, "")
        self._over = asyncio.Event()

    async def join(self, meta: Meta) -> None:
        self._meta = meta

    def members(self) -> tuple[Member, ...]:
        return (self_of(self._name, "", 0, self._meta),)

    async def events(self) -> AsyncIterator[Member]:
        await self._over.wait()
        nobody: tuple[Member, ...] = ()
        for member in nobody:
            yield member

    async def set_meta(self, meta: Meta) -> None:
        self._meta = meta

    async def leave(self) -> None:
        self._over.set()
