"""Linear attention by the delta rule: gated delta net and Kimi's finer-gated relative of it.

Shapes after arXiv 2412.06464 (gated delta net) and 2510.26692 (Kimi delta attention). Heads are divided over the
ranks; the engine keeps the decay in float32.
"""

from dataclasses import dataclass

from heliosd.estimation.families.mamba import STATE_DTYPE, convolution
from heliosd.estimation.families.sizes import HEADS, divided, hidden_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm


@dataclass(frozen=True, slots=True)
class Delta:
    """Heads of keys (and queries) and of values, and how wide each is."""

    hidden: int
    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    kernel: int = 4

    @property
    def keys(self) -> int:
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        return self.value_heads * self.value_dim


def delta_of(fields: Fields) -> Delta:
    """From `linear_num_key_heads` and its like. Raises BadRequest when key heads do not divide the value heads."""
    hidden = hidden_of(fields)
    heads = positive(fields, *HEADS)
    silent = fields.model_type == "olmo_hybrid"  # it derives what it does not say from its attention
    key_heads = _said(fields, "linear_num_key_heads", heads if silent else None)
    key_dim = _said(fields, "linear_key_head_dim", int(0.75 * hidden / key_heads) if silent else None)
    value_heads = _said(fields, "linear_num_value_heads", heads if silent else None)
    divided(value_heads, key_heads, "the number of value heads", "linear_num_key_heads")
    return Delta(
        hidden=hidden,
        key_heads=key_heads,
        key_dim=key_dim,
        value_heads=value_heads,
        value_dim=_said(fields, "linear_value_head_dim", 2 * key_dim if silent else None),
        kernel=positive(fields, "linear_conv_kernel_dim", default=4),
    )


def _said(fields: Fields, name: str, derived: int | None) -> int:
    """What the configuration says, else what its class derives, else its class's constant."""
    if derived is not None and fields.explicit(name) is None:
        return derived
    return positive(fields, name)


def fused_delta_net(where: str, sizes: Delta) -> tuple[Tensor, ...]:
    """Qwen3-Next: queries, keys, values and the gate in one matrix, steps and decays in another."""
    return (
        *linear(f"{where}.in_proj_qkvz", 2 * sizes.keys + 2 * sizes.values, sizes.hidden, Split.ROWS),
        *linear(f"{where}.in_proj_ba", 2 * sizes.value_heads, sizes.hidden, Split.ROWS),
        *_rest(where, sizes),
    )


def delta_net(where: str, sizes: Delta) -> tuple[Tensor, ...]:
    """Qwen3.5: the same, in four matrices."""
    return (
        *linear(f"{where}.in_proj_qkv", 2 * sizes.keys + sizes.values, sizes.hidden, Split.ROWS),
        *linear(f"{where}.in_proj_z", sizes.values, sizes.hidden, Split.ROWS),
        *linear(f"{where}.in_proj_b", sizes.value_heads, sizes.hidden, Split.ROWS),
        *linear(f"{where}.in_proj_a", sizes.value_heads, sizes.hidden, Split.ROWS),
        *_rest(where, sizes),
    )


def _rest(where: str, sizes: Delta) -> tuple[Tensor, ...]:
    return (
        *convolution(f"{where}.conv1d", 2 * sizes.keys + sizes.values, sizes.kernel),
        *_decay(where, sizes.value_heads),
        *norm(f"{where}.norm", sizes.value_dim),
        *linear(f"{where}.out_proj", sizes.hidden, sizes.values, Split.COLUMNS),
    )


def separate_delta_net(where: str, sizes: Delta) -> tuple[Tensor, ...]:
    """OLMo: a matrix for each."""
    return (
        *linear(f"{where}.q_proj", sizes.keys, sizes.hidden, Split.ROWS),
        *linear(f"{where}.k_proj", sizes.keys, sizes.hidden, Split.ROWS),
        *linear(f"{where}.v_proj", sizes.values, sizes.hidden, Split.ROWS),
        *linear(f"{where}.a_proj", sizes.value_heads, sizes.hidden, Split.ROWS),
        *linear(f"{where}.b_proj", sizes.value_heads, sizes.hidden, Split.ROWS),
        *linear(f"{where}.g_proj", sizes.values, sizes.hidden, Split.ROWS),
        *convolution(f"{where}.conv1d", 2 * sizes.keys + sizes.values, sizes.kernel),
        *_decay(where, sizes.value_heads),
        *norm(f"{where}.o_norm", sizes.value_dim),
        *linear(f"{where}.o_proj", sizes.hidden, sizes.values, Split.COLUMNS),
    )


def _decay(where: str, heads: int) -> tuple[Tensor, ...]:
    return (
        Tensor(f"{where}.A_log", heads, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        Tensor(f"{where}.dt_bias", heads, 1, Kind.PLAIN, Split.ROWS),
    )


def kimi_delta(
    where: str, hidden: int, heads: int, dim: int, kernel: int, *, full_rank_gate: bool = False
) -> tuple[Tensor, ...]:
    """Kimi: a decay for each channel through a narrow matrix; an output gate, narrow too unless `full_rank_gate`."""
    inner = heads * dim
    if full_rank_gate:
        gate = linear(f"{where}.g_proj", inner, hidden, Split.ROWS)
    else:
        gate = (
            *linear(f"{where}.g_a_proj", dim, hidden),
            *linear(f"{where}.g_b_proj", inner, dim, Split.ROWS),
        )
    return (
        *linear(f"{where}.q_proj", inner, hidden, Split.ROWS),
        *linear(f"{where}.k_proj", inner, hidden, Split.ROWS),
        *linear(f"{where}.v_proj", inner, hidden, Split.ROWS),
        *convolution(f"{where}.conv1d", 3 * inner, kernel, dtype=STATE_DTYPE),
        *linear(f"{where}.f_a_proj", dim, hidden),
        *linear(f"{where}.f_b_proj", inner, dim, Split.ROWS),
        *linear(f"{where}.b_proj", heads, hidden, Split.ROWS),
        Tensor(f"{where}.A_log", heads, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        Tensor(f"{where}.dt_bias", inner, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        *gate,
        *norm(f"{where}.o_norm", dim),
        *linear(f"{where}.o_proj", hidden, inner, Split.COLUMNS),
    )
