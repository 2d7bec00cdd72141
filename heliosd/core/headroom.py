"""Sees a device run out of memory before it does: processes that are not ours take more and more of it."""

from dataclasses import dataclass, field

from heliosd.core.ledger import Ledger
from heliosd.core.messages import Note
from heliosd.core.names import DeviceId
from heliosd.core.units import format_bytes

FORESIGHT_S = 30.0
"""Nothing is started on a device that will be full so soon, at the speed it fills now."""
RELIEF = 2.0
"""It is open again when it will last for so many times longer."""


@dataclass
class HeadroomWatch:
    """Of all devices. Two readings in a row must say so: one process that takes its memory at once is not a trend."""

    at: float | None = None
    foreign: dict[DeviceId, int] = field(default_factory=dict)
    slopes: dict[DeviceId, float] = field(default_factory=dict)
    """Bytes a second that foreign memory grew between the last two readings."""

    def look(self, ledger: Ledger, at: float) -> list[Note]:
        """Close devices that are about to run out, open those that no longer are; tell both once."""
        notes: list[Note] = []
        passed_s = at - self.at if self.at is not None else 0.0
        for device in ledger.devices:
            now = ledger.foreign.get(device, 0)
            grows = (now - self.foreign.get(device, now)) / passed_s if passed_s > 0 else 0.0
            slope, self.slopes[device] = min(grows, self.slopes.get(device, 0.0)), grows
            self.foreign[device] = now
            left = ledger.devices[device].capacity_bytes - now - ledger.promised_bytes(device)
            lasts_s = max(0, left) / slope if slope > 0 else float("inf")
            if device not in ledger.running_out and lasts_s <= FORESIGHT_S:
                ledger.running_out.add(device)
                why = (
                    f"{device} will be full in {lasts_s:.0f} s: foreign processes take {format_bytes(int(slope))} a "
                    f"second of the {format_bytes(left)} that are left; nothing is started there"
                )
                notes.append(Note(device, why, warning=True))
            elif device in ledger.running_out and lasts_s > FORESIGHT_S * RELIEF:
                ledger.running_out.discard(device)
                notes.append(Note(device, f"{device} no longer runs out of memory"))
        self.at = at
        return notes
