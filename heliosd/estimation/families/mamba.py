"""Selective state spaces: the mixers of Mamba and Mamba 2, as every hybrid embeds them.

    mamba1("model.layers.{}.mamba", hidden, Mamba1(inner=8192, state=16, rank=256))
    mamba2("model.layers.{}.mamba", hidden, Mamba2(inner=8192, heads=128, state=256, groups=1))

Shapes after arXiv 2312.00752 and 2405.21060. The engine keeps the decay `A` in float32 and divides channels and heads
over the ranks; the input and output matrices of the state (`B`, `C`) follow their groups, of which every rank has at
least one. What the checkpoint stores as one matrix but ranks share by different rules comes as several tensors of one
name.
"""

import math
from dataclasses import dataclass

from heliosd.estimation.families.sizes import contradiction, divided, hidden_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm

STATE_DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class Mamba1:
    """`inner` channels, each with a state of `state`; steps through a matrix of rank `rank`."""

    inner: int
    state: int
    rank: int
    kernel: int = 4
    conv_bias: bool = True
    bias: bool = False
    normed: bool = False
    """Norms of step, B and C: Jamba."""


@dataclass(frozen=True, slots=True)
class Mamba2:
    """`heads` share `inner` channels; `groups` of heads share B and C."""

    inner: int
    heads: int
    state: int
    groups: int
    kernel: int = 4
    conv_bias: bool = True
    in_bias: bool = False
    out_bias: bool = False
    normed: bool = True


def mamba1(where: str, hidden: int, sizes: Mamba1) -> tuple[Tensor, ...]:
    """The tensors of one mixer below `where`."""
    norms: tuple[Tensor, ...] = ()
    if sizes.normed:
        norms = (
            *norm(f"{where}.dt_layernorm", sizes.rank),
            *norm(f"{where}.b_layernorm", sizes.state),
            *norm(f"{where}.c_layernorm", sizes.state),
        )
    return (
        *linear(f"{where}.in_proj", 2 * sizes.inner, hidden, Split.ROWS, bias=sizes.bias),
        *convolution(f"{where}.conv1d", sizes.inner, sizes.kernel, bias=sizes.conv_bias),
        *linear(f"{where}.x_proj", sizes.rank + 2 * sizes.state, sizes.inner, Split.COLUMNS),
        *linear(f"{where}.dt_proj", sizes.inner, sizes.rank, Split.ROWS, bias=True),
        Tensor(f"{where}.A_log", sizes.inner, sizes.state, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        Tensor(f"{where}.D", sizes.inner, 1, Kind.PLAIN, Split.ROWS),
        *linear(f"{where}.out_proj", hidden, sizes.inner, Split.COLUMNS, bias=sizes.bias),
        *norms,
    )


def mamba2(where: str, hidden: int, sizes: Mamba2) -> tuple[Tensor, ...]:
    """The tensors of one mixer below `where`."""
    shared = 2 * sizes.groups * sizes.state
    return (
        *linear(f"{where}.in_proj", 2 * sizes.inner + sizes.heads, hidden, Split.ROWS, bias=sizes.in_bias),
        *linear(f"{where}.in_proj", shared, hidden, Split.HEADS, bias=sizes.in_bias, heads=sizes.groups),
        *convolution(f"{where}.conv1d", sizes.inner, sizes.kernel, bias=sizes.conv_bias),
        *convolution(f"{where}.conv1d", shared, sizes.kernel, bias=sizes.conv_bias, groups=sizes.groups),
        Tensor(f"{where}.A_log", sizes.heads, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        Tensor(f"{where}.D", sizes.heads, 1, Kind.PLAIN, Split.ROWS),
        Tensor(f"{where}.dt_bias", sizes.heads, 1, Kind.PLAIN, Split.ROWS),
        *((Tensor(f"{where}.norm.weight", sizes.inner, 1, Kind.PLAIN, Split.ROWS),) if sizes.normed else ()),
        *linear(f"{where}.out_proj", hidden, sizes.inner, Split.COLUMNS, bias=sizes.out_bias),
    )


def convolution(
    name: str, channels: int, kernel: int, *, bias: bool = False, groups: int = 0, dtype: str | None = None
) -> tuple[Tensor, ...]:
    """A depthwise convolution over time: divided by channels, by `groups` of them where given."""
    split = Split.HEADS if groups else Split.ROWS
    weight = Tensor(f"{name}.weight", channels, kernel, Kind.PLAIN, split, heads=groups, dtype=dtype)
    if not bias:
        return (weight,)
    return weight, Tensor(f"{name}.bias", channels, 1, Kind.PLAIN, split, heads=groups, dtype=dtype)


def mamba1_of(fields: Fields) -> Mamba1:
    """From the fields of Mamba (`state_size`, `expand`, ...) or of hybrids (`mamba_d_state`, `mamba_expand`, ...)."""
    hidden = hidden_of(fields)
    expanded = positive(fields, "mamba_expand", "expand", "expand_factor", default=2) * hidden
    own = fields.model_type in ("mamba", "falcon_mamba")
    inner = fields.explicit("intermediate_size", "d_inner") if own else None
    rank = fields.explicit("mamba_dt_rank", "time_step_rank")
    return Mamba1(
        inner=expanded if inner is None else positive(fields, "intermediate_size", "d_inner"),
        state=positive(fields, "mamba_d_state", "state_size", default=16),
        rank=math.ceil(hidden / 16) if rank in (None, "auto") else positive(fields, "mamba_dt_rank", "time_step_rank"),
        kernel=positive(fields, "mamba_d_conv", "conv_kernel", default=4),
        conv_bias=fields.flag("mamba_conv_bias", "use_conv_bias", default=True),
        bias=fields.flag("mamba_proj_bias", "use_bias"),
    )


def mamba2_of(fields: Fields) -> Mamba2:
    """From the fields of Mamba 2, Bamba, Falcon H1, Granite 4, Nemotron H or Zamba 2, whichever are there.

    Raises BadRequest when the heads do not fill the channels.
    """
    hidden = hidden_of(fields)
    heads_names = ("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
    heads = positive(fields, *heads_names)
    width = fields.explicit("mamba_d_head", "mamba_head_dim", "head_dim" if fields.model_type == "mamba2" else "")
    inner = positive(fields, "mamba_expand", "expand", default=2) * hidden
    if fields.explicit("mamba_d_ssm") is not None:
        inner = positive(fields, "mamba_d_ssm")
    elif fields.model_type == "falcon_h1" and not fields.given("mamba_d_ssm"):
        inner = positive(fields, "mamba_d_ssm", default=inner)
    elif fields.model_type == "nemotron_h":
        inner = heads * positive(fields, "mamba_head_dim")
    each = divided(
        inner, heads, "the width of the state space", next(filter(fields.given, heads_names), heads_names[0])
    )
    if isinstance(width, int) and width != each:
        raise contradiction(f"{heads} heads of {width} do not fill {inner} channels", heads_names[0])
    groups = positive(fields, "mamba_n_groups", "n_groups", "mamba_ngroups", default=1)
    divided(heads, groups, "the number of heads", "mamba_n_groups")
    return Mamba2(
        inner=inner,
        heads=heads,
        state=positive(fields, "mamba_d_state", "ssm_state_size", "state_size"),
        groups=groups,
        kernel=positive(fields, "mamba_d_conv", "conv_kernel", default=4),
        conv_bias=fields.flag("mamba_conv_bias", "use_conv_bias", default=True),
        in_bias=fields.flag("mamba_proj_bias", "use_bias", "add_bias_linear"),
        out_bias=fields.flag("mamba_proj_bias", "use_bias", "add_bias_linear"),
    )
