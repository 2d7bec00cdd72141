"""How GPUs reach one another, and which NUMA node is theirs: asked once, because it is soldered."""

from typing import Any

from heliosd.core.hardware import LinkKind
from heliosd.core.names import DeviceId
from heliosd.devices.driver import ask

_NUMA_WORDS = 16
"""64 nodes each: more than any machine has."""


def links(nvml: Any, gpu: Any, others: list[tuple[DeviceId, Any]]) -> tuple[tuple[DeviceId, LinkKind], ...]:
    """The best way from one GPU to each of the others; those the driver knows no way to are left out."""
    found = ((device, _link(nvml, gpu, other)) for device, other in others)
    return tuple((device, kind) for device, kind in found if kind is not None)


def _link(nvml: Any, gpu: Any, other: Any) -> LinkKind | None:
    try:
        if (
            ask(nvml, nvml.nvmlDeviceGetP2PStatus, gpu, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
            == nvml.NVML_P2P_STATUS_OK
        ):
            return LinkKind.NVLINK
        ancestor = ask(nvml, nvml.nvmlDeviceGetTopologyCommonAncestor, gpu, other)
    except nvml.NVMLError:
        return None  # the other one is lost, which is its own fault and not this one's
    if ancestor is None:
        return None
    if ancestor <= nvml.NVML_TOPOLOGY_MULTIPLE:
        return LinkKind.PCIE_SWITCH
    if ancestor <= nvml.NVML_TOPOLOGY_HOSTBRIDGE:
        return LinkKind.PCIE_HOST
    return LinkKind.NUMA if ancestor <= nvml.NVML_TOPOLOGY_NODE else LinkKind.SYSTEM


def numa_node(nvml: Any, gpu: Any) -> int | None:
    """The NUMA node whose memory is nearest.

    Not nvmlDeviceGetNumaNodeId: that is the node the GPU's own memory forms on machines where it is one.
    """
    words = ask(nvml, nvml.nvmlDeviceGetMemoryAffinity, gpu, _NUMA_WORDS, nvml.NVML_AFFINITY_SCOPE_NODE)
    for number, word in enumerate(words or ()):
        if word:
            lowest = (int(word) & -int(word)).bit_length() - 1
            return number * 64 + lowest
    return None
