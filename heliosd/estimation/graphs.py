"""What CUDA graphs take: for each captured batch size the nodes of all layers, and one pool for the largest.

Piecewise graphs grow with layers and with the number of sizes; from 0.11 on a whole decoding step is captured too.
Their memory is not the model's but the driver's, and logs scatter by a quarter: the interval says so.
"""

from heliosd.estimation.constants import (
    DEQUANTIZED_BYTES,
    DEQUANTIZED_V0_BYTES,
    FINE_EXPERTS,
    FINE_EXPERTS_BYTES,
    LATENT_BYTES,
    QUANTIZED_LAYER_BYTES,
    SHARED_GRAPHS_BYTES,
    Era,
    Measured,
)
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.model import Model
from heliosd.estimation.quantization_schemes import NF4

USUAL_COUNT = 51
"""Batch sizes captured by default: 1, 2, 4, every 8th below 256, every 16th up to 512."""


def graph_bytes(model: Model, launch: Launch, era: Era, count: int, measured: Measured | None = None) -> int:
    """`(layers · one layer + hidden ÷ 1024 · a part + base) · sizes captured ÷ 51 + kernels' own`, in bytes.

    0 when eager or not on a GPU. `measured`: constants instead of the era's own.
    """
    if launch.enforce_eager or launch.platform is Platform.CPU or not count:
        return 0
    constants = measured or era.measured
    layers = -(-model.sizes.layers // launch.pipeline_parallel)
    usual = (
        constants.graph_layer_bytes * layers
        + constants.graph_hidden_bytes * model.sizes.hidden // 1024
        + constants.graph_base_bytes
    )
    return max(0, round(usual * size_share(count, v0=launch.v0) + kernel_bytes(model, launch, era)))


FEW_V0 = 8


def size_share(count: int, *, v0: bool) -> float:
    """By how much captured sizes scale graphs: in proportion; in V0, whose sizes share nearly all, hardly."""
    return min(1.0, count / FEW_V0) if v0 else count / USUAL_COUNT


def kernel_bytes(model: Model, launch: Launch, era: Era) -> int:
    """What some kernels keep in the graphs' pool at the usual capture sizes."""
    extra = 0
    if era.whole_graphs and launch.version >= (0, 16, 0):
        extra += FINE_EXPERTS_BYTES if model.sizes.experts >= FINE_EXPERTS else 0
        extra += LATENT_BYTES if model.sizes.latent else 0
        extra -= SHARED_GRAPHS_BYTES * (launch.tensor_parallel.bit_length() - 1)
    quantized = model.quantization.linear is not None or model.quantization.experts is not None
    if quantized and not launch.v0 and launch.version < (0, 14, 0) and model.quantization.linear is not NF4:
        extra += QUANTIZED_LAYER_BYTES * -(-model.sizes.layers // launch.pipeline_parallel)
    if model.quantization.linear is NF4:
        extra += DEQUANTIZED_V0_BYTES if launch.v0 else DEQUANTIZED_BYTES
    return extra
