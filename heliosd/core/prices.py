"""What memory and tokens cost, by the operator's prices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliosd.core.hardware import Device
from heliosd.core.metering import Tokens
from heliosd.core.units import GiB

ANY = "*"
"""The class of devices that no other class names."""
HOUR_S = 3600
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """In the operator's currency."""

    memory: float = 0.0
    prompt: float = 0.0
    completion: float = 0.0

    @property
    def total(self) -> float:
        return self.memory + self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Prices:
    """A class of devices is a part of their name, such as `H100`; of several that fit the longest counts."""

    currency: str = "USD"
    gpu_hour: Mapping[str, float] = field(default_factory=dict)
    """Of a whole device; a part of its memory costs that part of it."""
    gib_hour: Mapping[str, float] = field(default_factory=dict)
    """Of one GiB of its memory; goes before `gpu_hour` where both know the device."""
    prompt_million: float = 0.0
    cached_million: float | None = None
    """None: as much as other tokens of the prompt."""
    completion_million: float = 0.0

    @property
    def known(self) -> bool:
        """Anything costs something."""
        prices = [*self.gpu_hour.values(), *self.gib_hour.values(), self.prompt_million, self.completion_million]
        return any(prices) or bool(self.cached_million)

    def memory(self, device: Device | None, byte_s: int) -> float:
        """Of so many bytes times seconds on a device."""
        if device is None:
            return 0.0
        gib_hour = _of(self.gib_hour, device.name)
        if gib_hour is not None:
            return gib_hour * byte_s / (GiB * HOUR_S)
        return (_of(self.gpu_hour, device.name) or 0.0) * byte_s / (max(1, device.capacity_bytes) * HOUR_S)

    def gib_of(self, devices: Sequence[Device]) -> float | None:
        """Of a GiB for an hour, where it lies on any of these; None: none of them has a price."""
        total_bytes = sum(each.capacity_bytes for each in devices)
        cost = sum(self.memory(each, each.capacity_bytes * HOUR_S) for each in devices)
        return cost / (total_bytes / GiB) if cost else None

    def tokens(self, tokens: Tokens) -> tuple[float, float]:
        """Of a prompt's tokens, and of those of an answer."""
        cached = self.prompt_million if self.cached_million is None else self.cached_million
        prompt = (tokens.prompt - tokens.cached) * self.prompt_million + tokens.cached * cached
        return prompt / MILLION, tokens.completion * self.completion_million / MILLION


def _of(prices: Mapping[str, float], name: str) -> float | None:
    fitting = [each for each in prices if each != ANY and each.casefold() in name.casefold()]
    return prices.get(max(fitting, key=len) if fitting else ANY)
