"""Building blocks of encoders of images and sounds: attention, feed-forward, convolutions and their repetition.

Everything lies on the first pipeline stage. Matrices are `Kind.LINEAR` and divided over ranks like a decoder's; that
most quantizations leave them out is said by their names.
"""

from collections.abc import Iterable

from heliosd.estimation.families.sizes import MOST_LAYERS, contradiction, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm

Tensors = tuple[Tensor, ...]
LARGEST_KERNEL = 2**16
_SEPARATE = ("q_proj", "k_proj", "v_proj", "out_proj")


def repeated(count: int, *groups: Iterable[Tensor]) -> Tensors:
    """`count` layers of these tensors, whose names say `{}` for the layer."""
    if not count:
        return ()
    return tuple(tensor.repeated(count) for group in groups for tensor in group)


def weights(name: str, rows: int, columns: int = 1) -> Tensor:
    """A parameter that is no projection: a position table, a query, a scale."""
    return Tensor(name, rows, columns)


def layer_norm(name: str, size: int) -> Tensors:
    """With a scale and a shift."""
    return norm(name, size, bias=True)


def convolution(name: str, channels: int, inputs: int, kernel: int, *, bias: bool = True) -> Tensors:
    """`channels` filters over `inputs` channels times `kernel` taps."""
    filters = Tensor(f"{name}.weight", channels, inputs * kernel)
    return (filters, Tensor(f"{name}.bias", channels)) if bias else (filters,)


def attention(
    name: str,
    width: int,
    *,
    inner: int | None = None,
    shared: int | None = None,
    source: int | None = None,
    names: tuple[str, str, str, str] = _SEPARATE,
    bias: bool = True,
    key_bias: bool | None = None,
    out_bias: bool | None = None,
) -> Tensors:
    """Separate projections of queries, keys, values and output.

    `inner`: all heads together (as wide as the layer); `shared`: all key-value heads together (`inner`); `source`:
    width of what keys and values are made of (the layer's own).
    """
    inner = width if inner is None else inner
    shared = inner if shared is None else shared
    source = width if source is None else source
    query, key, value, out = (f"{name}.{part}" for part in names)
    return (
        *linear(query, inner, width, Split.ROWS, bias=bias),
        *linear(key, shared, source, Split.ROWS, bias=bias if key_bias is None else key_bias),
        *linear(value, shared, source, Split.ROWS, bias=bias),
        *linear(out, width, inner, Split.COLUMNS, bias=bias if out_bias is None else out_bias),
    )


def fused_attention(
    name: str,
    width: int,
    *,
    rows: int | None = None,
    names: tuple[str, str] = ("qkv", "proj"),
    bias: bool = True,
    out_bias: bool | None = None,
) -> Tensors:
    """Queries, keys and values in one projection of `rows` (three times the width)."""
    return (
        *linear(f"{name}.{names[0]}", 3 * width if rows is None else rows, width, Split.ROWS, bias=bias),
        *linear(f"{name}.{names[1]}", width, width, Split.COLUMNS, bias=bias if out_bias is None else out_bias),
    )


def feed_forward(
    name: str,
    width: int,
    inner: int,
    *,
    names: tuple[str, str] = ("fc1", "fc2"),
    out: int | None = None,
    bias: bool = True,
) -> Tensors:
    """Up, a nonlinearity, down again (to `out`)."""
    return (
        *linear(f"{name}.{names[0]}", inner, width, Split.ROWS, bias=bias),
        *linear(f"{name}.{names[1]}", width if out is None else out, inner, Split.COLUMNS, bias=bias),
    )


def gated(
    name: str,
    width: int,
    inner: int,
    *,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    out: int | None = None,
    bias: bool = False,
) -> Tensors:
    """Up twice, one the gate of the other, down (to `out`)."""
    return (
        *linear(f"{name}.{names[0]}", inner, width, Split.ROWS, bias=bias),
        *linear(f"{name}.{names[1]}", inner, width, Split.ROWS, bias=bias),
        *linear(f"{name}.{names[2]}", width if out is None else out, inner, Split.COLUMNS, bias=bias),
    )


def joint_attention(name: str, width: int) -> Tensors:
    """One matrix for queries, keys and values as `torch.nn.MultiheadAttention` names it."""
    return (
        Tensor(f"{name}.in_proj_weight", 3 * width, width, Kind.LINEAR, Split.ROWS),
        Tensor(f"{name}.in_proj_bias", 3 * width, 1, Kind.PLAIN, Split.ROWS),
        *linear(f"{name}.out_proj", width, width, Split.COLUMNS, bias=True),
    )


def table(name: str, rows: int, columns: int) -> Tensor:
    """Looked up by token."""
    return Tensor(f"{name}.weight", rows, columns, Kind.EMBEDDING)


def side(fields: Fields, *names: str, default: int | None = None) -> int:
    """The length of a square, of which some configurations give both sides as a list."""
    value = fields.get(*names)
    if isinstance(value, list | tuple) and value:
        return positive(Fields({names[0]: value[0]}), names[0])
    return positive(fields, *names, default=default)


def width_of(fields: Fields, *, default: int | None = None) -> int:
    """The tower's own width, before any merging of patches."""
    return positive(fields, "hidden_size", "embed_dim", "d_model", default=default)


def depth_of(fields: Fields, *names: str, default: int | None = None) -> int:
    """How many layers a tower has; none is possible."""
    names = names or ("num_hidden_layers", "depth", "encoder_layers", "num_layers")
    count = fields.whole(*names, default=default)
    if count > MOST_LAYERS:
        raise contradiction(f"{count} layers is more than any model has ({MOST_LAYERS})", names[0])
    return count


def patches(fields: Fields, *, size: int | None = None, patch: int | None = None) -> int:
    """How many patches an image has: (`image_size` / `patch_size`) squared, a rest of pixels ignored."""
    image = side(fields, "image_size", default=size)
    across = image // side(fields, "patch_size", default=patch)
    if across < 1:
        raise contradiction("an image is smaller than a patch", "image_size")
    return across * across


def kernel(fields: Fields, *, patch: int | None = None) -> int:
    """Taps of the patch embedding in one channel."""
    across = side(fields, "patch_size", default=patch)
    if across > LARGEST_KERNEL:
        raise contradiction(f"a patch of {across} pixels is absurd", "patch_size")
    return across * across
