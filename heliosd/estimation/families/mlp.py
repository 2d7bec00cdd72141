"""The feed-forward part of a layer: dense, gated or not, and mixtures of experts.

    mlp("model.layers.{}.mlp", hidden, width)                                         # gate, up, down
    mlp("model.layers.{}.mlp", hidden, width, gated=False, bias=True)                 # up, down
    mixture("model.layers.{}.mlp", hidden, width, count=64)                           # router, routed experts
    mixture(...) + mlp("model.layers.{}.mlp.shared_experts", hidden, 2 * width)       # and two shared ones

Routed experts are one tensor for each projection with `copies` experts, named after the first: `.experts.0.`.
"""

from heliosd.estimation.layout import Kind, Split, Tensor, experts, linear

GATED = ("gate_proj", "up_proj", "down_proj")


def mlp(
    where: str,
    hidden: int,
    width: int,
    *,
    gated: bool = True,
    bias: bool = False,
    down_bias: bool | None = None,
    names: tuple[str, str, str] = GATED,
) -> tuple[Tensor, ...]:
    """Gate and up (width, hidden), down (hidden, width); `names` in that order, the gate's ignored when not gated."""
    gate, up, down = (f"{where}.{name}" for name in names)
    return (
        *(linear(gate, width, hidden, Split.ROWS, bias=bias) if gated else ()),
        *linear(up, width, hidden, Split.ROWS, bias=bias),
        *linear(down, hidden, width, Split.COLUMNS, bias=bias if down_bias is None else down_bias),
    )


def mixture(
    where: str,
    hidden: int,
    width: int,
    count: int,
    *,
    gated: bool = True,
    bias: bool = False,
    router: str = "gate",
    router_bias: bool = False,
    correction: str = "",
    inside: str = "experts.0",
    names: tuple[str, str, str] = GATED,
) -> tuple[Tensor, ...]:
    """A router (count, hidden), kept whole on every rank, and `count` experts of `width`.

    `correction` names a vector added to the router's scores, where it is a parameter. `bias`: each expert's
    projections have one. `router` may be empty when the model routes in its own way.
    """
    made: tuple[Tensor, ...] = ()
    if router:
        made += linear(f"{where}.{router}", count, hidden, bias=router_bias)
    if correction:
        made += (Tensor(f"{where}.{correction}", count),)
    shapes = (
        (names[0], width, hidden, Split.ROWS),
        (names[1], width, hidden, Split.ROWS),
        (names[2], hidden, width, Split.COLUMNS),
    )
    for name, rows, columns, split in shapes if gated else shapes[1:]:
        full = f"{where}.{inside}.{name}" if inside else f"{where}.{name}"
        made += (experts(full, rows, columns, split, count),)
        if bias:
            shared = Split.WHOLE if split is Split.COLUMNS else split
            made += (Tensor(f"{full}.bias", rows, 1, Kind.PLAIN, shared, copies=count),)
    return made
