"""Bytes of the state that a layer without keys and values keeps for each sequence, on one tensor-parallel rank.

Shapes as vLLM lays them out: a convolution's last inputs (widened by the drafted tokens) and a recurrent matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from heliosd.estimation.fields import Fields

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """Shapes on one rank, and what the recurrent part is kept in when nothing is said."""

    convolution: Shape
    recurrent: Shape = ()
    own_recurrent: str | None = None
    """A dtype that wins over the convolution's: `float32` where sums would lose too much otherwise."""
    checkpoints: int = 0
    """Blocks more in the prefix cache's align mode: what a prefill exports on its way."""

    def bytes(self, convolution_width: int, recurrent_width: int) -> int:
        wide = prod(self.convolution) * convolution_width if self.convolution else 0
        return wide + (prod(self.recurrent) * recurrent_width if self.recurrent else 0)


def state_of(text: Fields, ranks: int, drafted: int = 0) -> State | None:
    """The state of the model's recurrent layers; None when the configuration describes none."""
    for read in (_kda, _delta_net, _mamba2, _mamba1, _short_convolution, _lightning):
        found = read(text, ranks, drafted)
        if found is not None:
            return found
    return None


def _kda(text: Fields, ranks: int, drafted: int) -> State | None:
    """Kimi Delta Attention: three convolutions over the heads, a square matrix for each head, in float32."""
    linear = text.get("linear_attn_config")
    nested = Fields(linear) if isinstance(linear, Mapping) else text
    if not isinstance(linear, Mapping) and text.get("linear_num_heads") is None:
        return None
    heads = nested.whole("num_heads", "linear_num_heads")
    size = nested.whole("head_dim", "linear_head_dim") if isinstance(linear, Mapping) else text.whole("linear_head_dim")
    kernel = nested.whole("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    return State(
        (3 * heads * size // ranks, kernel - 1 + drafted), (heads // ranks, size, size), own_recurrent="float32"
    )


def _delta_net(text: Fields, ranks: int, drafted: int) -> State | None:
    """Gated delta net: Qwen3-Next and its successors."""
    if text.get("linear_num_value_heads") is None:
        return None
    values, keys = text.whole("linear_num_value_heads"), text.whole("linear_num_key_heads")
    value_dim, key_dim = text.whole("linear_value_head_dim"), text.whole("linear_key_head_dim")
    width = 2 * keys * key_dim + values * value_dim
    kernel = text.whole("linear_conv_kernel_dim", default=4)
    named = text.text("mamba_ssm_dtype")
    observed = text.text("mamba_ssm_dtype_observed").split(" ")[0]
    fallback = "float32" if text.model_type.startswith("qwen3_5") else None
    return State(
        (width // ranks, kernel - 1 + drafted),
        (values // ranks, value_dim, key_dim),
        own_recurrent=named or observed or fallback,
    )


def _mamba2(text: Fields, ranks: int, drafted: int) -> State | None:
    heads = text.optional("mamba_n_heads", "mamba_num_heads", "n_mamba_heads")
    if heads is None and text.model_type == "mamba2":
        heads = text.whole("num_heads")
    if heads is None:
        return None
    if text.model_type == "mamba2":
        size = text.whole("head_dim")
    else:
        size = text.whole("mamba_d_head", "mamba_head_dim", "mamba_headdim", default=0) or 64
    groups = text.whole("mamba_n_groups", "n_groups", "mamba_ngroups", default=1)
    states = text.whole("mamba_d_state", "ssm_state_size", "state_size")
    kernel = text.whole("mamba_d_conv", "conv_kernel", default=4)
    inner = text.optional("mamba_d_ssm") or heads * size
    spread = groups if groups % ranks == 0 else groups + ranks - groups
    own = text.text("mamba_ssm_cache_dtype") or ("float32" if text.model_type.startswith("nemotron_h") else None)
    return State(
        ((inner + 2 * spread * states) // ranks, kernel - 1 + drafted),
        (heads // ranks, size, states),
        own_recurrent=own or None,
        checkpoints=1,
    )


def _mamba1(text: Fields, ranks: int, drafted: int) -> State | None:
    """Mamba: the drafted tokens do not widen its convolution."""
    if text.model_type in ("mamba", "falcon_mamba"):
        inner = text.optional("intermediate_size") if text.given("intermediate_size") else None
        inner = inner or text.whole("expand", default=2) * text.whole("hidden_size")
        states, kernel = text.whole("state_size"), text.whole("conv_kernel")
    elif text.get("mamba_d_state") is not None:
        inner = text.whole("mamba_expand", default=2) * text.whole("hidden_size")
        states, kernel = text.whole("mamba_d_state"), text.whole("mamba_d_conv", default=4)
    else:
        return None
    return State((inner // ranks, kernel - 1), (inner // ranks, states))


def _short_convolution(text: Fields, ranks: int, drafted: int) -> State | None:
    """LFM2: one convolution, nothing recurrent."""
    kernel = text.optional("conv_L_cache")
    if kernel is None:
        return None
    width = text.optional("conv_dim") if text.given("conv_dim") else None
    return State(((width or text.whole("hidden_size")) // ranks, kernel - 1))


def _lightning(text: Fields, ranks: int, drafted: int) -> State | None:
    """Lightning attention: a square matrix for each head."""
    heads = text.optional("num_attention_heads")
    if not heads:
        return None
    size = text.optional("head_dim") if text.given("head_dim") else None
    size = size or text.whole("hidden_size") // heads
    return State((heads // ranks, size, size))
