"""Devices and the node taken out of service on an operator's word, and back in."""

from collections.abc import Callable

from heliosd.core.messages import DeviceDrainAsked, DrainAsked, DrainEnded, Event
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.errors import NotFound
from heliosd.node.changes import Changes
from heliosd.state.drained import DrainedDevices


class Draining:
    """`retell`: what is to be kept ready is told to the scheduler again."""

    def __init__(
        self,
        scheduler: Scheduler,
        changes: Changes,
        drained: DrainedDevices,
        retell: Callable[[], None],
        post: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._changes = changes
        self._drained = drained
        self._retell = retell
        self._post = post
        self._now = now

    async def begin(self) -> None:
        """Tell the scheduler what an earlier life was told."""
        for device in await self._drained.all():
            self._post(DeviceDrainAsked(self._now(), device, out=True))

    @property
    def node(self) -> bool:
        """Whether the node takes no requests."""
        return self._scheduler.draining

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """Those that are out."""
        return tuple(sorted(self._scheduler.ledger.drained))

    def on(self, device: str | None) -> tuple[ReplicaId, ...]:
        """The replicas there; None: on the whole node. Raises NotFound."""
        if device is not None and DeviceId(device) not in self._scheduler.ledger.devices:
            known = ", ".join(sorted(self._scheduler.ledger.devices)) or "none"
            raise NotFound(f"cannot find the device {device}: known are: {known}", code="device_not_found")
        replicas = self._scheduler.replicas.values()
        return tuple(each.id for each in replicas if device is None or DeviceId(device) in each.devices)

    def check(self, device: str | None) -> None:
        """Raises NotFound for a device that is unknown, or not out; None: for a node that is not."""
        self.on(device)
        out = self.node if device is None else DeviceId(device) in self._scheduler.ledger.drained
        if not out:
            raise NotFound(f"cannot end the drain of {device or 'the node'}: it is not drained", code="not_drained")

    async def drain_device(self, device: str) -> tuple[ReplicaId, ...]:
        """Start nothing there any more, also after a restart; returns when all that were there have stopped."""
        there = self.on(device)
        await self._drained.put(DeviceId(device), out=True)
        self._post(DeviceDrainAsked(self._now(), DeviceId(device), out=True))
        await self._until(lambda: DeviceId(device) in self._scheduler.ledger.drained)
        await self._until_gone(there)
        return there

    async def end_device(self, device: str) -> None:
        """Use it again. Raises NotFound when it is unknown, or was not out."""
        self.check(device)
        await self._drained.put(DeviceId(device), out=False)
        self._post(DeviceDrainAsked(self._now(), DeviceId(device), out=False))
        await self._until(lambda: DeviceId(device) not in self._scheduler.ledger.drained)

    async def drain_node(self) -> tuple[ReplicaId, ...]:
        """Take no requests until `end_node`; returns when the old are finished and all replicas have stopped."""
        there = self.on(None)
        self._post(DrainAsked(self._now()))
        await self._until(lambda: self._scheduler.draining)
        await self._until_gone(there)
        return there

    async def end_node(self) -> None:
        """Take requests again. Raises NotFound when it does."""
        self.check(None)
        self._post(DrainEnded(self._now()))
        await self._until(lambda: not self._scheduler.draining)
        self._retell()

    async def _until_gone(self, replicas: tuple[ReplicaId, ...]) -> None:
        await self._until(lambda: not set(replicas) & self._scheduler.replicas.keys())

    async def _until(self, so: Callable[[], bool]) -> None:
        while not so():
            await self._changes.after(self._changes.version)
