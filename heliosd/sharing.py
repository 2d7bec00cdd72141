"""Has the store keep once what its models have in common: in the background after each addition, and when asked."""

import logging
import sqlite3

from heliosd.core.units import format_bytes
from heliosd.errors import HeliosError
from heliosd.node import Node
from heliosd.state.journal import Journal
from heliosd.store.sharing import Shared
from heliosd.store.store import Store

log = logging.getLogger("heliosd")


class BackgroundSharing:
    """Goes on only while no engine starts: whoever waits for one has the disk to himself."""

    def __init__(self, store: Store, node: Node, journal: Journal) -> None:
        self._store = store
        self._node = node
        self._journal = journal

    async def look(self, *, again: bool = True) -> Shared:
        """Look at all files, or at those not looked at yet, and note what came of it. Raises as `Store.share` does."""
        found = await self._store.share(again=again, calm=self._calm)
        if found.files:
            text = (
                f"{found.files} files of {format_bytes(found.logical_bytes)} share what they have in common with "
                f"older ones: {format_bytes(found.freed_bytes)} are free"
            )
            log.info("files shared", extra={"files": found.files, "freed_bytes": found.freed_bytes})
            detail = {
                "files": found.files,
                "logical_bytes": found.logical_bytes,
                "freed_bytes": found.freed_bytes,
                "in_use": found.in_use,
            }
            self._journal.note("share", text, detail=detail)
        return found

    async def run(self) -> None:
        """Look whenever there may be something to find, until cancelled."""
        while True:
            await self._store.share_due.wait()
            self._store.share_due.clear()
            try:
                await self.look(again=False)
            except (HeliosError, OSError, sqlite3.Error) as error:
                log.error("files not shared", extra={"cause": str(error)})

    async def _calm(self) -> None:
        version = -1
        while self._node.starting:
            version = await self._node.changed(version)
