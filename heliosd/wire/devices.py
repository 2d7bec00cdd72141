"""Devices and what they hold."""

from pydantic import Field

from heliosd.wire.base import Wire


class FootprintView(Wire):
    """Bytes on one device."""

    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    total_bytes: int


class ExhaustionView(Wire):
    """When something will be full."""

    after_s: float
    low_s: float = Field(description="not before")
    high_s: float | None = Field(description="not after; none: nobody can tell")
    basis: str = Field(description="`trend`: as it fills now; `forecast`: as models are likely to be asked for; `full`")


class SpaceView(Wire):
    """What is no device: the disk of the `store`, of the `state`, the `host` memory that sleepers may hold."""

    name: str
    used_bytes: int
    left_bytes: int
    exhaustion: ExhaustionView | None = Field(None, description="none: not in sight")


class DeviceView(Wire):
    """One device with the ledger's columns. `free_bytes` is what may still be promised."""

    id: str
    kind: str
    name: str
    capacity_bytes: int
    foreign_bytes: int = Field(description="held by processes that are not ours")
    safety_bytes: int
    promised_bytes: int
    measured_bytes: int = Field(description="what our ready replicas were measured to hold")
    free_bytes: int
    drift_bytes: int = Field(0, description="what the device says ours hold, minus what they were measured to hold")
    drained: bool = Field(False, description="an operator has taken it out: nothing is started there")
    weights_bytes: int = Field(description="part of promised")
    kv_cache_bytes: int = Field(description="part of promised")
    used_bytes: int = Field(description="all processes together, as the device says")
    utilization_ratio: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    ecc_errors: int | None = None
    fault: str | None = None
    parent: str | None = None
    compute_capability: str | None = None
    driver_version: str | None = None
    numa_node: int | None = None
    pcie: str | None = Field(None, description="generation and width of the link, such as gen5 x16")
    links: dict[str, str] = {}
    exhaustion: ExhaustionView | None = Field(None, description="when it will be full; none: not in sight")


class HostView(Wire):
    """Host memory that sleeping replicas may hold."""

    limit_bytes: int
    staged_bytes: int = Field(description="held by those that sleep")
    tier_bytes: int = Field(0, description="held by models that are kept ready to load; they give way to sleepers")
    free_bytes: int


class DeviceList(Wire):
    devices: list[DeviceView]
    spaces: list[SpaceView] = []
