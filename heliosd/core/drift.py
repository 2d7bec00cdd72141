"""Tells when a device holds other than what was measured, and when it does again."""

from dataclasses import dataclass, field

from heliosd.core.ledger import Ledger
from heliosd.core.messages import Note
from heliosd.core.names import DeviceId

ALARM_RATIO = 0.01
"""Of a device: more than this between what is held and what was measured is told."""


@dataclass
class DriftWatch:
    """Of all devices. Between two readings an engine may just have begun to grow: two in a row make an alarm."""

    last: dict[DeviceId, float] = field(default_factory=dict)
    """The drift at the last reading, as a share of the device."""
    alarmed: set[DeviceId] = field(default_factory=set)

    def look(self, ledger: Ledger) -> list[Note]:
        """Once when a device drifts away twice in a row, once when it is back within half of that."""
        notes: list[Note] = []
        for device in ledger.devices:
            ratio, before = ledger.drift_ratio(device), self.last.get(device, 0.0)
            self.last[device] = ratio
            if device not in self.alarmed and min(abs(ratio), abs(before)) > ALARM_RATIO:
                self.alarmed.add(device)
                more = "more" if ratio > 0 else "less"
                why = f"{device} holds {abs(ratio):.1%} of its memory {more} than was measured"
                notes.append(Note(device, why, warning=True))
            elif device in self.alarmed and abs(ratio) <= ALARM_RATIO / 2:
                self.alarmed.discard(device)
                notes.append(Note(device, f"{device} holds what was measured again"))
        return notes
