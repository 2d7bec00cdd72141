"""Text decoders of Gemma 3n and Gemma 4: layers that borrow keys and values, embeddings for each layer, experts
beside the dense network."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import listed
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import Heads, contradiction, heads_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Split, Tensor, linear, norm

ATTEND = f"{LAYER}.self_attn"
SANDWICH = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


def borrowed(fields: Fields, layers: int) -> int:
    """The first layer that uses keys and values of an earlier one."""
    count = fields.whole("num_kv_shared_layers", default=0)
    if count > layers:
        raise contradiction(f"{count} of {layers} layers borrow keys and values", "num_kv_shared_layers")
    return layers - count


def attend(fields: Fields, heads: Heads, borrows: bool, keys_are_values: bool = False) -> tuple[Tensor, ...]:
    """Attention with a norm of each head, without what a borrowing layer or equal keys and values need not."""
    left_out: tuple[str, ...] = ()
    if borrows:
        left_out = (".k_proj.", ".v_proj.", ".k_norm.")
    elif keys_are_values:
        left_out = (".v_proj.",)
    bias = fields.flag("attention_bias")
    made = attention(ATTEND, heads, qkv_bias=bias, out_bias=bias, norm_per_head=True)
    return tuple(tensor for tensor in made if not any(part in tensor.name for part in left_out))


def norms(hidden: int, names: tuple[str, ...] = SANDWICH) -> tuple[Tensor, ...]:
    return tuple(tensor for name in names for tensor in norm(f"{LAYER}.{name}", hidden))


def layer_inputs(fields: Fields, hidden: int) -> tuple[Tensor, ...]:
    """What adds the token's own embedding for this layer."""
    width = fields.whole("hidden_size_per_layer_input", default=0)
    if not width:
        return ()
    return (
        *linear(f"{LAYER}.per_layer_input_gate", width, hidden),
        *linear(f"{LAYER}.per_layer_projection", hidden, width),
        *norm(f"{LAYER}.post_per_layer_input_norm", hidden),
    )


def embeddings_of_layers(fields: Fields, hidden: int, layers: int) -> tuple[Tensor, ...]:
    """A second embedding that has a part for every layer, and the projection that is added to it."""
    width = fields.whole("hidden_size_per_layer_input", default=0)
    if not width:
        return ()
    rows = positive(fields, "vocab_size_per_layer_input")
    return (
        Tensor("model.embed_tokens_per_layer.weight", rows, layers * width, Kind.EMBEDDING, Split.VOCABULARY),
        *linear("model.per_layer_model_projection", layers * width, hidden),
        *norm("model.per_layer_projection_norm", width),
    )


def gemma3n(fields: Fields, head: Head) -> Layout:
    """Several streams that predict and correct each other, a low-rank residual, widths told for each layer."""
    layers, heads = layers_of(fields), heads_of(fields)
    hidden, streams, rank = heads.hidden, positive(fields, "altup_num_inputs"), positive(fields, "laurel_rank")
    start = borrowed(fields, layers)
    told = fields.explicit("intermediate_size")
    widths = told if isinstance(told, list) else [positive(fields, "intermediate_size", default=16_384)] * layers
    if len(widths) < layers or not all(isinstance(one, int) and one > 0 for one in widths):
        raise contradiction("it does not tell the width of each layer", "intermediate_size")

    def layer(kind: tuple[bool, int]) -> tuple[Tensor, ...]:
        mix, low = f"{LAYER}.altup", f"{LAYER}.laurel"
        return (
            *attend(fields, heads, kind[0]),
            *mlp(f"{LAYER}.mlp", hidden, kind[1]),
            *norms(hidden),
            Tensor(f"{mix}.correct_output_scale", hidden),
            *linear(f"{mix}.correction_coefs", streams, streams),
            *linear(f"{mix}.prediction_coefs", streams * streams, streams),
            *linear(f"{mix}.modality_router", streams, hidden),
            *norm(f"{mix}.router_norm", hidden),
            *linear(f"{low}.linear_left", rank, hidden),
            *linear(f"{low}.linear_right", hidden, rank),
            *norm(f"{low}.post_laurel_norm", hidden),
            *layer_inputs(fields, hidden),
        )

    def between(name: str) -> tuple[Tensor, ...]:
        return (Tensor(f"model.{name}.0.weight", hidden, hidden, Kind.LINEAR, copies=streams - 1),)

    return decoder(
        fields, head, [(index >= start, widths[index]) for index in range(layers)], layer,
        also_first=embeddings_of_layers(fields, hidden, layers) + (between("altup_projections") if streams > 1 else ()),
        also_last=between("altup_unembed_projections") if streams > 1 else (),
    )  # fmt: skip


def gemma4(fields: Fields, head: Head, always: bool = False) -> Layout:
    """Full layers with wider heads, fewer of them and keys that serve as values; sliding ones as in Gemma 3. `always`:
    experts and values that are keys are no options of the class.
    """
    layers, sliding = layers_of(fields), heads_of(fields)
    hidden, width, start = sliding.hidden, positive(fields, "intermediate_size"), borrowed(fields, layers)
    told = listed(fields, layers, "layer_types")
    slides = [word == "sliding_attention" for word in told] if told else [bool((i + 1) % 6) for i in range(layers)]
    slides[-1] = False
    equal, wider = always or fields.flag("attention_k_eq_v"), fields.flag("use_double_wide_mlp")
    few = fields.optional("num_global_key_value_heads") if equal else None
    full = replace(sliding, dim=fields.whole("global_head_dim", default=512), kv=sliding.kv if few is None else few)
    experts = always or fields.flag("enable_moe_block")
    own = _own_heads(fields, sliding)

    def layer(kind: tuple[bool, bool, Heads]) -> tuple[Tensor, ...]:
        slide, borrows, heads = kind
        made = (
            *attend(fields, heads, borrows, keys_are_values=equal and not slide),
            *mlp(f"{LAYER}.mlp", hidden, 2 * width if wider and borrows and start > 0 else width),
            *norms(hidden),
            *layer_inputs(fields, hidden),
        )
        return made + beside(fields, hidden) if experts else made

    kinds = [
        (slide, index >= start, sliding if slide else full)
        if own is None
        else (slide, index >= start, own.get(index, sliding))
        for index, slide in enumerate(slides)
    ]
    return decoder(fields, head, kinds, layer, also_first=embeddings_of_layers(fields, hidden, layers))


def _own_heads(fields: Fields, usual: Heads) -> dict[int, Heads] | None:
    """By layer, what `per_layer_config` (how newer releases write it down) says against the usual heads."""
    told = fields.explicit("per_layer_config")
    if not isinstance(told, Mapping):
        return None
    found: dict[int, Heads] = {}
    for name, changes in told.items():
        if not str(name).isdecimal() or len(str(name)) > 8 or not isinstance(changes, Mapping):
            raise contradiction("it does not tell layers by their numbers", "per_layer_config")
        part = Fields(changes)
        found[int(name)] = heads_of(
            fields, dim=positive(part, "head_dim", default=usual.dim),
            kv=positive(part, "num_key_value_heads", default=usual.kv),
        )  # fmt: skip
    return found


def beside(fields: Fields, hidden: int) -> tuple[Tensor, ...]:
    """Gemma 4's experts, beside the dense network, with a router that scales its input and each expert."""
    count, width = positive(fields, "num_experts"), positive(fields, "moe_intermediate_size")
    more = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2")
    return (
        *mixture(LAYER, hidden, width, count, router="router.proj"),
        Tensor(f"{LAYER}.router.scale", hidden),
        Tensor(f"{LAYER}.router.per_expert_scale", count),
        *norms(hidden, more),
    )


def diffusion_gemma(fields: Fields, head: Head) -> Layout:
    """The encoder of Diffusion Gemma, whose class has neither of Gemma 4's options."""
    return gemma4(fields, head, always=True)


FAMILIES: Mapping[str, Family] = {
    "diffusion_gemma_text": diffusion_gemma,
    "gemma3n_text": gemma3n,
    "gemma4_text": gemma4,
    "gemma4_unified_text": gemma4,
}
