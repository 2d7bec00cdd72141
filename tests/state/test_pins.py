"""Pins outlive the process."""

from pathlib import Path

import pytest

from heliosd.errors import NotFound
from heliosd.state.database import Database
from heliosd.state.pins import Pins


async def test_pins_are_kept_changed_and_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "helios.db"
    database = Database(file)
    await database.open()
    pins = Pins(database)
    await pins.set("org/b", 1)
    await pins.set("org/a", 1)
    await pins.set("org/a", 2)
    await database.close()
    database = Database(file)
    await database.open()
    pins = Pins(database)
    assert await pins.all() == {"org/a": 2, "org/b": 1}
    await pins.remove("org/a")
    assert await pins.all() == {"org/b": 1}
    with pytest.raises(NotFound, match="heliosctl pin"):
        await pins.remove("org/a")
    await database.close()
