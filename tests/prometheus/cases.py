"""For each alert: what the metrics say second by second, when it must fire and when not. Both judges get the same."""

from dataclasses import dataclass

from heliosd.core.units import GiB, MiB

STEP_S = 15


@dataclass(frozen=True, slots=True)
class Case:
    alert: str
    series: dict[str, str]
    """By series as Prometheus writes it, its values as promtool writes them: `0x4 1x8` is five zeros and nine ones."""
    labels: dict[str, str]
    """Of the alert that fires, without its name and severity."""
    fires_at_s: int
    quiet_at_s: tuple[int, ...]
    """It must not fire then; before it fires, and after it was cleared."""


def steps(values: str) -> list[float]:
    """`0x4 1x8`: five zeros, nine ones."""
    found: list[float] = []
    for part in values.split():
        value, _, repeats = part.partition("x")
        found += [float(value)] * (int(repeats or 0) + 1)
    return found


def _gauge(name: str, good: float, bad: float, **labels: str) -> dict[str, str]:
    """Good for five minutes, bad for ten, good again."""
    return {_series(name, labels): f"{good}x19 {bad}x39 {good}x20"}


def _counter(name: str, by: int, **labels: str) -> dict[str, str]:
    """Grows at once after five minutes."""
    return {_series(name, labels): f"0x19 {by}x300"}


def _series(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inner}}}" if inner else name


CASES = (
    Case(
        "HeliosMemoryPressure",
        _gauge("helios_device_free_bytes", 0, -2 * GiB, device="g0")
        | {'helios_device_safety_bytes{device="g0"}': f"{GiB}x100"},
        {"device": "g0"},
        480,
        (240, 330, 990),
    ),
    Case(
        "HeliosMemoryExhaustionPredicted",
        _gauge("helios_exhaustion_seconds", 90000, 600, device="g0"),
        {"device": "g0"},
        480,
        (240, 330, 990),
    ),
    Case(
        "HeliosLedgerDrift",
        _gauge("helios_device_drift_bytes", 10 * MiB, -2 * GiB, device="g0")
        | {'helios_device_capacity_bytes{device="g0"}': f"{80 * GiB}x100"},
        {"device": "g0"},
        480,
        (240, 330, 990),
    ),
    Case(
        "HeliosEstimateTooSmall",
        _counter("helios_estimate_under_predictions_total", 1, term="total"),
        {"term": "total"},
        600,
        (240, 4200),
    ),
    Case(
        "HeliosOutOfMemory",
        _counter("helios_out_of_memory_total", 1, memory="device"),
        {"memory": "device"},
        600,
        (240, 1500),
    ),
    Case(
        "HeliosBreakerOpen",
        {'helios_breaker_open{model="org/m",devices="g0"}': "0x9 1x1 0x1 1x3 0x2 1x9 0x30"},
        {"model": "org/m", "devices": "g0"},
        420,
        (120, 210, 900),
    ),
    Case(
        "HeliosStartsFailing",
        _counter("helios_engine_failures_total", 4, phase="starting"),
        {"phase": "starting"},
        600,
        (240, 1500),
    ),
    Case(
        "HeliosQueueOld",
        _gauge("helios_queue_reason_oldest_seconds", 3, 300, reason="held")
        | _gauge("helios_queue_reason_oldest_seconds", 3, 900, reason="arriving"),
        {"reason": "held"},
        480,
        (240, 330, 990),
    ),
    Case(
        "HeliosDiskFull",
        _gauge("helios_disk_free_bytes", 50 * GiB, GiB, place="store"),
        {"place": "store"},
        750,
        (240, 480, 990),
    ),
    Case("HeliosJournalLost", _counter("helios_journal_lost_total", 12), {}, 600, (240, 1500)),
    Case(
        "HeliosLeakSuspected", _gauge("helios_leak_suspected", 0, 1, replica="r1"), {"replica": "r1"}, 480, (240, 990)
    ),
    Case("HeliosDeviceFault", _gauge("helios_device_fault", 0, 1, device="g0"), {"device": "g0"}, 480, (240, 990)),
    Case(
        "HeliosPeerDead", _gauge("helios_cluster_members", 0, 2, state="dead"), {"state": "dead"}, 480, (240, 330, 990)
    ),
)
