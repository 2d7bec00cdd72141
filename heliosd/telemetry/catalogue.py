"""Writes docs/metrics.md, the families of /metrics for people, from the code that makes them.

python -m heliosd.telemetry.catalogue > docs/metrics.md
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from heliosd.core.snapshot import Snapshot
from heliosd.telemetry.metrics import Metrics, Scrape
from heliosd.telemetry.registry import labels_of

WHEN = {
    "helios_capacity_full_seconds": "once a device has two days of history",
    "helios_breaker_failures": "while starts of a model fail",
    "helios_breaker_open": "while starts of a model fail",
    "helios_cluster_heard_seconds": "in a cluster, once a peer was heard of",
    "helios_device_ecc_errors": "for devices that count them",
    "helios_device_power_watts": "for devices that tell it",
    "helios_device_temperature_celsius": "for devices that tell it",
    "helios_device_utilization_ratio": "for devices that tell it",
    "helios_alert_posts": "once there was something to post to `alerts.webhook`",
    "helios_hot_swap_seconds": "after the first hot swap",
    "helios_hot_swaps": "after the first",
    "helios_idle_floor_bytes": "once a replica was idle for a while",
    "helios_key_refusals": "after the first",
    "helios_recycles": "after the first",
    "helios_peer_fetch_failures": "after the first",
    "helios_retries": "after the first",
    "helios_replica_failures": "after the first",
    "helios_shell_events": "once one was made",
    "helios_shell_starts": "after the first",
    "helios_shells": "once one was made",
    "helios_tier_bytes": "once the tiers were planned",
    "helios_tier_moves": "after the first",
    "helios_trace_spans": "while requests are traced and sent to a collector",
}
"""Families without a sample in a daemon that merely serves, and when they get one."""

_BOUNDS = (
    ("alert", "the alerts there are: a fixed list"),
    ("code", "the API's error codes: a fixed list, in docs/api.md"),
    ("decision", "kinds of the scheduler's commands: a fixed list"),
    ("device", "the devices of this machine"),
    ("devices", "sets of devices that a replica runs on, or failed on"),
    ("file", "`main`, `wal`"),
    ("from", "tiers: a fixed list"),
    (
        "key",
        "names of API keys that were used since the daemon began, ids of those of peers' clients, `(none)`, `(idle)`; "
        "never a secret",
    ),
    ("kind", "a fixed list, in the family's text"),
    ("memory", "`device`, `host`"),
    (
        "model",
        "with `replica`: that replica's; in counters: models that were started since the daemon began, never all of "
        "the store",
    ),
    ("name", "of devices: as the driver calls them"),
    ("outcome", "a fixed list, in the family's text"),
    ("lied", "`true`, `false`"),
    ("part", "`weights`, `kv_cache`, `overhead`"),
    ("peer", "nodes of the cluster that did not deliver a file"),
    ("phase", "phases of a start, or what an engine was at: fixed lists"),
    ("place", "`store`, `state`, `slow`"),
    ("priority", "`low`, `normal`, `high`"),
    ("reason", "fixed lists: `EVICTIONS` and `WAITS` in `heliosd/core/causes.py`"),
    ("replica", "replicas that are there now; gone with them"),
    ("revision", "one for each replica"),
    ("route", "the API's routes as they are declared, never a path that was asked for"),
    ("source", "`hub`, `peer`"),
    ("state", "a fixed list"),
    ("status", "HTTP statuses that were answered"),
    ("step", "`sleep`, `stop`, `drain`"),
    ("term", "`weights`, `kv_cache`, `overhead`, `total`"),
    ("tier", "tiers: a fixed list"),
    ("to", "tiers: a fixed list"),
    ("version", "one"),
    ("what", "a fixed list, in the family's text"),
)
LABELS = dict(_BOUNDS)
"""What bounds the number of series of each label."""

_HEAD = """# Metrics

*Made by `python -m heliosd.telemetry.catalogue` from the families in the code; a test holds it against a daemon that
runs.*

`GET /metrics` is open to whoever can connect, and is text for Prometheus. A scrape has, one after the other, Helios'
own families, those of its process (`process_*`), and all that the engines say of themselves.

**Engines.** Every family of vLLM (`vllm:*`) passes through with its names, labels (`model_name`, `engine`) and values
as vLLM wrote them; only the label `replica` is added, so that two replicas of one model stay apart.

**How many series.** A store of a thousand models has no thousand series. What is told of single models is told of the
replicas that are there, and in few counters of the models that were started since the daemon began; both are bounded by
what the machine can run, and the last table says so label by label. Nothing that a client can make up (paths, names of
models, keys) becomes a label.

Bytes are bytes, seconds are seconds, ratios are 0 to 1. Counters begin at zero with the daemon.

## Families

| family | type | labels | what it tells |
|---|---|---|---|
"""
_TAIL = """
`process_*` are those of the Prometheus client: CPU seconds, resident and virtual bytes, open files and their limit, and
the start of the process.

## Labels

| label | its values |
|---|---|
"""


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    """As it is exposed: a counter's with `_total`."""
    kind: str
    labels: tuple[str, ...]
    text: str
    when: str
    """When it gets its first sample, where that is not at once."""


def catalogue() -> list[Family]:
    """All families of Helios itself, by name."""
    metrics = Metrics()
    nothing = Scrape(Snapshot(0.0, (), (), (), False), "", 0, 0, 0, {}, 0, 0, 0, 0, ())
    found = [_family(each, metrics.labels()) for each in metrics.families(nothing)]
    return sorted((each for each in found if each.name.startswith("helios_")), key=lambda each: each.name)


def _family(family: Metric, counted: dict[str, tuple[str, ...]]) -> Family:
    labels = counted[family.name] if family.name in counted else labels_of(family)
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Family(name, family.type, labels, family.documentation, WHEN.get(family.name, ""))


def page() -> str:
    """The whole of docs/metrics.md."""
    return "".join(_page())


def _page() -> Iterator[str]:
    yield _HEAD
    families = catalogue()
    for each in families:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        when = f" *({each.when})*" if each.when else ""
        yield f"| `{each.name}` | {each.kind} | {labels} | {_cell(each.text)}{when} |\n"
    yield _TAIL
    for label in sorted({label for each in families for label in each.labels}):
        yield f"| `{label}` | {LABELS.get(label, '?')} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
