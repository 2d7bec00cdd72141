"""The clock of one start: phases are marked as they end, from whatever thread or process, and told to who waits."""

import time
from collections.abc import Callable, Sequence

from heliosd.core.timeline import Timeline, timeline


class StartClock:
    """Begins with the decision to start, on the system's monotonic clock.

    A phase begins where the one before it ended, so that nothing of a start is unexplained. `tell` is called with each
    phase that ended, in the thread that marks it. `before`: name, begin and end of what was done for it earlier.
    """

    def __init__(
        self,
        began_at: float | None = None,
        tell: Callable[[str], None] = lambda phase: None,
        now: Callable[[], float] = time.monotonic,
        before: Sequence[tuple[str, float, float]] = (),
    ) -> None:
        self._now = now
        self._before = tuple(before)
        self.began_at = now() if began_at is None else began_at
        self._tell = tell
        self._marks: list[tuple[str, float]] = []
        self._heard: dict[str, float] = {}
        self._parts: list[tuple[str, str, float, float]] = []

    def mark(self, phase: str) -> None:
        """The phase ends now."""
        self.note(phase, self._now())
        self._tell(phase)

    def heard(self, phase: str, at: float) -> None:
        """The engine's process says that a phase has ended. It holds until the engine has told of all; see `note`."""
        self._heard[phase] = at
        self._tell(phase)

    def note(self, phase: str, at: float) -> None:
        """The phase ended then. Nobody is told."""
        self._marks.append((phase, at))

    def part(self, name: str, within: str, began_at: float, ended_at: float) -> None:
        """Something of a phase that is worth a line of its own, such as capturing graphs within the warm-up."""
        self._parts.append((name, within, began_at, ended_at))

    @property
    def lead_s(self) -> float:
        """How long before the decision its timeline begins."""
        return self.began_at - min((begin for _, begin, _ in self._before), default=self.began_at)

    def timeline(self, until: float | None = None) -> Timeline:
        """What ended so far."""
        marks = tuple(self._marks)
        known = {phase for phase, _ in marks}
        heard = [(phase, at) for phase, at in tuple(self._heard.items()) if phase not in known]
        return timeline(self.began_at, (*marks, *heard), tuple(self._parts), until, self._before)
