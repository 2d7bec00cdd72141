"""What the daemon stands on, as Prometheus families: its disks, its database, the nodes around it. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from heliosd.telemetry.accounts import labelled

MEMBER_STATES = ("alive", "suspect", "dead", "left")


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of a place where the daemon keeps something."""

    place: str
    """`store`, `state`, or `slow` for the slower volume."""
    total_bytes: int
    free_bytes: int
    """That the daemon's user may take."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    disks: tuple[Disk, ...] = ()
    database_bytes: int = 0
    wal_bytes: int = 0
    """Of the write-ahead log."""
    database_backlog: int = 0
    """Transactions that run or wait for the database's thread."""
    members: tuple[str, ...] = ()
    """The state of each other node of the cluster."""
    heard_s: float | None = None
    """Seconds since gossip last told anything of another node; None: never, or there is no cluster."""


def surroundings(found: Surroundings) -> Iterator[Metric]:
    """Bytes are bytes, seconds are seconds."""
    yield labelled(
        "helios_disk_free_bytes",
        "Free where the models (store), the state (state) and seldom used models (slow) are kept.",
        ["place"],
        (([disk.place], disk.free_bytes) for disk in found.disks),
    )
    yield labelled(
        "helios_disk_total_bytes",
        "The size of the file system there.",
        ["place"],
        (([disk.place], disk.total_bytes) for disk in found.disks),
    )
    yield labelled(
        "helios_database_bytes",
        "The state database: its main file, and its write-ahead log (wal).",
        ["file"],
        ((["main"], found.database_bytes), (["wal"], found.wal_bytes)),
    )
    yield GaugeMetricFamily(
        "helios_database_backlog", "Transactions that run or wait for the database's thread.", found.database_backlog
    )
    states = Counter(found.members)
    yield labelled(
        "helios_cluster_members",
        "Other nodes of the cluster, by how gossip knows them; the dead and those that left for as long as it does.",
        ["state"],
        (([state], states[state]) for state in MEMBER_STATES),
    )
    heard = GaugeMetricFamily("helios_cluster_heard_seconds", "Since gossip last told anything of another node.")
    if found.heard_s is not None:
        heard.add_metric([], found.heard_s)
    yield heard


def firing(alerts: Mapping[str, int]) -> Metric:
    """`alerts`: how many fire, by name; those that do not fire are zero there."""
    text = "Alerts of Helios itself that fire, by name; `heliosctl alerts` tells more."
    return labelled("helios_alerts_firing", text, ["alert"], (([name], count) for name, count in alerts.items()))
