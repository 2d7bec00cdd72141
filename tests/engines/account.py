"""An account of simulated memory, for tests of simulated engines alone."""

from heliosd.core.names import DeviceId, ReplicaId


class Account:
    def __init__(self) -> None:
        self.held: dict[tuple[ReplicaId, DeviceId], int] = {}

    def take(self, replica: ReplicaId, device: DeviceId, n_bytes: int) -> None:
        self.held[replica, device] = self.held.get((replica, device), 0) + n_bytes

    def give(self, replica: ReplicaId) -> None:
        for key in [key for key in self.held if key[0] == replica]:
            del self.held[key]
