"""What is simulated: the devices of a fleet file, and the models that share them.

A fleet file as `heliosd --simulate` reads it (`devices/fleet.py`), with a table for each model:

[host]
memory = "512GiB"                # that sleeping models may hold; default: none sleeps

[[model]]
name = "org/name"
weights = "14.9GiB"              # on each device
kv_cache = "4GiB"                # on each device; default 2GiB
overhead = "2GiB"                # on each device; default 1.5GiB
devices = 1                      # default 1
load = 12.5                      # seconds of a start; default: 3 and a second for each 2 GiB of weights
mould = "llama-8b"               # an engine can become another model of the same mould; default: none
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import Demand, Footprint
from heliosd.core.units import GiB, parse_bytes
from heliosd.core.usage import usual_load_s
from heliosd.devices.fleet import read_fleet
from heliosd.errors import ConfigError

KV_CACHE_BYTES = 2 * GiB
KV_MOST_BYTES = 256 * GiB
"""As much as is left over: hundreds of long requests would fill it."""
OVERHEAD_BYTES = 3 * GiB // 2
_KEYS = ("name", "weights", "kv_cache", "overhead", "devices", "load", "mould")


@dataclass(frozen=True, slots=True)
class Model:
    demand: Demand
    load_s: float

    @property
    def weights_bytes(self) -> int:
        return self.demand.per_device.weights_bytes * self.demand.device_count


@dataclass(frozen=True, slots=True)
class Fleet:
    devices: tuple[Device, ...]
    models: Mapping[str, Model]
    host_bytes: int = 0
    """Host memory that sleeping models may hold; 0: none sleeps."""


def read(file: Path) -> Fleet:
    """Raises ConfigError that names the file, the table and the key at fault."""
    devices = tuple(
        Device(each.id, DeviceKind.SIMULATED, each.name, each.capacity_bytes - each.foreign_bytes)
        for each in read_fleet(file)
    )
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        tables, host_bytes = document.get("model", []), _host_bytes(document.get("host", {}))
        models = [_model(table, number) for number, table in enumerate(tables, 1)]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot use the fleet {file}: {error}") from error
    return Fleet(devices, {each.demand.model: each for each in models}, host_bytes)


def model_of(
    name: str, weights_bytes: int, kv_cache_bytes: int = KV_CACHE_BYTES, overhead_bytes: int = OVERHEAD_BYTES,
    device_count: int = 1, load_s: float | None = None, mould: str = "",
) -> Model:  # fmt: skip
    demand = Demand(
        model=name,
        revision=name,
        per_device=Footprint(weights_bytes, kv_cache_bytes, overhead_bytes),
        device_count=device_count,
        keep_alive_s=float("inf"),
        kv_least_bytes=kv_cache_bytes,
        kv_most_bytes=KV_MOST_BYTES if kv_cache_bytes else 0,
        max_num_seqs=256,
        mould=mould,
    )
    return Model(demand, usual_load_s(weights_bytes * device_count) if load_s is None else load_s)


def _host_bytes(table: Mapping[str, Any]) -> int:
    if not isinstance(table, dict) or set(table) - {"memory"}:
        raise ValueError("the table [host] has one key, memory")
    return parse_bytes(str(table.get("memory", "0")))


def _model(table: Mapping[str, Any], number: int) -> Model:
    for key in table:
        if key not in _KEYS:
            raise ValueError(f"model {number} has an unknown key {key!r}; there are {', '.join(_KEYS)}")
    name = table.get("name")
    if not isinstance(name, str) or not name or "weights" not in table:
        raise ValueError(f"model {number} needs a name and weights")
    count, load = table.get("devices", 1), table.get("load")
    if not isinstance(count, int) or not 1 <= count <= 64:
        raise ValueError(f"model {number} ({name}): devices must be from 1 to 64")
    mould = table.get("mould", "")
    if not isinstance(mould, str):
        raise ValueError(f"model {number} ({name}): mould must be a text")
    if load is not None and not (isinstance(load, int | float) and 0 <= load < 1e6):
        raise ValueError(f"model {number} ({name}): load must be seconds")
    sizes = {key: parse_bytes(str(table[key])) for key in ("weights", "kv_cache", "overhead") if key in table}
    return model_of(
        name,
        sizes["weights"],
        sizes.get("kv_cache", KV_CACHE_BYTES),
        sizes.get("overhead", OVERHEAD_BYTES),
        count,
        None if load is None else float(load),
        mould,
    )
