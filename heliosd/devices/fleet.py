"""Reads the file of `heliosd --simulate fleet.toml`: which devices are said to exist.

[[device]]
name = "g"                       # with `count`: g0, g1, …
capacity = "80GiB"
count = 8                        # default 1
kind = "NVIDIA H100 80GB HBM3"   # default "simulated GPU"
numa = 0                         # default: not known
nvlink = true                    # default false
foreign = "2GiB"                 # held by others; default nothing

Tables of models beside them are for `heliosctl simulate` (`simulation/fleet.py`).
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from heliosd.core.names import DeviceId
from heliosd.core.units import format_bytes, parse_bytes
from heliosd.devices.simulated import SimulatedDevice
from heliosd.errors import ConfigError

_KEYS = ("name", "capacity", "count", "kind", "numa", "nvlink", "foreign")


def read_fleet(file: Path) -> tuple[SimulatedDevice, ...]:
    """The devices of a fleet file. Raises ConfigError that names the file, the device and the key at fault."""
    try:
        return parse_fleet(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use the fleet {file}: {error}") from error


def parse_fleet(text: str) -> tuple[SimulatedDevice, ...]:
    """The devices of a fleet file's text. Raises ValueError."""
    document = tomllib.loads(text)
    _only(document, ("device", "model", "host"), "the file")
    tables = document.get("device")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError("it has no device: write one [[device]] table or more")
    fleet = [device for number, table in enumerate(tables, 1) for device in _devices(table, f"device {number}")]
    ids = [device.id for device in fleet]
    for device in ids:
        if ids.count(device) > 1:
            raise ValueError(f"{device} is there twice: give each device a name of its own")
    return tuple(fleet)


def _devices(table: dict[str, Any], place: str) -> list[SimulatedDevice]:
    _only(table, _KEYS, place)
    name = _typed(table, "name", str, place)
    if not name:
        raise ValueError(f"{place} has no name")
    if "capacity" not in table:
        raise ValueError(f'{place} ({name}) has no capacity: write one such as capacity = "80GiB"')
    capacity, foreign = (_bytes(table, key, place) for key in ("capacity", "foreign"))
    if capacity <= 0 or not 0 <= foreign <= capacity:
        raise ValueError(f"{place}: of {format_bytes(capacity)} capacity, {format_bytes(foreign)} cannot be foreign")
    count = _typed(table, "count", int, place)
    if count is not None and count < 1:
        raise ValueError(f"{place}: count is {count}; it must be 1 or more")
    return [
        SimulatedDevice(
            id=DeviceId(one),
            name=_typed(table, "kind", str, place) or "simulated GPU",
            capacity_bytes=capacity,
            foreign_bytes=foreign,
            numa_node=_typed(table, "numa", int, place),
            nvlink=_typed(table, "nvlink", bool, place) or False,
        )
        for one in ([name] if count is None else [f"{name}{number}" for number in range(count)])
    ]


def _only(table: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{place} has an unknown key {key!r}: {hint}")


def _typed(table: dict[str, Any], key: str, kind: type, place: str) -> Any:
    """The value, or None where there is none."""
    value = table.get(key)
    if value is not None and type(value) is not kind:
        raise ValueError(f"{place}: {key} is {value!r}, which is no {kind.__name__}")
    return value


def _bytes(table: dict[str, Any], key: str, place: str) -> int:
    value = table.get(key, 0)
    if type(value) is int:
        return value
    if not isinstance(value, str):
        raise ValueError(f'{place}: {key} is {value!r}; write a size such as "80GiB"')
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{place}: {key}: {error}") from error
