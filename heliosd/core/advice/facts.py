"""What the rules judge by. All of it is measured, counted or estimated by others."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DAY_HOURS = 24


@dataclass(frozen=True, slots=True)
class Change:
    """A setting as it could be, and what a replica would take then on all its devices."""

    value: int | str
    need_bytes: int
    by: str = ""
    """Who makes it so, where it is not the engine as it starts."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model of the store. What was asked is over the window."""

    model: str
    stored_bytes: int
    """That its removal would free on the disk."""
    age_hours: float
    """Since it came into the store."""
    requests: int = 0
    silent_hours: float | None = None
    """Since it was last asked for; None: it never was, as far as anybody knows."""
    most_at_once: int = 0
    longest_tokens: int = 0
    """Prompt and longest answer, as bodies tell: four characters to a token."""
    need_bytes: int = 0
    """What a replica takes here on all its devices, as the settings are; 0: it fits nowhere here."""
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    """What a replica works on at once; None: nobody knows."""
    load_s: float = 0.0
    """What its last start took, or one usually takes."""
    pinned: int = 0
    """Replicas that a pin keeps ready."""
    pin_hours: float = 0.0
    """Since it was pinned."""
    min_replicas: int = 0
    max_replicas: int = 1
    most_replicas: int = 0
    """That ran at once."""
    texts_only: bool = False
    """Its prompts are text alone, so that bodies tell how long they are."""
    serves_others: bool = False
    """It is an adapter, or one of its adapters is stored."""
    disk_tier: bool = False
    """There is a slower volume it could go to, and it is not wanted in any tier."""
    shorter: Change | None = None
    """With the context of `long_context.proposed`."""
    narrower: Change | None = None
    """With the sequences of `many_sequences.proposed`."""
    quantized: Change | None = None
    """In a narrower precision that the card multiplies in."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    device: str
    name: str
    capacity_bytes: int
    peak_bytes: int
    """Needed there at once at most, over the window."""
    slices: Mapping[str, int] = field(default_factory=dict)
    """MIG profiles that the card could be cut into, or that its slice could be made smaller to, and their bytes."""
    slice_of: str | None = None


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """A bound that an operator set on what a tier or sleepers may hold."""

    key: str
    """Of the configuration."""
    what: str
    budget_bytes: int
    peak_bytes: int
    """Held at once at most, over the window."""


@dataclass(frozen=True, slots=True)
class PrefetchFacts:
    """What became of starts ahead of need, since the daemon began."""

    enabled: bool = True
    hits: int = 0
    misses: int = 0
    wasted_byte_s: float = 0.0
    hours: float = 0.0
    load_s: float = 0.0
    """What a start takes here, in the mean: what a hit saves."""


@dataclass(frozen=True, slots=True)
class Facts:
    hours: int
    """In which the node ran and counted, within the window."""
    window_hours: int
    """How far back the figures go."""
    models: tuple[ModelFacts, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    budgets: tuple[BudgetFacts, ...] = ()
    prefetch: PrefetchFacts = PrefetchFacts()
    free_bytes: int = 0
    """Of the device that had most to spare at its busiest."""
    gib_hour_price: float | None = None
    """Of device memory, in whatever currency; None: nobody knows."""

    @property
    def window(self) -> str:
        """In words: `in the last 14 days`."""
        days = round(self.window_hours / DAY_HOURS)
        return f"in the last {days} days ({self.hours} hours counted)"
