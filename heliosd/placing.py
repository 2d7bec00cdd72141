"""Tells the scheduler in which tier each model lies and how fast that is read, whenever either has changed."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from heliosd.core.messages import Event, ModelsPlaced
from heliosd.core.names import Digest
from heliosd.core.places import Placed, TierSpeed, speeds_of
from heliosd.core.retention import Speed, Tier
from heliosd.core.storage_speed import Speed as Measured


@dataclass(frozen=True, slots=True)
class Blobs:
    """Of one model: its blobs, each with its bytes."""

    model: str
    sizes: Mapping[Digest, int]


class Placing:
    def __init__(self, post: Callable[[Event], None], now: Callable[[], float], changed: Callable[[], None]) -> None:
        """`changed` is called when all is to be told again."""
        self._measured: tuple[Measured, ...] = ()
        self._post = post
        self._now = now
        self._changed = changed
        self._told: tuple[object, object] | None = None

    @property
    def speeds(self) -> tuple[Measured, ...]:
        """What `doctor --storage` measured last."""
        return self._measured

    @speeds.setter
    def speeds(self, measured: tuple[Measured, ...]) -> None:
        self._measured = measured
        self._changed()

    def tell(
        self,
        models: Iterable[Blobs],
        disk: Collection[Digest],
        staged: Collection[Digest],
        moved: Mapping[Tier, Speed],
    ) -> None:
        """`disk`: blobs on the slower volume; `staged`: those in RAM; `moved`: speeds that moves were timed at."""
        placed = tuple(_placed(each, disk, staged) for each in models)
        speeds = tuple(TierSpeed(tier, speed) for tier, speed in speeds_of(self._measured, moved).items())
        if (placed, speeds) != self._told:
            self._told = placed, speeds
            self._post(ModelsPlaced(self._now(), placed, speeds))


def _placed(model: Blobs, disk: Collection[Digest], staged: Collection[Digest]) -> Placed:
    parts = dict.fromkeys(Tier, 0)
    for digest, n_bytes in model.sizes.items():
        parts[Tier.HOST if digest in staged else Tier.DISK if digest in disk else Tier.NVME] += n_bytes
    return Placed(model.model, tuple((tier, n_bytes) for tier, n_bytes in parts.items() if n_bytes))
