"""Which layers of a mixture of experts are dense: the rules that configurations state it by."""

from heliosd.estimation.families.sizes import contradiction
from heliosd.estimation.families.standard import DENSE, SPARSE
from heliosd.estimation.fields import Fields


def listed(fields: Fields, layers: int, *names: str) -> list[str] | None:
    """A list with a word for each layer, under the first of `names` that has one; extra words (of layers that only
    predict further tokens) are left out. None where there is none; raises BadRequest when it is too short."""
    for name in names:
        words = fields.items(name)
        if words and all(isinstance(word, str) for word in words):
            if len(words) < layers:
                raise contradiction(f"{name} names {len(words)} layers of {layers}", name)
            return words[:layers]
    return None


def indices(fields: Fields, name: str) -> frozenset[int]:
    """The layers that a list of numbers names; what is no number in it is left out."""
    return frozenset(one for one in fields.items(name) if isinstance(one, int))


def dense_first(fields: Fields, layers: int, *, default: int = 0) -> list[str]:
    """By `mlp_layer_types`, else the first `first_k_dense_replace` layers are dense and of the others every
    `moe_layer_freq`-th is sparse (or `moe_layer_freq` tells it for each layer)."""
    told = listed(fields, layers, "mlp_layer_types")
    if told is not None:
        return [DENSE if word == DENSE else SPARSE for word in told]
    often = fields.items("moe_layer_freq")
    if often:
        if len(often) < layers:
            raise contradiction(f"moe_layer_freq names {len(often)} layers of {layers}", "moe_layer_freq")
        return [SPARSE if sparse else DENSE for sparse in often[:layers]]
    first = fields.whole("first_k_dense_replace", "num_dense_layers", default=default)
    every = max(1, fields.whole("moe_layer_freq", default=1))
    return [SPARSE if index >= first and index % every == 0 else DENSE for index in range(layers)]


def one_dense(fields: Fields, layers: int) -> list[str]:
    """Like `dense_first`, with one dense layer where nothing is said."""
    return dense_first(fields, layers, default=1)


def stepped(fields: Fields, layers: int) -> list[str]:
    """Every `decoder_sparse_step`-th layer is sparse but those in `mlp_only_layers`."""
    step, dense = max(1, fields.whole("decoder_sparse_step", default=1)), indices(fields, "mlp_only_layers")
    some = fields.whole("num_local_experts", "num_experts", default=0) > 0
    return [SPARSE if some and index not in dense and (index + 1) % step == 0 else DENSE for index in range(layers)]


def between(fields: Fields, layers: int) -> list[str]:
    """Every `moe_layer_interval`-th layer from `moe_layer_start_index` to `moe_layer_end_index` (ERNIE 4.5)."""
    interval = max(1, fields.whole("moe_layer_interval", default=1))
    start, end = _edge(fields, "moe_layer_start_index", 0), _edge(fields, "moe_layer_end_index", -1)
    last = layers - 1 if end < 0 else end
    return [SPARSE if (index + 1) % interval == 0 and start <= index <= last else DENSE for index in range(layers)]


def _edge(fields: Fields, name: str, default: int) -> int:
    """Explicit only: the class derives the end from its own number of layers. Lists (one number for text, one for
    images) count by their extremes."""
    value: object = fields.explicit(name)
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        whole: list[int] = value
        return min(whole) if name.endswith("start_index") else max(whole)
    if value is None and name.endswith("start_index"):
        value = fields.get(name)
    return value if isinstance(value, int) else default
