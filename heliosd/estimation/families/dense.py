"""Dense decoders in the shape of Llama: one entry each, told by its differences."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import HEADS as QUERIES
from heliosd.estimation.families.sizes import WIDTH, head_dim_of, heads_of, hidden_of, positive
from heliosd.estimation.families.standard import Standard
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Layout, Split, Tensor, linear, norm

SANDWICH = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
FUSED_QKV = ("qkv_proj", "qkv_proj", "qkv_proj", "o_proj")
FUSED_GATE = ("gate_up_proj", "gate_up_proj", "down_proj")
UP_DOWN = ("", "fc1", "fc2")

PLAIN = Standard(qkv_bias=False, out_bias=False, mlp_bias=False)
LLAMA = Standard()
ATTENTION_ONLY_BIAS = Standard(mlp_bias=False)
QWEN2 = Standard(qkv_bias=True, out_bias=False, mlp_bias=False)
QWEN3 = Standard(mlp_bias=False, qk_norm="head")


def _alphas(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
    """The learned activation of Apertus: two numbers in each layer."""
    learned = fields.text("hidden_act", default="xielu") == "xielu"
    return (Tensor(f"{layer}.mlp.act_fn.alpha_p", 1), Tensor(f"{layer}.mlp.act_fn.alpha_n", 1)) if learned else ()


def _inner_norms(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
    """Norms before the output and the down projection (BitNet)."""
    width = positive(fields, *WIDTH)
    return norm(f"{layer}.self_attn.attn_sub_norm", hidden_of(fields)) + norm(f"{layer}.mlp.ffn_sub_norm", width)


def _lambdas(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
    """The weights of the second attention map that is subtracted (Diff-Llama)."""
    dim = head_dim_of(fields, hidden_of(fields), positive(fields, *QUERIES))
    return tuple(Tensor(f"{layer}.self_attn.lambda_{name}", dim) for name in ("q1", "k1", "q2", "k2"))


def _second_norms(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
    hidden = hidden_of(fields)
    told = fields.flag("use_post_norm", default=True)
    return norm(f"{layer}.post_norm1", hidden) + norm(f"{layer}.post_norm2", hidden) if told else ()


def _glm_mlp(fields: Fields, head: Head) -> Layout:
    return Standard(out_bias=False, mlp_bias=False, mlp_names=FUSED_GATE)(fields, head)


def cohere(fields: Fields, head: Head) -> Layout:
    """One norm for the attention and the feed-forward part, which run side by side; scales for each head."""
    heads = heads_of(fields)

    def scales(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        if not fields.flag("use_qk_norm"):
            return ()
        return (
            Tensor(f"{layer}.self_attn.q_norm.weight", heads.query, heads.dim, split=Split.ROWS),
            Tensor(f"{layer}.self_attn.k_norm.weight", heads.kv, heads.dim, split=Split.HEADS, heads=heads.kv),
        )

    return Standard(mlp_bias=False, norms=("input_layernorm",), extra=scales)(fields, head)


def doge(fields: Fields, head: Head) -> Layout:
    """A learned mask of the values, and residuals that are scaled."""
    heads = heads_of(fields)

    def more(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        hidden, where = heads.hidden, f"{layer}.self_attn"
        made = (
            Tensor(f"{where}.A", heads.kv, split=Split.HEADS, heads=heads.kv),
            *linear(f"{where}.dt_proj", heads.kv, heads.kv * heads.dim, bias=fields.flag("attention_bias")),
            Tensor(f"{layer}.input_residual", hidden),
            Tensor(f"{layer}.post_attention_residual", hidden),
        )
        if fields.flag("is_moe"):
            count = positive(fields, "num_experts")
            made += linear(f"{layer}.mlp.router_gate", 2 * int(count**0.5), hidden)
            made += tuple(Tensor(f"{layer}.mlp.{name}.weight", count, hidden) for name in ("down_embed", "up_embed"))
        return made

    return Standard(qk_norm="head", extra=more)(fields, head)


def helium(fields: Fields, head: Head) -> Layout:
    """Its output projection is square, however wide the heads are."""
    layout = Standard(out_bias=False)(fields, head)
    hidden = hidden_of(fields)

    def squared(tensor: Tensor) -> Tensor:
        return replace(tensor, columns=hidden) if ".o_proj." in tensor.name else tensor

    made = tuple(Block(block.layers, tuple(map(squared, block.tensors))) for block in layout.blocks)
    return replace(layout, blocks=made)


def persimmon(fields: Fields, head: Head) -> Layout:
    """Fused queries, keys and values, norms of one head's width with shifts (also the decoder of Fuyu)."""

    def scales(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        if not fields.flag("qk_layernorm", default=True):
            return ()
        dim, where = heads_of(fields).dim, f"{layer}.self_attn"
        return norm(f"{where}.q_layernorm", dim, bias=True) + norm(f"{where}.k_layernorm", dim, bias=True)

    style = Standard(
        qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True, final="final_layernorm",
        attention_names=("query_key_value", "query_key_value", "query_key_value", "dense"),
        mlp_names=("", "dense_h_to_4h", "dense_4h_to_h"), extra=scales,
    )  # fmt: skip
    return style(fields, head)


def phi(fields: Fields, head: Head) -> Layout:
    """Phi 1 to 2: attention and feed-forward side by side after one norm, biases everywhere."""

    def scales(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        if not fields.flag("qk_layernorm"):
            return ()
        dim, where = heads_of(fields).dim, f"{layer}.self_attn"
        return norm(f"{where}.q_layernorm", dim, bias=True) + norm(f"{where}.k_layernorm", dim, bias=True)

    style = Standard(
        qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True, final="final_layernorm",
        attention_names=("q_proj", "k_proj", "v_proj", "dense"), mlp_names=UP_DOWN, norms=("input_layernorm",),
        output_bias=True, extra=scales,
    )  # fmt: skip
    return style(fields, head)


def stablelm(fields: Fields, head: Head) -> Layout:
    """Norms with shifts; one norm less where the residuals run side by side; a norm for each head when asked."""
    heads = heads_of(fields)

    def scales(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
        if not fields.flag("qk_layernorm"):
            return ()
        where = f"{layer}.self_attn"
        return (
            Tensor(f"{where}.q_layernorm.norms.0.weight", heads.dim, copies=heads.query),
            Tensor(f"{where}.k_layernorm.norms.0.weight", heads.dim, copies=heads.kv),
        )

    one = ("input_layernorm",)
    style = Standard(
        qkv_bias="use_qkv_bias", out_bias=False, mlp_bias=False, norm_bias=True, extra=scales,
        norms=one if fields.flag("use_parallel_residual") else (*one, "post_attention_layernorm"),
    )  # fmt: skip
    return style(fields, head)


FAMILIES: Mapping[str, Family] = {
    "apertus": Standard(
        mlp_bias=False,
        gated=False,
        qk_norm="head",
        norms=("attention_layernorm", "feedforward_layernorm"),
        extra=_alphas,
    ),
    "arcee": Standard(gated=False),
    "bitnet": Standard(mlp_bias=False, extra=_inner_norms),
    "cohere": cohere,
    "cohere2": Standard(mlp_bias=False, norms=("input_layernorm",)),
    "cwm": Standard(qkv_bias=False, out_bias=False),
    "diffllama": Standard(mlp_bias=False, extra=_lambdas),
    "doge": doge,
    "ernie4_5": Standard(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "exaone4": Standard(qkv_bias=False, out_bias=False, mlp_bias=False, qk_norm="head", norms=AFTER),
    "gemma": ATTENTION_ONLY_BIAS,
    "gemma2": Standard(mlp_bias=False, norms=SANDWICH),
    "gemma3_text": Standard(mlp_bias=False, qk_norm="head", norms=SANDWICH),
    "glm": _glm_mlp,
    "glm4": Standard(
        out_bias=False,
        mlp_bias=False,
        mlp_names=FUSED_GATE,
        norms=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "granite": LLAMA,
    "granite_swa": Standard(sinks=True),
    "helium": helium,
    "hunyuan_v1_dense": Standard(mlp_bias=False, qk_norm="head", qk_norm_names=("query_layernorm", "key_layernorm")),
    "hyperclovax": Standard(extra=_second_norms),
    "jais2": Standard(gated=False, norm_bias=True),
    "llama": LLAMA,
    "ministral": PLAIN,
    "ministral3": PLAIN,
    "mistral": PLAIN,
    "nanochat": Standard(mlp_bias=False, gated=False, norms=(), final="", mlp_names=UP_DOWN),
    "nemotron": Standard(gated=False, norm_bias=True),
    "olmo": Standard(mlp_bias=False, norms=(), final=""),
    "olmo2": Standard(mlp_bias=False, qk_norm="whole", norms=AFTER),
    "olmo3": Standard(mlp_bias=False, qk_norm="whole", norms=AFTER),
    "persimmon": persimmon,
    "phi": phi,
    "phi3": Standard(qkv_bias=False, out_bias=False, mlp_bias=False, attention_names=FUSED_QKV, mlp_names=FUSED_GATE),
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "seed_oss": Standard(out_bias="attention_out_bias"),
    "smollm3": LLAMA,
    "stablelm": stablelm,
    "starcoder2": Standard(
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        gated=False,
        norm_bias=True,
        mlp_names=("", "c_fc", "c_proj"),
    ),
    "vaultgemma": Standard(mlp_bias=False, norms=("input_layernorm", "pre_feedforward_layernorm")),
}
