"""What the node calls its engines: one name for each, so that none hides another."""

import asyncio
from pathlib import Path
from typing import Any

from heliosd.config_sources import load_settings
from heliosd.core.hardware import DeviceKind
from heliosd.devices.fleet import parse_fleet
from heliosd.devices.simulated import SimulatedDevices
from heliosd.engines.pool import Pool
from heliosd.engines.simulated import SimulatedKind
from heliosd.node import Node


async def test_each_engine_has_a_name_of_its_own(tmp_path: Path) -> None:
    devices = SimulatedDevices(parse_fleet('[[device]]\nname = "g0"\ncapacity = "80GiB"\n'))
    gpus, host, simulated = (SimulatedKind(devices) for _ in range(3))
    kinds = {
        DeviceKind.CUDA: gpus,
        DeviceKind.MIG: gpus,
        DeviceKind.HOST: host,
        DeviceKind.SIMULATED: simulated,
    }
    pool = Pool(kinds, lambda event: None, now=lambda: 0.0, start_timeout_s=1.0)
    settings = load_settings({"node.state_dir": str(tmp_path)}, {"HOME": str(tmp_path)}).settings
    nobody: Any = None
    node = Node(
        nobody, nobody, nobody, nobody, nobody, pool, nobody, settings, tmp_path, asyncio.Queue(), nobody, nobody
    )
    assert node.engine_kinds == {"simulated cuda": gpus, "simulated host": host, "simulated": simulated}
