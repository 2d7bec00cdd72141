"""Which devices an operator has taken out, so that a restart does not start anything there."""

import time

from heliosd.core.names import DeviceId
from heliosd.state.database import Database


class DrainedDevices:
    """The table's only writer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[DeviceId, ...]:
        rows = await self._database.run(
            lambda db: db.execute("select device from drained_devices order by device").fetchall()
        )
        return tuple(DeviceId(row[0]) for row in rows)

    async def put(self, device: DeviceId, *, out: bool) -> None:
        """Remember that a device is out, or no longer."""
        if out:
            await self._database.run(
                lambda db: db.execute("insert or ignore into drained_devices values (?, ?)", [device, time.time()])
            )
        else:
            await self._database.run(lambda db: db.execute("delete from drained_devices where device = ?", [device]))
