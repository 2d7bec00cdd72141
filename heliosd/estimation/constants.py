"""Constants of the memory laws by range of engine versions, each with where it was measured.

The laws come from reading which tensors live when; what no source tells (the driver's share of CUDA graphs, libraries,
NCCL) was measured on real GPUs: `python -m tests.bench.truth --fit` prints this table from the logs. What a machine
measures itself refines the result (`calibration`).
"""

import functools
from dataclasses import dataclass

from heliosd.core.units import MiB
from heliosd.estimation.launch import Version


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians and robust lines over the accounts that engines printed."""

    graph_layer_bytes: int
    """CUDA graphs: of one layer at the 51 usual capture sizes."""
    graph_hidden_bytes: int
    """Of 1,024 of the hidden size."""
    graph_base_bytes: int
    """Of a model, whatever its sizes."""
    alone_bytes: int
    """Non-torch memory of a single rank on capability 9 and more: libraries loaded after the first reading."""
    alone_older_bytes: int
    """The same on older cards."""
    together_bytes: int
    """With several ranks: NCCL, custom all-reduce, symmetric memory."""
    alone_doubt_bytes: int
    """By how much the largest of twenty starts lay above: of a single rank."""
    together_doubt_bytes: int
    """The same of several ranks: how much NCCL takes depends on how the cards are linked, which no log tells."""
    rows: int
    """Of how many starts."""


@dataclass(frozen=True, slots=True)
class Era:
    """Engine versions from `since` on that share their memory laws."""

    name: str
    since: Version
    held_hidden: float
    """Rows of the hidden size alive in a layer beside the two residuals and the attention's output."""
    lasting_workspace: bool
    """The experts' workspace is kept between steps."""
    whole_graphs: bool
    """Decoding steps are captured as a whole too, experts' kernels included."""
    measured: Measured


ROCM_BYTES = 575 * MiB
"""Non-torch memory on ROCm: 0.53 to 0.59 GiB in three starts of 0.9 to 0.11."""
FINE_EXPERTS = 32
FINE_EXPERTS_BYTES = 520 * MiB
"""What whole graphs of models with as many experts take more: 0.45 to 0.67 GiB in four starts of 0.19."""
LATENT_BYTES = 330 * MiB
"""And of models with latent attention: 0.2 to 0.4 GiB in three starts of 0.19."""
SHARED_GRAPHS_BYTES = 85 * MiB
"""What graphs take less for each doubling of ranks: 0.07 to 0.16 GiB in six starts of 0.19."""
DEQUANTIZED_V0_BYTES = 460 * MiB
DEQUANTIZED_BYTES = 1230 * MiB
"""What graphs hold of weights that bitsandbytes unpacks within them."""

QUANTIZED_LAYER_BYTES = 17 * MiB
"""What a layer of a quantized model takes more in graphs of V1 before 0.14; from 0.19 on there is no difference."""

ERAS = (
    Era(
        "v0",
        (0, 0, 0),
        0.0,
        False,
        False,
        Measured(4 * MiB, 0, 115 * MiB, 51 * MiB, 77 * MiB, 410 * MiB, 261 * MiB, 3256 * MiB, 118),
    ),
    Era(
        "v1",
        (0, 6, 4),
        0.0,
        False,
        False,
        Measured(12 * MiB, 0, 96 * MiB, 72 * MiB, 20 * MiB, 814 * MiB, 100 * MiB, 599 * MiB, 59),
    ),
    Era(
        "v1 whole graphs",
        (0, 11, 0),
        0.0,
        False,
        True,
        Measured(21 * MiB, 0, 483 * MiB, 133 * MiB, 20 * MiB, 558 * MiB, 100 * MiB, 350 * MiB, 29),
    ),
    Era(
        "lasting workspace",
        (0, 14, 0),
        0.7,
        True,
        True,
        Measured(21 * MiB, 0, 483 * MiB, 133 * MiB, 20 * MiB, 558 * MiB, 100 * MiB, 350 * MiB, 2),
    ),
    Era(
        "0.16",
        (0, 16, 0),
        0.7,
        True,
        True,
        Measured(11 * MiB, 111 * MiB, 174 * MiB, 256 * MiB, 20 * MiB, 2120 * MiB, 215 * MiB, 350 * MiB, 66),
    ),
    Era(
        "graphs counted",
        (0, 20, 0),
        0.7,
        True,
        True,
        Measured(15 * MiB, 0, 92 * MiB, 246 * MiB, 20 * MiB, 809 * MiB, 100 * MiB, 860 * MiB, 32),
    ),
    Era(
        "runner 2",
        (0, 29, 0),
        0.0,
        True,
        True,
        Measured(13 * MiB, 0, 0, 246 * MiB, 20 * MiB, 809 * MiB, 100 * MiB, 860 * MiB, 3),
    ),
)


@functools.lru_cache(maxsize=64)
def era(version: Version, *, v0: bool = False) -> Era:
    """The constants for an engine of `version`; `v0`: its older generation, which ran until 0.11."""
    if v0:
        return ERAS[0]
    return max((each for each in ERAS[1:] if each.since <= version), key=lambda each: each.since, default=ERAS[1])
