"""Looks at the disks and the database, for the metrics and the alerts."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from heliosd.state.database import Database
from heliosd.telemetry.surroundings import Disk, Surroundings


class Survey:
    """`places`: where the daemon keeps something, by what it is called in the metrics."""

    def __init__(self, database: Database, places: Mapping[str, Path]) -> None:
        self._database = database
        self._places = dict(places)

    def take(self) -> Surroundings:
        """Look now. A place that is not there, or cannot be asked, is left out. Asks the disks: call it in a thread."""
        main_bytes, wal_bytes = self._database.sizes()
        return Surroundings(self._disks(), main_bytes, wal_bytes, self._database.backlog)

    def _disks(self) -> tuple[Disk, ...]:
        found = []
        for place, path in self._places.items():
            try:
                usage = shutil.disk_usage(path)
            except OSError:
                continue
            found.append(Disk(place, usage.total, usage.free))
        return tuple(found)
