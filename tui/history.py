"""What was since the screen was opened: the last values of a few figures, and how they look as a line. Pure."""

from collections import deque
from collections.abc import Iterable, Sequence

from tui.now import Now

LENGTH = 120
"""Values kept of each figure, one a second."""
_BLOCKS = "▁▂▃▄▅▆▇█"


class History:
    """Takes one value of each figure at a time; figures of what is gone are forgotten."""

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._series: dict[str, deque[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        for name in self._series.keys() - values.keys():
            del self._series[name]
        for name, value in values.items():
            self._series.setdefault(name, deque(maxlen=self._length)).append(value)

    def of(self, name: str) -> Sequence[float]:
        return tuple(self._series.get(name, ()))


def figures(now: Now) -> dict[str, float]:
    """What is followed, by name: of each device the share that is busy and the share in use; leases and queue."""
    found: dict[str, float] = {"leases": float(sum(row["leases"] for row in now.replicas))}
    found["waiting"] = float(len(now.queue))
    for device in now.devices:
        found[f"used {device.id}"] = device.used_bytes / max(1, device.capacity_bytes)
        if device.utilization_ratio is not None:
            found[f"busy {device.id}"] = device.utilization_ratio
    return found


def sparkline(values: Iterable[float], width: int, most: float | None = None) -> str:
    """The last `width` values as blocks from 0 to `most`, or to the greatest of them. Newest last."""
    shown = list(values)[-width:] if width > 0 else []
    top = most if most is not None else max(shown, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(shown)
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(last, max(0, round(value / top * last)))] for value in shown)
