"""Decoders that are published only inside a model that sees or hears."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import dense_first, listed, one_dense
from heliosd.estimation.families.dense import FUSED_GATE, PLAIN
from heliosd.estimation.families.drafts import drafts_of, next_token
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.latent import norms
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import Heads, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.families.sparse import GLM
from heliosd.estimation.families.standard import DENSE, SPARSE, Standard
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear

FULL = "full_attention"
SLIDING = "sliding_attention"
_CONDITION = 32
"""Inner width of the network that scales a layer of Voxtral Realtime by the delay."""
_RESERVED = 8
"""Tokens that Llama 3.2's embedding has beyond its vocabulary, for images."""
_GLM_NORMS = ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm")
_AROUND = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
GLM4V = Standard(qkv_bias=True, out_bias=False, mlp_bias=False, mlp_names=FUSED_GATE, norms=_GLM_NORMS)
GLM_OCR = replace(GLM4V, qkv_bias=False)


def uneven_heads(fields: Fields) -> Heads:
    """Heads whose width is the hidden size divided by their number, rounded down, where it is not told."""
    told = fields.explicit("head_dim") is not None
    return heads_of(fields, dim=None if told else max(1, hidden_of(fields) // positive(fields, "num_attention_heads")))


def glm4v_moe(fields: Fields, head: Head) -> Layout:
    """GLM-4.5V: GLM-4.5 without norms of queries and keys."""
    return replace(GLM, sizes=uneven_heads)(fields, head)


def ernie_vl(fields: Fields, head: Head) -> Layout:
    """ERNIE 4.5-VL: text and images have experts of their own, of different widths, and share some."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    widths = _pair(fields, "moe_intermediate_size", [1536, 512])
    counts = _pair(fields, "moe_num_experts", [64])
    style = Standard(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias")
    heads = heads_of(fields)
    together = widths[0] * fields.whole("moe_num_shared_experts", default=2)
    bias = fields.flag("use_bias")

    def layer(kind: str) -> tuple[Tensor, ...]:
        where = f"{LAYER}.mlp"
        if kind == DENSE:
            made = style.feed(fields, DENSE)
        else:
            parts = (("text_moe", widths[0], counts[0]), ("vision_moe", widths[-1], counts[-1]))
            made = tuple(
                tensor
                for part, width, count in parts
                for tensor in mixture(
                    f"{where}.{part}", hidden, width, count, correction="gate.moe_statics.e_score_correction_bias"
                )
            )
            made += mlp(f"{where}.shared_experts", hidden, together, bias=bias) if together else ()
        return style.attend(fields, heads) + made + norms(fields)

    return decoder(fields, head, one_dense(fields, layers), layer)


def cosmos_edge(fields: Fields, head: Head) -> Layout:
    """Llama without gates."""
    return Standard(gated=False, mlp_names=("", "fc1", "fc2"))(fields, head)


def muse(fields: Fields, head: Head) -> Layout:
    """Gated attention, four norms around each layer."""

    def gate(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        heads = heads_of(fields)
        return linear(f"{layer}.self_attn.gate_proj", heads.query * heads.dim, heads.hidden, Split.ROWS)

    return Standard(mlp_bias=False, norms=_AROUND, extra=gate)(fields, head)


def voxtral_realtime(fields: Fields, head: Head) -> Layout:
    """Mistral, each layer scaled by how far it lags behind the sound."""

    def condition(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        hidden = hidden_of(fields)
        return (
            *linear(f"{layer}.ada_rms_norm.linear1", _CONDITION, hidden),
            *linear(f"{layer}.ada_rms_norm.linear2", hidden, _CONDITION),
        )

    return replace(PLAIN, extra=condition)(fields, head)


def step(fields: Fields, head: Head) -> Layout:
    """Step 3.5: heads are gated, and sliding layers may have another number of them."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    usual = heads_of(fields)
    other = fields.get("attention_other_setting")
    said = Fields(other).optional("num_attention_heads") if isinstance(other, Mapping) else None
    sliding = replace(usual, query=positive(fields, "num_sliding_attention_heads", default=said or usual.query))
    width = positive(fields, "moe_intermediate_size")
    count = positive(fields, "n_routed_experts", "moe_num_experts", "num_experts")
    bias = fields.flag("attention_bias")
    per_head = fields.get("gating") in (None, True, "per-head")

    def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
        heads = sliding if kind[0] == SLIDING else usual
        where = f"{LAYER}.self_attn"
        made = attention(where, heads, qkv_bias=bias, out_bias=bias, norm_per_head=True)
        made += linear(f"{where}.g_proj", heads.query * (1 if per_head else heads.dim), hidden, Split.ROWS)
        if kind[1] == SPARSE:
            made += mixture(f"{LAYER}.mlp", hidden, width, count)
            made += mlp(f"{LAYER}.mlp.shared_experts", hidden, positive(fields, "share_expert_dim", default=width))
        else:
            made += mlp(f"{LAYER}.mlp", hidden, positive(fields, "intermediate_size"), bias=fields.flag("mlp_bias"))
        return made + norms(fields)

    types = listed(fields, layers, "layer_types") or [FULL] * layers
    kinds = [(SLIDING if word == SLIDING else FULL) for word in types]
    count_of_drafts = drafts_of(fields)
    drafts = next_token(layers, count_of_drafts, hidden, layer((SLIDING, DENSE))) if count_of_drafts else ()
    return decoder(fields, head, list(zip(kinds, _step_feeds(fields, layers), strict=True)), layer, drafts=drafts)


def mllama_text(fields: Fields, head: Head) -> Layout:
    """Llama 3.2 Vision: `cross_attention_layers` attend to the image instead of the text, gated."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    across = {index for index in fields.items("cross_attention_layers") if isinstance(index, int)}
    heads = heads_of(fields)

    def layer(kind: str) -> tuple[Tensor, ...]:
        if kind == "cross":
            made = attention(f"{LAYER}.cross_attn", heads, norm_per_head=True)
            made += (Tensor(f"{LAYER}.cross_attn_attn_gate", 1), Tensor(f"{LAYER}.cross_attn_mlp_gate", 1))
        else:
            made = attention(f"{LAYER}.self_attn", heads)
        return made + mlp(f"{LAYER}.mlp", hidden, positive(fields, "intermediate_size")) + norms(fields)

    kinds = ["cross" if index in across else "self" for index in range(layers)]
    layout = decoder(fields, head, kinds, layer)
    embedding, *rest = layout.first
    return replace(layout, first=(replace(embedding, rows=embedding.rows + _RESERVED), *rest))


def _pair(fields: Fields, name: str, default: list[int]) -> list[int]:
    """One number for text and one for images, or one for both."""
    value = fields.get(name)
    several = value if isinstance(value, list) and value else [value] if value is not None else default
    return [positive(Fields({name: one}), name) for one in several]


def _step_feeds(fields: Fields, layers: int) -> list[str]:
    """`moe_layers_enum` lists the sparse layers with commas between them."""
    enumerated = fields.get("moe_layers_enum")
    if isinstance(enumerated, str) and not fields.items("mlp_layer_types"):
        sparse = {int(word) for word in enumerated.split(",") if word.strip().isdecimal() and len(word) < 8}
        return [SPARSE if index in sparse else DENSE for index in range(layers)]
    return dense_first(fields, layers, default=3)


FAMILIES: Mapping[str, Family] = {
    "cosmos3_edge_text": cosmos_edge,
    "ernie4_5_vl_moe_text": ernie_vl,
    "glm4v_moe_text": glm4v_moe,
    "glm4v_text": GLM4V,
    "glm_ocr_text": GLM_OCR,
    "mllama_text_model": mllama_text,
    "muse_glimmer_text": muse,
    "step3p5": step,
    "voxtral_realtime_text": voxtral_realtime,
}
