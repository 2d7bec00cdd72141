"""What Helios counts and measures, as Prometheus reads it. Is told what happened; looks nothing up."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric

from heliosd.core.snapshot import Snapshot
from heliosd.telemetry.accounts import accounts
from heliosd.telemetry.estimates import EstimateErrors
from heliosd.telemetry.exposition import text_of
from heliosd.telemetry.gauges import gauges
from heliosd.telemetry.key_usage import KeyUsage
from heliosd.telemetry.merge import merge_texts
from heliosd.telemetry.reasons import Reasons
from heliosd.telemetry.registry import Registry
from heliosd.telemetry.surroundings import Surroundings, firing, surroundings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class Scrape:
    """The state of the daemon at the moment of a scrape."""

    snapshot: Snapshot
    version: str
    models: int
    store_logical_bytes: int
    """Of all models' files, as if they had nothing in common."""
    store_physical_bytes: int
    """Of all blobs."""
    fetched: Mapping[str, int]
    """Bytes from the `hub` and from a `peer`, since the daemon began."""
    journal_entries: int
    """Written since the daemon began."""
    journal_lost: int
    """Not written since then, because the disk did not take them."""
    recorded_events: int
    """For replay, since the daemon began."""
    recorded_lost: int
    engines: Sequence[tuple[str, str]]
    """`(replica, its own metrics as text)`."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    firing: Mapping[str, int] = field(default_factory=dict)
    """How many alerts fire, by name."""


class Metrics:
    """Counters and histograms of one daemon, in a registry of their own: engines keep theirs."""

    def __init__(self) -> None:
        registry = self._registry = Registry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "helios_requests", "Requests answered.", ["route", "status", "code"], registry=registry
        )
        self._request_s = Histogram(
            "helios_request_seconds",
            "From the request's arrival to the end of its answer.",
            ["route"],
            buckets=_FAST,
            registry=registry,
        )
        self._first_byte_s = Histogram(
            "helios_time_to_first_byte_seconds",
            "From an inference request's arrival to the first byte of its answer.",
            ["route"],
            buckets=_FAST,
            registry=registry,
        )
        self._wait_s = Histogram(
            "helios_queue_wait_seconds",
            "From asking for a replica to the answer, starts included; the outcome is granted, forwarded, left (by the "
            "client) or the code of the refusal.",
            ["outcome"],
            buckets=_FAST,
            registry=registry,
        )
        self._collected = Counter(
            "helios_store_collected_bytes", "Bytes freed by collecting the store's garbage.", registry=registry
        )
        self._peer_failures = Counter(
            "helios_peer_fetch_failures",
            "Files that another node did not deliver; lied: it delivered other bytes.",
            ["peer", "lied"],
            registry=registry,
        )
        self._sent = Counter(
            "helios_peer_sent_bytes", "Bytes of models that were sent to other nodes.", registry=registry
        )
        self._starts = Counter("helios_replica_starts", "Replicas that became ready.", ["model"], registry=registry)
        self._swaps = Counter(
            "helios_hot_swaps", "Starts of replicas that began in the engine of another.", ["model"], registry=registry
        )
        self._shell_starts = Counter(
            "helios_shell_starts",
            "Starts of replicas that began in a process made ahead.",
            ["model"],
            registry=registry,
        )
        self._shells = Gauge("helios_shells", "Processes made ahead of need.", ["state"], registry=registry)
        self._shell_events = Counter(
            "helios_shell_events",
            "What became of processes made ahead: made, used, given_up, died, failed.",
            ["what"],
            registry=registry,
        )
        self._start_s = Counter(
            "helios_replica_start_seconds", "Time spent in each phase of starts.", ["phase"], registry=registry
        )
        self._swap_s = Counter(
            "helios_hot_swap_seconds", "Time spent in each phase of hot swaps.", ["phase"], registry=registry
        )
        self._failures = Counter(
            "helios_replica_failures", "Replicas that would not start or died.", ["model"], registry=registry
        )
        self._adapters_s = Histogram(
            "helios_adapter_load_seconds",
            "From a request for an adapter that its engine has not read yet to the moment it has.",
            buckets=_FAST,
            registry=registry,
        )
        self._retries = Counter(
            "helios_retries", "Requests asked once more: their engine died before the first word.", ["model"],
            registry=registry,
        )  # fmt: skip
        self._decisions = Counter(
            "helios_decisions", "What the scheduler decided; a refusal with its code.", ["decision", "code"],
            registry=registry,
        )  # fmt: skip
        self._tier_bytes = Gauge(
            "helios_tier_bytes", "Bytes of models in a tier; host: in RAM besides.", ["tier"], registry=registry
        )
        self._tier_moves = Counter(
            "helios_tier_moves", "Moves of models between tiers.", ["from", "to"], registry=registry
        )
        self._full_s = Gauge(
            "helios_capacity_full_seconds",
            "Until a device is full, as its history tells; +Inf: not within 90 days. Absent while too little is known.",
            ["device"],
            registry=registry,
        )
        self._lag_s = Histogram(
            "helios_event_loop_lag_seconds",
            "How late the event loop ran what was due.",
            buckets=_LAG,
            registry=registry,
        )

        self._spans = Counter(
            "helios_trace_spans", "Spans that went to the collector (sent), or were lost on the way (dropped).",
            ["outcome"],
            registry=registry,
        )  # fmt: skip
        self._database_s = Histogram(
            "helios_database_seconds",
            "Transactions of the state database, without their wait for its thread.",
            ["kind"],
            buckets=_LAG,
            registry=registry,
        )
        self._posts = Counter(
            "helios_alert_posts",
            "Posts to the alert webhook: sent, tried again (retried), or given up (lost).",
            ["outcome"],
            registry=registry,
        )
        self._key_usage = KeyUsage(registry)
        self._estimates = EstimateErrors(registry)
        self.reasons = Reasons(registry)

    def request_answered(
        self, route: str, status: int, code: str, *, seconds: float, first_byte_s: float | None = None
    ) -> None:
        """Count an answer; `code` is the error's, or empty."""
        self._requests.labels(route, str(status), code).inc()
        self._request_s.labels(route).observe(seconds)
        if first_byte_s is not None:
            self._first_byte_s.labels(route).observe(first_byte_s)

    def tiers_hold(self, held: Mapping[str, int]) -> None:
        """Take in how many bytes are in each tier."""
        for tier, n_bytes in held.items():
            self._tier_bytes.labels(tier).set(n_bytes)

    def tier_moved(self, source: str, target: str) -> None:
        """Count a move."""
        self._tier_moves.labels(source, target).inc()

    def full_in(self, seconds: Mapping[str, float]) -> None:
        """Take in when each device will be full; of those left out nobody knows."""
        self._full_s.clear()
        for device, left_s in seconds.items():
            self._full_s.labels(device).set(left_s)

    def shells_are(self, *, waiting: int, making: int) -> None:
        """Take in how many processes made ahead there are."""
        self._shells.labels("waiting").set(waiting)
        self._shells.labels("making").set(making)

    def shell(self, what: str, count: int = 1) -> None:
        """Processes made ahead were made, used or given up, have died, or could not be made (`failed`)."""
        self._shell_events.labels(what).inc(count)

    def collected(self, freed_bytes: int) -> None:
        """Garbage of the store has gone."""
        self._collected.inc(freed_bytes)

    def sent_to_peers(self, n_bytes: int) -> None:
        """So many more bytes of a file went out."""
        self._sent.inc(n_bytes)

    def peer_failed(self, peer: str, *, lied: bool) -> None:
        """A node did not deliver a file; `lied`: it delivered other bytes."""
        self._peer_failures.labels(peer, str(lied).lower()).inc()

    def waited(self, outcome: str, waited_s: float) -> None:
        """A request's wait is over: `granted`, `forwarded`, `left` by its client, or refused with a code."""
        self._wait_s.labels(outcome).observe(waited_s)

    def replica_started(self, model: str, phases: Mapping[str, float], *, swapped: bool = False) -> None:
        """Count a start with the seconds of its phases; `swapped`: in the engine of another model, whose phases are
        counted apart."""
        self._starts.labels(model).inc()
        if swapped:
            self._swaps.labels(model).inc()
        if "shell" in phases:
            self._shell_starts.labels(model).inc()
        for phase, seconds in phases.items():
            (self._swap_s if swapped else self._start_s).labels(phase).inc(seconds)

    def first_token(self, seconds: float) -> None:
        """From ready to the first byte of the first answer, where somebody waited for the start."""
        self._start_s.labels("first_token").inc(seconds)

    def retried(self, model: str) -> None:
        """A request whose engine died before the first word is asked once more."""
        self._retries.labels(model).inc()

    def decided(self, command: str, code: str = "") -> None:
        """Count what the scheduler decided; `code` is a refusal's."""
        self._decisions.labels(command, code).inc()

    def replica_failed(self, model: str) -> None:
        self._failures.labels(model).inc()

    def adapter_loaded(self, seconds: float) -> None:
        """An engine read an adapter."""
        self._adapters_s.observe(seconds)

    def estimate_checked(
        self, term: str, predicted_bytes: int, measured_bytes: int, booked_bytes: int | None = None
    ) -> None:
        """A load's term against what was thought likeliest; `booked_bytes` when more than that was set aside."""
        self._estimates.checked(term, predicted_bytes, measured_bytes, booked_bytes)

    def key_tokens(self, key: str, prompt: int, cached: int, completion: int) -> None:
        """An account used so many more tokens; `cached` are of the prompt's."""
        self._key_usage.tokens(key, prompt, cached, completion)

    def key_memory(self, key: str, byte_s: int) -> None:
        """An account held device memory: bytes times seconds."""
        self._key_usage.memory(key, byte_s)

    def over_budget(self, key: str) -> None:
        """A request was refused because its key has used up what it may."""
        self._key_usage.refused(key)

    def spans_sent(self, count: int) -> None:
        """The collector took so many."""
        self._spans.labels("sent").inc(count)

    def spans_dropped(self, count: int) -> None:
        """So many did not fit into the queue, or the collector refused them."""
        self._spans.labels("dropped").inc(count)

    def loop_was_late(self, lag_s: float) -> None:
        self._lag_s.observe(lag_s)

    def database_took(self, kind: str, seconds: float) -> None:
        """A transaction of the state database, `read` or `write`, is over. May be called in any thread."""
        self._database_s.labels(kind).observe(seconds)

    def alert_posted(self, outcome: str) -> None:
        """What became of a post to the alert webhook: `sent`, `retried` or `lost`."""
        self._posts.labels(outcome).inc()

    def families(self, scrape: Scrape) -> Iterator[Metric]:
        """All families of Helios itself, with their samples. Takes milliseconds with many replicas."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
        yield from gauges(
            scrape.snapshot,
            version=scrape.version,
            models=scrape.models,
            store_logical_bytes=scrape.store_logical_bytes,
            store_physical_bytes=scrape.store_physical_bytes,
            fetched=scrape.fetched,
            journal_entries=scrape.journal_entries,
            journal_lost=scrape.journal_lost,
            recorded_events=scrape.recorded_events,
            recorded_lost=scrape.recorded_lost,
        )
        yield from accounts(scrape.snapshot)
        yield from surroundings(scrape.surroundings)
        yield firing(scrape.firing)

    def labels(self) -> dict[str, tuple[str, ...]]:
        """By the name of each family that is counted here, its labels."""
        return self._registry.labels

    def render(self, scrape: Scrape) -> bytes:
        """Everything as Prometheus text. Takes milliseconds with many engines: call it in a thread."""
        return (text_of(self.families(scrape)) + merge_texts(scrape.engines)).encode()
