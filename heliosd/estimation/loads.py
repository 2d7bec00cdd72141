"""What an engine was started with, what the law said of it and what it took; and which starts are alike."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import hypot

from heliosd.core.units import MiB
from heliosd.estimation.account import DeviceAccount, Term

TERMS = ("weights", "kv_cache", "overhead")
"""What an engine's measurement is divided into; overhead is activation, graphs, non-torch and the process."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A start, whether it has happened or is only thought of."""

    engine: str
    """Kind and version, such as `vllm 0.32.0`."""
    architecture: str
    """Such as `LlamaForCausalLM`."""
    device_kind: str
    device_name: str
    tensor_parallel: int
    arguments: str
    """What was set for the engine, always written alike."""
    revision: str
    features: Mapping[str, float] = field(default_factory=dict)
    """As `ridge.features` gives them; empty: no learned model is asked."""

    @property
    def engine_kind(self) -> str:
        return self.engine.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Load:
    """One start that was measured. Bytes of one device, by term."""

    asked: Asked
    law: Mapping[str, int]
    """What the law said, before any correction. Empty when it is not known or the law has changed since: then the load
    tells of its own revision only."""
    measured: Mapping[str, int]


class Level(StrEnum):
    """Groups of loads that are alike, from the widest to the narrowest."""

    ENGINE = "any version of the engine on this kind of device"
    VERSION = "this engine version on this kind of device"
    ARCHITECTURE = "this architecture with this engine version on this kind of device"
    SETTINGS = "this architecture and engine version with the same settings on the same device"
    REVISION = "this very revision with the same settings"


def level_keys(asked: Asked) -> tuple[tuple[Level, Hashable], ...]:
    """The groups that a start belongs to but its own, widest first; each lies within the one before."""
    kind = asked.device_kind
    return (
        (Level.ENGINE, (asked.engine_kind, kind)),
        (Level.VERSION, (asked.engine, kind)),
        (Level.ARCHITECTURE, (asked.engine, kind, asked.architecture)),
        (
            Level.SETTINGS,
            (asked.engine, kind, asked.architecture, asked.device_name, asked.tensor_parallel, asked.arguments),
        ),
    )


def own_key(asked: Asked) -> Hashable:
    """Starts with equal keys should measure alike."""
    return asked.revision, asked.arguments, asked.engine, asked.device_kind, asked.device_name


def unit_bytes(term: str, law_bytes: int) -> float:
    """What residuals of a term are measured in, so that models of all sizes can be compared.

    Weights and KV cache are off by a share of themselves. Overhead has a part that every engine has (libraries,
    contexts, the process) and a part that grows with the model (activations, graphs): 256 MiB and a tenth of it.
    """
    return 256 * MiB + law_bytes / 10 if term == "overhead" else float(max(1, law_bytes))


def residual(load: Load, term: str) -> float | None:
    """(measured - law) in units of the term; None when one of the two is not known.

    Nothing measured where something was expected is a report that failed, not a model without weights.
    """
    law, measured = load.law.get(term, 0), load.measured.get(term, 0)
    return (measured - law) / unit_bytes(term, law) if law > 0 and measured > 0 else None


def law_terms(account: DeviceAccount) -> dict[str, Term]:
    """An account in the terms of a measurement. The parts of the overhead err independently: their squares add."""
    parts = (account.activation, account.graphs, account.non_torch, account.context)
    likely = sum(part.likely_bytes for part in parts)
    low = round(hypot(*(part.likely_bytes - part.low_bytes for part in parts)))
    high = round(hypot(*(part.high_bytes - part.likely_bytes for part in parts)))
    why = "activation peak, graphs and what lies outside of torch"
    return {
        "weights": account.weights,
        "kv_cache": account.kv_cache,
        "overhead": Term(likely, max(0, likely - low), likely + high, why),
    }
