"""Multi-head latent attention: queries and keys through narrow matrices (DeepSeek V2 and its descendants).

    latent("model.layers.{}.self_attn", latent_of(fields))

The narrow matrices are the same on every rank; what widens them again is divided by heads. Shapes after the papers
of DeepSeek-V2 (arXiv 2405.04434) and V3.2 (the indexer of sparse attention).
"""

from dataclasses import dataclass

from heliosd.estimation.families.sizes import HEADS, hidden_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, Tensor, linear, norm


@dataclass(frozen=True, slots=True)
class Latent:
    """Sizes of latent attention; `queries` 0: the queries are not compressed."""

    hidden: int
    heads: int
    queries: int
    keys: int
    plain: int
    """Of a head's query and key, what is not rotated."""
    rotated: int
    value: int


def latent_of(fields: Fields) -> Latent:
    """From `q_lora_rank`, `kv_lora_rank`, `qk_nope_head_dim`, `qk_rope_head_dim`, `v_head_dim`."""
    # A null rank means uncompressed queries, although the class has a default for it.
    silent = fields.given("q_lora_rank") and fields.explicit("q_lora_rank") is None
    return Latent(
        hidden=hidden_of(fields),
        heads=positive(fields, *HEADS),
        queries=0 if silent else fields.whole("q_lora_rank", default=0),
        keys=positive(fields, "kv_lora_rank"),
        plain=fields.whole("qk_nope_head_dim"),
        rotated=fields.whole("qk_rope_head_dim"),
        value=positive(fields, "v_head_dim"),
    )


def latent(where: str, sizes: Latent, *, bias: bool = False) -> tuple[Tensor, ...]:
    """The tensors below `where`; `bias` is on the narrowing projections and the output."""
    head = sizes.plain + sizes.rotated
    if sizes.queries:
        queries = (
            *linear(f"{where}.q_a_proj", sizes.queries, sizes.hidden, bias=bias),
            *norm(f"{where}.q_a_layernorm", sizes.queries),
            *linear(f"{where}.q_b_proj", sizes.heads * head, sizes.queries, Split.ROWS),
        )
    else:
        queries = linear(f"{where}.q_proj", sizes.heads * head, sizes.hidden, Split.ROWS)
    return (
        *queries,
        *linear(f"{where}.kv_a_proj_with_mqa", sizes.keys + sizes.rotated, sizes.hidden, bias=bias),
        *norm(f"{where}.kv_a_layernorm", sizes.keys),
        *linear(f"{where}.kv_b_proj", sizes.heads * (sizes.plain + sizes.value), sizes.keys, Split.ROWS),
        *linear(f"{where}.o_proj", sizes.hidden, sizes.heads * sizes.value, Split.COLUMNS, bias=bias),
    )


def indexer(where: str, fields: Fields) -> tuple[Tensor, ...]:
    """What chooses the tokens that sparse attention reads; every rank holds all of it."""
    hidden, queries = hidden_of(fields), positive(fields, "q_lora_rank")
    heads, dim = positive(fields, "index_n_heads"), positive(fields, "index_head_dim")
    return (
        *linear(f"{where}.wq_b", heads * dim, queries),
        *linear(f"{where}.wk", dim, hidden),
        *norm(f"{where}.k_norm", dim, bias=True),
        *linear(f"{where}.weights_proj", heads, hidden),
    )
