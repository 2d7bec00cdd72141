"""The common shape of a decoder's layer, told by how a family differs from Llama.

    FAMILIES = {"llama": Standard(), "qwen2": Standard(qkv_bias=True, out_bias=False, mlp_bias=False)}
    FAMILIES["qwen3_moe"] = Standard(qk_norm="head", sparse=Sparse(), kinds=stepped)

A `Standard` is itself a `Family`: call it with fields and head. Its parts can be used alone: `attend` gives one
layer's attention, `feed` its feed-forward part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import SEPARATE, attention
from heliosd.estimation.families.family import Head
from heliosd.estimation.families.mlp import GATED, mixture, mlp
from heliosd.estimation.families.sizes import WIDTH, Heads, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Tensor, linear, norm

DENSE = "dense"
SPARSE = "sparse"
Switch = bool | str
"""A fixed answer, or the name of the field that says it."""
Kinds = Callable[[Fields, int], Sequence[str]]
"""`(fields, layers) -> DENSE or SPARSE for each layer`."""
Extra = Callable[[Fields, str, str], tuple[Tensor, ...]]
"""`(fields, layer's name, kind) -> what only this family has`."""


def on(fields: Fields, switch: Switch) -> bool:
    return fields.flag(switch) if isinstance(switch, str) else switch


@dataclass(frozen=True, slots=True)
class Sparse:
    """A mixture of experts as a configuration tells it; each tuple lists the names a field goes by."""

    count: tuple[str, ...] = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    width: tuple[str, ...] = ("moe_intermediate_size", "intermediate_size")
    shared_count: tuple[str, ...] = ()
    """How many shared experts, each as wide as a routed one; they are one wide network in the checkpoint."""
    shared_width: tuple[str, ...] = ()
    """The shared network's width where it has its own."""
    shared: str = "shared_experts"
    shared_gate: str = ""
    """A projection onto one number that scales the shared network's output."""
    where: str = "mlp"
    router: str = "gate"
    router_bias: Switch = False
    correction: str = ""
    bias: Switch = False
    shared_bias: Switch = False
    gated: bool = True
    names: tuple[str, str, str] = GATED

    def __call__(self, fields: Fields, layer: str) -> tuple[Tensor, ...]:
        hidden, width, count = hidden_of(fields), positive(fields, *self.width), positive(fields, *self.count)
        where = f"{layer}.{self.where}"
        made = mixture(
            where, hidden, width, count, gated=self.gated, bias=on(fields, self.bias), router=self.router,
            router_bias=on(fields, self.router_bias), correction=self.correction, names=self.names,
        )  # fmt: skip
        shared = fields.whole(*self.shared_width, default=0) if self.shared_width else 0
        if self.shared_count:
            shared = width * fields.whole(*self.shared_count, default=0)
        if shared:
            made += mlp(f"{where}.{self.shared}", hidden, shared, gated=self.gated, bias=on(fields, self.shared_bias))
            if self.shared_gate:
                made += linear(f"{where}.{self.shared_gate}", 1, hidden)
        return made


@dataclass(frozen=True, slots=True)
class Standard:
    """A family of decoders; the defaults are Llama's."""

    qkv_bias: Switch = "attention_bias"
    out_bias: Switch = "attention_bias"
    mlp_bias: Switch = "mlp_bias"
    gated: bool = True
    qk_norm: str = ""
    """`head`: scales of one head's width; `whole`: of the whole projection's."""
    sinks: bool = False
    width: tuple[str, ...] = WIDTH
    attention_names: tuple[str, str, str, str] = SEPARATE
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    mlp_names: tuple[str, str, str] = GATED
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    """The layer's norms of the hidden size."""
    norm_bias: bool = False
    final: str = "norm"
    """Name of the norm after the layers; empty: there is none, or none with parameters."""
    output_bias: Switch = False
    sparse: Sparse | None = None
    kinds: Kinds | None = None
    extra: Extra | None = None
    sizes: Callable[[Fields], Heads] = heads_of

    def __call__(self, fields: Fields, head: Head) -> Layout:
        layers, hidden = layers_of(fields), hidden_of(fields)
        kinds = self.layer_kinds(fields, layers)
        heads = self.sizes(fields)

        def layer(kind: str) -> tuple[Tensor, ...]:
            return self.layer(fields, heads, kind)

        return decoder(
            fields, head, kinds, layer,
            final=norm(f"model.{self.final}", hidden, bias=self.norm_bias) if self.final else (),
            output_bias=on(fields, self.output_bias),
        )  # fmt: skip

    def layer_kinds(self, fields: Fields, layers: int) -> Sequence[str]:
        if self.kinds is not None:
            return self.kinds(fields, layers)
        return [SPARSE if self.sparse else DENSE] * layers

    def layer(self, fields: Fields, heads: Heads, kind: str) -> tuple[Tensor, ...]:
        """The tensors of one layer of a kind."""
        made = self.attend(fields, heads) + self.feed(fields, kind)
        for name in self.norms:
            made += norm(f"{LAYER}.{name}", heads.hidden, bias=self.norm_bias)
        return made + self.extra(fields, LAYER, kind) if self.extra is not None else made

    def attend(self, fields: Fields, heads: Heads) -> tuple[Tensor, ...]:
        return attention(
            f"{LAYER}.self_attn", heads, qkv_bias=on(fields, self.qkv_bias), out_bias=on(fields, self.out_bias),
            norm_per_head=self.qk_norm == "head", norm_whole=self.qk_norm == "whole", sinks=self.sinks,
            names=self.attention_names, norms=self.qk_norm_names,
        )  # fmt: skip

    def feed(self, fields: Fields, kind: str) -> tuple[Tensor, ...]:
        if kind == SPARSE and self.sparse is not None:
            return self.sparse(fields, LAYER)
        return mlp(
            f"{LAYER}.mlp", hidden_of(fields), positive(fields, *self.width), gated=self.gated,
            bias=on(fields, self.mlp_bias), names=self.mlp_names,
        )  # fmt: skip
