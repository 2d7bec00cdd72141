"""Nemotron H: layers of one part each (state space, attention, experts or a plain network), in a pattern of letters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from heliosd.estimation.families.assembly import decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.drafts import drafts_of
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba import mamba2, mamba2_of
from heliosd.estimation.families.mamba_hybrids import FULL, STATE, told
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import MOST_LAYERS, contradiction, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

EXPERTS = "moe"
PLAIN = "mlp"
_LETTERS = {"M": STATE, "E": EXPERTS, "*": FULL, "-": PLAIN}
_COUNTED = {"mamba2": STATE, "mamba": STATE, "moe": EXPERTS, "attention": FULL, "mlp": PLAIN}
WHERE = "backbone.layers.{}"


def _family(fields: Fields, head: Head) -> Layout:
    kinds = _kinds(fields)
    hidden = hidden_of(fields)

    def layer(kind: str) -> tuple[Tensor, ...]:
        return _layer(fields, WHERE, kind)

    return decoder(
        fields, head, kinds, layer, prefix="backbone.", embedding="embeddings",
        final=norm("backbone.norm_f", hidden), drafts=_drafts(fields),
    )  # fmt: skip


def _kinds(fields: Fields) -> Sequence[str]:
    """By `hybrid_override_pattern`, a list of layers, or counts of each kind; else the class's four layers.

    Raises BadRequest for a letter that is none, and when only a number of layers is given: there is no rule then.
    """
    pattern = fields.text("hybrid_override_pattern")
    if pattern:
        return _lettered(pattern, "hybrid_override_pattern")
    words = [word for word in fields.items("layers_block_type", "layer_types") if isinstance(word, str)]
    if words:
        return told(fields, len(words)) or words
    counts = fields.get("layer_counts")
    if isinstance(counts, Mapping):
        told_counts = Fields(counts)
        return [kind for word, kind in _COUNTED.items() if told_counts.given(word)
                for _ in range(layers_of(told_counts, word))]  # fmt: skip
    if fields.explicit("num_hidden_layers") is not None and layers_of(fields) != 4:
        raise contradiction(
            f"it has {layers_of(fields)} layers and no pattern that says of which kind", "hybrid_override_pattern"
        )
    return [STATE, EXPERTS, FULL, PLAIN]


def _lettered(pattern: str, name: str) -> list[str]:
    letters = pattern.replace("|", "")
    if len(letters) > MOST_LAYERS:
        raise contradiction(f"{name} has {len(letters)} layers, more than any model ({MOST_LAYERS})", name)
    strange = sorted(set(letters) - _LETTERS.keys())
    if strange:
        raise contradiction(f"{name} has the letter {strange[0]!r}; known are M, E, * and -", name)
    return [_LETTERS[letter] for letter in letters]


def _layer(fields: Fields, where: str, kind: str) -> tuple[Tensor, ...]:
    hidden, mixer = hidden_of(fields), f"{where}.mixer"
    if kind == STATE:
        bias = fields.flag("use_bias")  # `mamba_proj_bias` is in the configuration and read by nobody
        inside = mamba2(mixer, hidden, replace(mamba2_of(fields), in_bias=bias, out_bias=bias))
    elif kind == FULL:
        inside = attention(mixer, heads_of(fields))
    elif kind == EXPERTS:
        inside = _experts(fields, mixer)
    elif kind == PLAIN:
        width, bias = positive(fields, "intermediate_size"), fields.flag("mlp_bias")
        inside = mlp(mixer, hidden, width, gated=False, bias=bias)
    else:
        raise contradiction(f"a layer is {kind[:40]!r}, which is no kind of layer", "layers_block_type")
    return (*norm(f"{where}.norm", hidden), *inside)


def _experts(fields: Fields, where: str) -> tuple[Tensor, ...]:
    """Experts without gates, on the hidden state or on a narrower projection of it; shared ones beside."""
    hidden, narrow = hidden_of(fields), fields.whole("moe_latent_size", default=0)
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "n_routed_experts")
    shared = fields.whole("moe_shared_expert_intermediate_size", default=0)
    bias = fields.flag("mlp_bias")
    made = linear(f"{where}.gate", count, hidden)
    if narrow:
        made += linear(f"{where}.fc1_latent_proj", narrow, hidden, bias=bias)
        made += linear(f"{where}.fc2_latent_proj", hidden, narrow, bias=bias)
    made += mixture(where, narrow or hidden, width, count, gated=False, router="")
    if shared:
        made += mlp(f"{where}.shared_experts", hidden, shared, gated=False, bias=bias)
    return made


def _drafts(fields: Fields) -> tuple[Tensor, ...]:
    """For each step ahead the layers of its own pattern; the first of them joins the embedding to the hidden state."""
    steps = drafts_of(fields)
    if not steps:
        return ()
    hidden = hidden_of(fields)
    pattern = fields.text("mtp_hybrid_override_pattern")
    words = [word for word in fields.items("mtp_layers_block_type") if isinstance(word, str)]
    kinds: Iterable[str] = (FULL, EXPERTS)
    if pattern:
        kinds = _lettered(pattern, "mtp_hybrid_override_pattern")
    elif words:
        kinds = [_COUNTED.get(word, FULL if word == "full_attention" else STATE) for word in words]
    layers = [tensor for kind in kinds for tensor in _layer(fields, "mtp.layers.{}", kind)]
    joined = (
        *norm("mtp.layers.{}.enorm", hidden),
        *norm("mtp.layers.{}.hnorm", hidden),
        *linear("mtp.layers.{}.eh_proj", hidden, 2 * hidden, Split.ROWS),
        *norm("mtp.layers.{}.final_layernorm", hidden),
    )
    return (*joined, *layers) * steps


FAMILIES: Mapping[str, Family] = {"nemotron_h": _family}
