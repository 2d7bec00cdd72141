"""T5 and its descendants: a bias by distance instead of positions, scales without shifts, heads of a stated width."""

from dataclasses import dataclass

from heliosd.estimation.families.assembly import blocks
from heliosd.estimation.families.encoding import (
    Task,
    Tensors,
    classifier,
    dense,
    table,
    task_of,
    tied,
    under,
    vocabulary,
)
from heliosd.estimation.families.family import Head
from heliosd.estimation.families.sizes import labels_of, layers_of, positive
from heliosd.estimation.families.two_stacks import Parts, parts_of, tower
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Layout, Split, experts, linear, norm


@dataclass(frozen=True, slots=True)
class T5:
    """A family of this shape. It is itself a `Family`."""

    bias_everywhere: bool = False
    """Each layer has its own bias by distance; otherwise the first layer's serves all."""
    sparse: bool = False
    """Some layers route to experts: Switch."""
    separate_tables: bool = False
    """Untied, encoder and decoder have embeddings of their own beside the shared one."""

    def __call__(self, fields: Fields, head: Head) -> Layout:
        width, count, parts = positive(fields, "d_model"), positive(fields, "vocab_size"), parts_of(fields)
        task = task_of(fields, head)
        prefix = "transformer." if task in (Task.CLASSES, Task.TOKENS) else ""
        encoder = self._stack(fields, prefix, "encoder")
        shared = table(f"{prefix}shared", count, width)
        if self.separate_tables and not tied(fields):
            sides = ("encoder",) if parts is Parts.ENCODER else ("encoder", "decoder")
            shared += tuple(tensor for side in sides for tensor in table(f"{side}.embed_tokens", count, width))
        ends = norm(f"{prefix}encoder.final_layer_norm", width)
        if parts is Parts.ENCODER:
            top = classifier(fields) if task is Task.TOKENS else ()
            return Layout(first=shared, blocks=encoder, last=ends + top)
        generates = task is Task.WORDS
        return Layout(
            first=shared,
            blocks=self._stack(fields, prefix, "decoder"),
            last=norm(f"{prefix}decoder.final_layer_norm", width) + _top(fields, task),
            towers=tower(encoder) + ends,
            tied=generates and tied(fields),
        )

    def _stack(self, fields: Fields, prefix: str, side: str) -> tuple[Block, ...]:
        names: tuple[str, ...] = ("num_layers", "num_hidden_layers")
        if side == "decoder" and fields.explicit("num_decoder_layers") is not None:
            names = ("num_decoder_layers", *names)
        count = layers_of(fields, *names)
        sparse = self._sparse(fields, side, count)
        kinds = [(index == 0 or self.bias_everywhere, index in sparse) for index in range(count)]

        def layer(kind: tuple[bool, bool]) -> Tensors:
            return under(f"{prefix}{side}.block.{{}}.", self._layer(fields, side, *kind))

        return blocks(kinds, layer)

    def _sparse(self, fields: Fields, side: str, count: int) -> set[int]:
        if not self.sparse:
            return set()
        some = fields.whole(f"num_sparse_{side}_layers", default=0)
        step = count // some if some else count
        return {index for index in range(count) if step > 0 and (index % step == 1 or step == 1)}

    def _layer(self, fields: Fields, side: str, biased: bool, sparse: bool) -> Tensors:
        width = positive(fields, "d_model")
        name = _attention_name(fields) if side == "encoder" else "SelfAttention"
        buckets, heads = positive(fields, "relative_attention_num_buckets"), positive(fields, "num_heads")
        bias = linear(f"layer.0.{name}.relative_attention_bias", buckets, heads) if biased else ()
        if name == "TransientGlobalSelfAttention":
            bias += linear(f"layer.0.{name}.global_relative_attention_bias", buckets, heads) if biased else ()
            bias += norm(f"layer.0.{name}.global_input_layer_norm", width)
        crossing = (*_attention(fields, "layer.1.EncDecAttention"), *norm("layer.1.layer_norm", width))
        last = "layer.2" if side == "decoder" else "layer.1"
        return (
            *_attention(fields, f"layer.0.{name}"),
            *bias,
            *norm("layer.0.layer_norm", width),
            *(crossing if side == "decoder" else ()),
            *self._feed(fields, last, sparse),
            *norm(f"{last}.layer_norm", width),
        )

    def _feed(self, fields: Fields, where: str, sparse: bool) -> Tensors:
        width, inner = positive(fields, "d_model"), positive(fields, "d_ff")
        if sparse:
            count, inside = positive(fields, "num_experts"), f"{where}.mlp.experts.expert_0"
            return (
                *linear(f"{where}.mlp.router.classifier", count, width, bias=fields.flag("router_bias")),
                experts(f"{inside}.wi", inner, width, Split.ROWS, count),
                experts(f"{inside}.wo", width, inner, Split.COLUMNS, count),
            )
        inside = f"{where}.mlp" if self.sparse else f"{where}.DenseReluDense"
        gated = not self.sparse and fields.text("feed_forward_proj").startswith("gated")
        ins = ("wi_0", "wi_1") if gated else ("wi",)
        return (
            *(tensor for name in ins for tensor in linear(f"{inside}.{name}", inner, width, Split.ROWS)),
            *linear(f"{inside}.wo", width, inner, Split.COLUMNS),
        )


def _attention_name(fields: Fields) -> str:
    """LongT5's encoder attends locally, with summaries of blocks or without."""
    kind = fields.text("encoder_attention_type")
    return {"local": "LocalSelfAttention", "transient-global": "TransientGlobalSelfAttention"}.get(
        kind, "SelfAttention"
    )


def _attention(fields: Fields, where: str) -> Tensors:
    width, inner = positive(fields, "d_model"), positive(fields, "num_heads") * positive(fields, "d_kv")
    return (
        *linear(f"{where}.q", inner, width, Split.ROWS),
        *linear(f"{where}.k", inner, width, Split.ROWS),
        *linear(f"{where}.v", inner, width, Split.ROWS),
        *linear(f"{where}.o", width, inner, Split.COLUMNS),
    )


def _top(fields: Fields, task: Task) -> Tensors:
    """What follows the decoder. Version 1.1 and later say that the projection is not tied: then it is stored."""
    width = positive(fields, "d_model")
    match task:
        case Task.WORDS:
            count = positive(fields, "vocab_size")
            return vocabulary("lm_head", count, width, weight=not tied(fields), bias=False)
        case Task.CLASSES:
            return (
                *dense("classification_head.dense", width, width),
                *dense("classification_head.out_proj", labels_of(fields), width),
            )
        case Task.SPANS:
            return dense("qa_outputs", 2, width)
        case Task.BODY | Task.TOKENS | Task.PRETRAINING:
            return ()
