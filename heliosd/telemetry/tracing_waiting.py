"""The traced requests that ask the scheduler, and for which of them something is done."""

from dataclasses import dataclass, field

from heliosd.core.names import Ticket
from heliosd.telemetry.tracing_request import RequestTrace

_KEPT_VICTIMS = 32


@dataclass(slots=True, eq=False)
class Asked:
    """One that waits for a replica, or has one."""

    trace: RequestTrace
    model: str = ""
    waiting: bool = True
    times: int = 0
    """That it asked and has not been released from."""
    victims: list[str] = field(default_factory=list)
    """Whom it had room made by since its model was started last."""
    freed_bytes: int = 0

    def gets_room(self, victim: str, freed_bytes: int) -> None:
        """Somebody makes room for it."""
        self.victims = [*self.victims, victim][-_KEPT_VICTIMS:]
        self.freed_bytes += freed_bytes

    def takes_room(self) -> tuple[list[str], int]:
        """What was made for it, now that its model starts."""
        made = self.victims, self.freed_bytes
        self.victims, self.freed_bytes = [], 0
        return made


class Waiting:
    """By ticket, from the question to the release."""

    def __init__(self) -> None:
        self._asked: dict[Ticket, Asked] = {}

    def asks(self, ticket: Ticket, model: str, trace: RequestTrace) -> None:
        """A release follows. Who asks once more under the same ticket may do so before the first one's."""
        asked = self._asked.setdefault(ticket, Asked(trace))
        asked.model, asked.waiting, asked.times = model, True, asked.times + 1

    def released(self, ticket: Ticket) -> None:
        """One question of this ticket is over."""
        if asked := self._asked.get(ticket):
            asked.times -= 1
            if asked.times <= 0:
                del self._asked[ticket]

    def get(self, ticket: Ticket) -> Asked | None:
        return self._asked.get(ticket)

    def longest(self, model: str) -> Asked | None:
        """Who has waited longest for the model; a trace that is kept goes before one that is not."""
        found = [each for each in self._asked.values() if each.model == model and each.waiting]
        return next((each for each in found if each.trace.kept), found[0] if found else None)

    def cause(self, reason: str) -> Asked | None:
        """For whom room is made: the scheduler's reason names the model."""
        models = {each.model for each in self._asked.values() if each.model and each.waiting}
        return next((self.longest(model) for model in models if _names(reason, model)), None)


def _names(reason: str, model: str) -> bool:
    told = (f"room for {more}{model}{end}" for more in ("", "one more ") for end in (":", ","))
    return any(words in reason for words in told)
