"""The node as the feed last told it. Devices are read at once; of replicas and queue only what comes to be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from heliosd.wire import DeviceView, NodeView

Raw = Mapping[str, Any]
"""A row as it came: a ReplicaView or QueueView that nobody has read yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the replicas on a device hold of it, where the device's own figures do not tell."""

    kv_used_bytes: int = 0
    sleepers_bytes: int = 0


@dataclass(frozen=True)
class Now:
    node: NodeView
    devices: Sequence[DeviceView]
    replicas: Sequence[Raw]
    queue: Sequence[Raw]
    seen_at: float = 0.0
    """On this process's monotonic clock."""
    states: Mapping[str, int] = field(default_factory=dict)
    """How many replicas are in each state."""

    @cached_property
    def held(self) -> dict[str, Held]:
        """By device. A sleeper's residue is what is promised beyond what those awake were booked."""
        used: dict[str, float] = {}
        awake: dict[str, int] = {}
        beds: set[str] = set()
        for row in self.replicas:
            booked, measured = row["predicted"], row.get("measured")
            if row["state"] == "asleep":
                beds.update(row["devices"])
                continue
            total = max(booked["total_bytes"], measured["total_bytes"] if measured else 0)
            in_use = row.get("kv_used_ratio", 0.0) * booked["kv_cache_bytes"]
            for device in row["devices"]:
                awake[device] = awake.get(device, 0) + total
                used[device] = used.get(device, 0.0) + in_use
        found = {}
        for view in self.devices:
            residue = view.promised_bytes - awake.get(view.id, 0) if view.id in beds else 0
            found[view.id] = Held(round(used.get(view.id, 0.0)), max(0, residue))
        return found


def read_now(text: str | bytes, seen_at: float) -> Now:
    """Read a `snapshot` event's data. Raises ValueError when it is none."""
    body = from_json(text)
    try:
        replicas = body["replicas"]
        return Now(
            node=NodeView.model_validate(body["node"]),
            devices=[DeviceView.model_validate(row) for row in body["devices"]],
            replicas=replicas,
            queue=body["queue"],
            seen_at=seen_at,
            states=_count(replicas),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"cannot read the snapshot: {error!r} is amiss") from error


def _count(replicas: Sequence[Raw]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in replicas:
        found[row["state"]] = found.get(row["state"], 0) + 1
    return found
