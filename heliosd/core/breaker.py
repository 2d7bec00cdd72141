"""Circuit breakers: a model that fails on some devices is not started there again until it may have changed.

One breaker for each model and set of devices. Closed: starts are allowed. Open: none is, until `retry_at`; each failure
in a row doubles the wait. Then half-open: one start is the probe; it closes the breaker or opens it again.
Deaths of replicas that were ready open it only when several come close together: one may be anybody's request.
"""

from dataclasses import dataclass, field

from heliosd.core.names import DeviceId
from heliosd.core.snapshot import BreakerStatus

LONGEST_BACK_OFF_S = 60.0
DEATHS = 3
WINDOW_S = 60.0
"""So many deaths within so long open the breaker."""
Devices = tuple[DeviceId, ...]


@dataclass
class Breaker:
    """Of one model on one set of devices."""

    in_a_row: int = 0
    """Failed starts, or bursts of deaths."""
    retry_at: float = 0.0
    cause: str = ""
    probing: bool = False
    deaths: list[float] = field(default_factory=list)

    def state(self, at: float) -> str:
        """`closed`, `open` or `half-open`."""
        if self.in_a_row == 0:
            return "closed"
        return "open" if self.probing or at < self.retry_at else "half-open"

    def opened(self, at: float, cause: str, base_s: float) -> None:
        self.in_a_row += 1
        self.cause, self.probing = cause, False
        self.retry_at = at + min(LONGEST_BACK_OFF_S, base_s * 2 ** (self.in_a_row - 1))


@dataclass
class Breakers:
    """Of all models. Written by the scheduler alone."""

    base_s: float = 2.0
    by_model: dict[str, dict[Devices, Breaker]] = field(default_factory=dict)

    def start_failed(self, model: str, devices: Devices, at: float, cause: str) -> Breaker:
        breaker = self._of(model, devices)
        breaker.opened(at, cause, self.base_s)
        return breaker

    def died(self, model: str, devices: Devices, at: float, cause: str) -> Breaker | None:
        """A ready replica died. Returns the breaker if that opened it."""
        breaker = self._of(model, devices)
        breaker.deaths = [when for when in breaker.deaths if at - when < WINDOW_S] + [at]
        if len(breaker.deaths) < DEATHS:
            return None
        breaker.deaths.clear()
        breaker.opened(at, cause, self.base_s)
        return breaker

    def starting(self, model: str, devices: Devices) -> None:
        """A start on these devices is on its way: where the breaker is half-open, it is the probe."""
        if (breaker := self.get(model, devices)) and breaker.in_a_row:
            breaker.probing = True

    def started(self, model: str, devices: Devices) -> None:
        """It became ready: closed."""
        if breaker := self.get(model, devices):
            breaker.in_a_row, breaker.probing = 0, False
            if not breaker.deaths:
                del self.by_model[model][devices]
                if not self.by_model[model]:
                    del self.by_model[model]

    def called_off(self, model: str, devices: Devices) -> None:
        """The start was ended before it could succeed or fail: the next one is the probe."""
        if breaker := self.get(model, devices):
            breaker.probing = False

    def get(self, model: str, devices: Devices) -> Breaker | None:
        return self.by_model.get(model, {}).get(devices)

    def open_for(self, model: str, at: float) -> dict[Devices, Breaker]:
        """Where the model must not be started now."""
        return {devices: each for devices, each in self.by_model.get(model, {}).items() if each.state(at) == "open"}

    def status(self, at: float) -> tuple[BreakerStatus, ...]:
        """Those that are not closed."""
        return tuple(
            BreakerStatus(model, devices, each.state(at), each.in_a_row, each.retry_at, each.cause)
            for model, places in self.by_model.items()
            for devices, each in places.items()
            if each.in_a_row
        )

    def forget(self) -> None:
        """What they rest on has changed: settings, models."""
        self.by_model.clear()

    def _of(self, model: str, devices: Devices) -> Breaker:
        return self.by_model.setdefault(model, {}).setdefault(devices, Breaker())


@dataclass
class RetryBudget:
    """How many answers may be tried again: a share of what was asked lately, so that retries never become the load.

    A request costs nothing and earns `ratio` of a retry; a retry spends one. What is saved is bounded by `most`.
    """

    ratio: float = 0.1
    most: float = 10.0
    saved: float = 3.0

    def asked(self) -> None:
        self.saved = min(self.most, self.saved + self.ratio)

    def spend(self) -> bool:
        """Whether one more retry is allowed; if so it is counted."""
        if self.saved < 1.0:
            return False
        self.saved -= 1.0
        return True
