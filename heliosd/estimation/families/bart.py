"""BART and the translators and summarizers of its shape: learned or computed positions, norms before or after."""

from collections.abc import Callable
from dataclasses import dataclass

from heliosd.estimation.families.assembly import blocks
from heliosd.estimation.families.encoding import (
    Tensors,
    architecture_of,
    dense,
    divided_heads,
    table,
    tied,
    under,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Head
from heliosd.estimation.families.sizes import labels_of, layers_of, positive
from heliosd.estimation.families.two_stacks import Parts, generates, parts_of, tower
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, experts, linear, norm

Extra = Callable[[Fields, str], Tensors]
"""`(fields, "encoder" or "decoder") -> what only this family has`, named below the stack."""


def _nothing(_fields: Fields, _side: str) -> Tensors:
    return ()


@dataclass(frozen=True, slots=True)
class Bart:
    """How one family differs from BART. It is itself a `Family`."""

    root: str = "model"
    offset: int | None = 2
    """Rows of the table of positions beyond the longest input; None: positions are computed."""
    offset_field: str = ""
    """A field that adds to them."""
    embedding_norm: bool = True
    final_norm: bool = False
    bias: bool | str = True
    """Of attention's projections; or the field that says it."""
    split_vocabularies: bool = False
    """Source and target have tables of their own (FSMT)."""
    sparse: bool = False
    names: tuple[str, str, str, str] = ("encoder_attn", "fc1", "fc2", "final_layer_norm")
    """Of cross-attention, the feed-forward's two projections and its norm."""
    encoder_attention: Callable[[Fields, bool], Tensors] | None = None
    layer_extra: Extra = _nothing
    stack_extra: Extra = _nothing
    causal_head_free: bool = False
    """The decoder alone has a projection of its own, whatever is said of tying."""
    output: str = "lm_head"
    decoder_only: bool = False
    """There is no encoder of text (TrOCR reads images)."""

    def __call__(self, fields: Fields, head: Head) -> Layout:
        parts = parts_of(fields)
        alone = self.decoder_only or parts is Parts.DECODER
        bare = head is Head.NONE and not generates(fields, head)
        prefix = "" if bare else f"{self.root}."
        encoder = () if alone else self._stack(fields, prefix, "encoder")
        decoder = () if parts is Parts.ENCODER else self._stack(fields, prefix, "decoder")
        own = tower(encoder) + (() if alone else self._around(fields, prefix, "encoder"))
        last = () if parts is Parts.ENCODER else self._around(fields, prefix, "decoder")
        return Layout(
            first=self._embeddings(fields, prefix, alone),
            blocks=decoder,
            last=last + self._head(fields, head, alone),
            towers=own,
            tied=generates(fields, head) and tied(fields) and not (alone and self.causal_head_free),
        )

    def _embeddings(self, fields: Fields, prefix: str, alone: bool) -> Tensors:
        """One table for all when tied; untied, the checkpoint keeps the shared one and one for each stack."""
        width = width_of(fields)
        if self.split_vocabularies:
            source, target = positive(fields, "src_vocab_size"), positive(fields, "tgt_vocab_size")
            second = () if tied(fields) else table(f"{prefix}decoder.embed_tokens", target, width)
            return (*table(f"{prefix}encoder.embed_tokens", source, width), *second)
        count = positive(fields, "vocab_size")
        if alone:
            return table(f"{prefix}decoder.embed_tokens", self._target(fields), width)
        if self._separate(fields):
            return (
                *table(f"{prefix}encoder.embed_tokens", count, width),
                *table(f"{prefix}decoder.embed_tokens", self._target(fields), width),
            )
        shared = table(f"{prefix}shared", count, width)
        if tied(fields):
            return shared
        return (
            *shared,
            *table(f"{prefix}encoder.embed_tokens", count, width),
            *table(f"{prefix}decoder.embed_tokens", count, width),
        )

    def _separate(self, fields: Fields) -> bool:
        return not fields.flag("share_encoder_decoder_embeddings", default=True)

    def _target(self, fields: Fields) -> int:
        """The decoder's vocabulary, the model's unless it has its own."""
        if fields.explicit("decoder_vocab_size") is not None:
            return positive(fields, "decoder_vocab_size")
        return positive(fields, "vocab_size")

    def _head(self, fields: Fields, head: Head, alone: bool) -> Tensors:
        width = width_of(fields)
        if head is Head.CLASSES:
            return (
                *dense("classification_head.dense", width, width),
                *dense("classification_head.out_proj", labels_of(fields), width),
            )
        if architecture_of(fields).endswith("ForQuestionAnswering"):
            return dense("qa_outputs", 2, width)
        if not generates(fields, head) or (tied(fields) and not (alone and self.causal_head_free)):
            return ()
        if self.split_vocabularies:
            count = positive(fields, "tgt_vocab_size")
            return vocabulary(f"{self.root}.decoder.output_projection", count, width, weight=True, bias=False)
        count = self._target(fields) if alone or self._separate(fields) else positive(fields, "vocab_size")
        return vocabulary(self.output, count, width, weight=True, bias=False)

    def _around(self, fields: Fields, prefix: str, side: str) -> Tensors:
        """A stack's positions and its norms before and after the layers."""
        width = width_of(fields)
        rows = 0
        if self.offset is not None:
            longest = positive(fields, f"max_{side}_position_embeddings", "max_position_embeddings")
            rows = longest + self.offset + (fields.whole(self.offset_field, default=1) if self.offset_field else 0)
        inside = (
            *table("embed_positions", rows, width),
            *(norm("layernorm_embedding", width, bias=True) if self.embedding_norm else ()),
            *(norm("layer_norm", width, bias=True) if self.final_norm else ()),
            *self.stack_extra(fields, side),
        )
        return under(f"{prefix}{side}.", inside)

    def _stack(self, fields: Fields, prefix: str, side: str) -> tuple[Block, ...]:
        count = layers_of(fields, f"{side}_layers", "num_hidden_layers")
        step = fields.whole(f"{side}_sparse_step", default=0) if self.sparse else 0
        kinds = [step > 0 and (index + 1) % step == 0 for index in range(count)]

        def layer(sparse: bool) -> Tensors:
            return under(f"{prefix}{side}.layers.{{}}.", self._layer(fields, side, sparse))

        return blocks(kinds, layer)

    def _layer(self, fields: Fields, side: str, sparse: bool) -> Tensors:
        width = width_of(fields)
        divided_heads(fields, width, f"{side}_attention_heads")
        bias = fields.flag(self.bias, default=True) if isinstance(self.bias, str) else self.bias
        cross, first, second, last_norm = self.names
        own = self.encoder_attention if side == "encoder" else None
        crossing = (*_attention(cross, width, bias), *norm(f"{cross}_layer_norm", width, bias=True))
        inner = positive(fields, f"{side}_ffn_dim")
        return (
            *(own(fields, bias) if own else _attention("self_attn", width, bias)),
            *norm("self_attn_layer_norm", width, bias=True),
            *(crossing if side == "decoder" else ()),
            *(self._experts(fields, inner) if sparse else ()),
            *(() if sparse else dense(first, inner, width, Split.ROWS) + dense(second, width, inner, Split.COLUMNS)),
            *norm(last_norm, width, bias=True),
            *self.layer_extra(fields, side),
        )

    def _experts(self, fields: Fields, inner: int) -> Tensors:
        width, count = width_of(fields), positive(fields, "num_experts")
        return (
            *linear("ffn.router.classifier", count, width, bias=fields.flag("router_bias")),
            experts("ffn.experts.expert_0.fc1", inner, width, Split.ROWS, count),
            Tensor("ffn.experts.expert_0.fc1.bias", inner, 1, Kind.PLAIN, Split.ROWS, copies=count),
            experts("ffn.experts.expert_0.fc2", width, inner, Split.COLUMNS, count),
            Tensor("ffn.experts.expert_0.fc2.bias", width, 1, Kind.PLAIN, Split.WHOLE, copies=count),
        )


def _attention(where: str, width: int, bias: bool) -> Tensors:
    return (
        *linear(f"{where}.k_proj", width, width, Split.ROWS, bias=bias),
        *linear(f"{where}.v_proj", width, width, Split.ROWS, bias=bias),
        *linear(f"{where}.q_proj", width, width, Split.ROWS, bias=bias),
        *linear(f"{where}.out_proj", width, width, Split.COLUMNS, bias=bias),
    )


def big_bird_attention(fields: Fields, bias: bool) -> Tensors:
    """Named as in BERT."""
    width = width_of(fields)
    return (
        *linear("self_attn.self.query", width, width, Split.ROWS, bias=bias),
        *linear("self_attn.self.key", width, width, Split.ROWS, bias=bias),
        *linear("self_attn.self.value", width, width, Split.ROWS, bias=bias),
        *linear("self_attn.output", width, width, Split.COLUMNS, bias=bias),
    )


def longformer_attention(fields: Fields, bias: bool) -> Tensors:
    """Twice the projections: tokens that attend to all have their own."""
    width, inside = width_of(fields), "self_attn.longformer_self_attn"
    names = (f"{name}{kind}" for name in ("query", "key", "value") for kind in ("", "_global"))
    return (
        *(tensor for name in names for tensor in linear(f"{inside}.{name}", width, width, Split.ROWS, bias=bias)),
        *linear("self_attn.output", width, width, Split.COLUMNS, bias=bias),
    )


def global_tokens(fields: Fields, side: str) -> Tensors:
    """PEGASUS-X: tokens that see everything, in the encoder."""
    return table("embed_global", positive(fields, "num_global_tokens"), width_of(fields)) if side == "encoder" else ()


def global_norm(fields: Fields, side: str) -> Tensors:
    return norm("global_self_attn_layer_norm", width_of(fields), bias=True) if side == "encoder" else ()


def prompts(fields: Fields, side: str) -> Tensors:
    """MVP: learned keys and values before each decoder layer's own, made from a short table; where asked for."""
    if side == "encoder" or not fields.flag("use_prompt"):
        return ()
    width, middle = width_of(fields), positive(fields, "prompt_mid_dim")
    length, count = positive(fields, "prompt_length"), layers_of(fields, f"{side}_layers")
    kinds = ("self_attn", "cross_attn")
    return tuple(
        tensor
        for kind in kinds
        for tensor in (
            *table(f"{kind}_prompt.prompt_embedding", length, width),
            *dense(f"{kind}_prompt.prompt_trans.0", middle, width),
            *dense(f"{kind}_prompt.prompt_trans.2", 2 * count * width, middle),
        )
    )
