"""What each layer of a model keeps of a sequence, on one tensor-parallel rank, from its configuration alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_compressed import compressed_specs
from heliosd.estimation.kv_heads import NO_LATENT, head_sizes, listed_heads, single_layers
from heliosd.estimation.kv_kinds import Keeps, kinds, window
from heliosd.estimation.kv_launch import WIDTHS, CacheLaunch, LayerSpec
from heliosd.estimation.kv_states import State, state_of

__all__ = ["CacheLaunch", "LayerSpec", "kv_specs"]

ENCODERS = (
    "bert", "roberta", "xlm-roberta", "camembert", "modernbert", "nomic_bert", "gte", "new", "distilbert", "electra",
    "albert", "mpnet", "deberta", "deberta-v2", "eurobert", "neobert", "jina", "siglip", "siglip2", "clip", "vit",
    "bert-generation", "ernie", "roformer", "xlm", "funnel", "splinter", "big_bird", "gte-qwen", "timm_wrapper",
)  # fmt: skip
"""Model types that read a whole text at once and keep nothing between steps."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")


def kv_specs(fields: Fields, launch: CacheLaunch) -> tuple[LayerSpec, ...]:
    """Equal layers together, in the order of their first; empty for models that keep nothing.

    `fields` is the whole configuration. Raises BadRequest, naming the field, when a size is missing or absurd.
    """
    text = fields.language()
    if _keeps_nothing(fields, text):
        return ()
    if text.model_type.startswith("deepseek_v4") or text.get("compress_ratios") is not None:
        return compressed_specs(text, launch, _layers(text))
    count = _layers(text)
    dtype = _declared_dtype(fields, launch)
    found: dict[LayerSpec, list[int]] = {}
    for indices, specs in _alike(text, launch, count, dtype):
        for spec in specs:
            found.setdefault(spec, []).extend(indices)
    return tuple(replace(spec, layers=tuple(sorted(indices))) for spec, indices in found.items())


def _layers(text: Fields) -> int:
    """Layers of the decoder; where only a list of their kinds tells it, its length."""
    if text.flag("is_encoder_decoder"):
        return text.whole("decoder_layers", "num_decoder_layers", *LAYERS)
    listed = text.items("layers_block_type", "layer_types")
    if listed and not any(text.given(name) for name in LAYERS):
        return len(listed)
    return text.whole(*LAYERS)


def _keeps_nothing(fields: Fields, text: Fields) -> bool:
    names = fields.items("architectures")
    name = names[0] if names and isinstance(names[0], str) else ""
    if text.model_type in ENCODERS or (text.get("is_causal") is False and text.model_type != "gemma3_text"):
        return True
    return name.endswith(("BertModel", "RobertaModel", "BidirectionalModel"))


def _declared_dtype(fields: Fields, launch: CacheLaunch) -> str:
    """The launch's KV dtype; where it is `auto`, what a quantized checkpoint declares for its cache."""
    declared = fields.get("quantization_config", "compression_config")
    if launch.kv_cache_dtype != "auto" or not isinstance(declared, Mapping) or launch.version < (0, 12):
        return launch.kv_cache_dtype
    scheme = declared.get("kv_cache_scheme")
    if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8:
        return "fp8"
    algorithm = declared.get("kv_cache_quant_algo")
    if isinstance(algorithm, str) and algorithm.upper().startswith("FP8"):
        return "fp8"
    # Checkpoints in NVFP4 by NVIDIA's own tool declare an fp8 cache, in a file of their own when not here.
    method = str(declared.get("quant_method", "")).lower()
    silent = "kv_cache_scheme" not in declared and algorithm is None
    return "fp8" if silent and method.startswith(("modelopt", "nvfp4")) and "fp4" in method else "auto"


def _alike(
    text: Fields, launch: CacheLaunch, count: int, dtype: str
) -> Iterator[tuple[Sequence[int], tuple[LayerSpec, ...]]]:
    """Layers that keep the same, with what that is, by their first."""
    planned = kinds(text, min(count, 100_000))
    state = _state_spec(text, launch) if Keeps.STATE in planned or Keeps.BOTH in planned else None
    shared = text.whole("num_kv_shared_layers", default=0)
    attention = _Attention(text, launch, dtype)
    own = planned[: count - shared] if shared < count else planned
    places: dict[tuple[Keeps, Exceptional], Sequence[int]] = {}
    if attention.alike:
        for kind in dict.fromkeys(own):
            places[kind, USUAL] = [index for index, each in enumerate(own) if each is kind]
    else:
        lists: dict[tuple[Keeps, Exceptional], list[int]] = {}
        for index, kind in enumerate(own):
            lists.setdefault((kind, attention.exception(index)), []).append(index)
        places.update(lists)
    last: tuple[int, tuple[LayerSpec, ...]] = (-1, ())
    for (kind, exception), indices in places.items():
        if kind in (Keeps.STATE, Keeps.BOTH) and state is not None:
            yield indices, (state,)
        if kind in (Keeps.STATE, Keeps.NOTHING):
            continue
        specs = attention.of(Keeps.FULL if kind is Keeps.BOTH else kind, exception)
        yield indices, specs
        full = tuple(spec for spec in specs if spec.keeps is Keeps.FULL and spec.role in ("", "indexer"))
        if full:
            last = max(last, (indices[-1], full), key=lambda each: each[0])
    if last[1]:
        yield range(count, count + launch.draft_layers), attention.drafted(last[1])


class _Attention:
    """Specs of attention layers by kind and by how a layer differs from others of its kind."""

    def __init__(self, text: Fields, launch: CacheLaunch, dtype: str) -> None:
        self._text, self._launch, self._dtype = text, launch, dtype
        ranked = bool(text.get("kv_lora_rank")) and not text.null("kv_lora_rank")
        self._latent = ranked and text.model_type not in NO_LATENT
        self._sliding = window(text) + (1 if text.model_type in ("cohere2", "cohere2_moe") else 0)
        self._chunk = text.whole("attention_chunk_size", default=0) or (8192 if text.model_type == "llama4_text" else 0)
        self._lists = listed_heads(text)
        self._exceptions = single_layers(text)
        self._indexed = text.get("index_topk") is not None and self._latent
        self._indexers = _Indexers(text) if self._indexed else None
        self.alike = not (self._lists or self._exceptions or self._indexed)
        """Whether layers of a kind are all alike."""

    def drafted(self, last: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
        """What a draft layer keeps: like the last full one, with an indexer of its own where the model has any."""
        return self.of(Keeps.FULL, (None, True, None, None)) if self._indexed else last

    def exception(self, index: int) -> "Exceptional":
        """How this layer differs from others of its kind."""
        listed = next((values[index] for values in self._lists if index < len(values) and _whole(values[index])), None)
        indexer = self._indexers is not None and self._indexers.at(index)
        return listed, indexer, *self._exceptions.get(index, (None, None))

    def of(self, kind: Keeps, exceptional: "Exceptional") -> tuple[LayerSpec, ...]:
        text, launch = self._text, self._launch
        listed, indexer, *exception = exceptional
        if self._latent and launch.legacy and launch.version < (0, 7, 1):
            # Before latent attention came, heads of 192 were padded to the 256 that kernels knew.
            heads = max(1, text.whole("num_attention_heads") // launch.tensor_parallel)
            return (LayerSpec(Keeps.FULL, (), heads, 256, entry_bytes(self._dtype, 256, 256, launch)),)
        if self._latent:
            return _latent_specs(text, launch, self._dtype, indexer)
        if listed == 0:
            return ()
        heads, dim, dim_v = head_sizes(text, kind, listed)
        heads = exception[0] or heads
        dim, dim_v = (exception[1], exception[1]) if exception[1] else (dim, dim_v)
        mine = max(1, heads // launch.tensor_parallel)
        entry = entry_bytes(self._dtype, dim, dim_v, launch)
        size = {Keeps.SLIDING: self._sliding, Keeps.CHUNKED: self._chunk}.get(kind, 0)
        keeps = kind if size or kind is Keeps.FULL else Keeps.FULL
        spec = LayerSpec(keeps, (), mine, dim, entry, window=size)
        if text.flag("is_encoder_decoder"):
            return spec, LayerSpec(Keeps.FULL, (), mine, dim, entry, role="cross", window=_source(text))
        return (spec,)


Exceptional = tuple[int | None, bool, int | None, int | None]
"""KV heads as listed, whether it has an indexer, and KV heads and head_dim of its own."""
USUAL: Exceptional = (None, False, None, None)


def _whole(value: object) -> bool:
    return isinstance(value, int)


def entry_bytes(dtype: str, dim: int, dim_v: int, launch: CacheLaunch) -> int:
    """Bytes of one head's keys and values of one token.

    `nvfp4` packs two numbers in a byte with an fp8 scale for each 16; per-token-head types add a float32 scale each
    for keys and values.
    """
    if dtype.startswith("nvfp4"):
        return (dim // 2 + dim // 16) + (dim_v // 2 + dim_v // 16)
    if dtype.endswith("_per_token_head"):
        halves = 2 if dtype.startswith("int4") else 1
        return dim // halves + dim_v // halves + 8
    return (dim + dim_v) * _width(dtype, launch)


def _width(dtype: str, launch: CacheLaunch) -> int:
    if dtype == "auto":
        return launch.model_width
    return WIDTHS.get(dtype, 1)


def _latent_specs(text: Fields, launch: CacheLaunch, dtype: str, indexer: bool) -> tuple[LayerSpec, ...]:
    """MLA: one vector of `kv_lora_rank + qk_rope_head_dim` numbers; with sparse attention, an indexer's key beside."""
    dim = text.whole("kv_lora_rank") + text.whole("qk_rope_head_dim", default=0)
    sparse = text.get("index_topk") is not None
    if dtype in ("fp8", "fp8_e4m3", "fp8_e5m2") and sparse and launch.packed_sparse_mla:
        dtype = "fp8_ds_mla"
    packed = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}.get(dtype)
    entry = packed or (dim + 8 if dtype.endswith("_per_token_head") else dim * _width(dtype, launch))
    if launch.legacy and (0, 7, 3) <= launch.version < (0, 8):
        entry = -(-entry // 256) * 256  # rows were aligned for a while
    twice = 2 if text.model_type.startswith("longcat") else 1  # two attentions in each layer
    found = [LayerSpec(Keeps.FULL, (), 1, dim, entry, latent=True)] * twice
    if indexer:
        size = text.whole("index_head_dim")
        pool = text.whole("index_kpool", default=1) or 1
        scaled = size + size // 128 * 4
        found.append(LayerSpec(Keeps.FULL, (), 1, size, scaled, latent=True, role="indexer", tokens_per_entry=pool))
    return tuple(found)


class _Indexers:
    """Which layers of a sparse model have an indexer of their own; others use another layer's choice."""

    def __init__(self, text: Fields) -> None:
        pattern = text.get("index_topk_pattern")
        self._pattern: str | list[Any] = pattern if isinstance(pattern, str | list) else ""
        self._every = text.whole("index_topk_freq", default=1) or 1
        self._offset = text.whole("index_skip_topk_offset", default=2)

    def at(self, index: int) -> bool:
        if index < len(self._pattern):
            return bool(self._pattern[index] != "S")
        return max(index - self._offset + 1, 0) % self._every == 0


def _source(text: Fields) -> int:
    """Positions of the encoder that a decoder's cross attention keeps."""
    return text.whole("max_source_positions", "max_position_embeddings", "n_positions", default=1500)


def _state_spec(text: Fields, launch: CacheLaunch) -> LayerSpec | None:
    drafted = launch.speculative_tokens
    state = state_of(text, launch.tensor_parallel, drafted)
    if state is None:
        return None
    convolution, recurrent = _state_widths(state, launch)
    size = state.bytes(convolution, recurrent)
    return LayerSpec(Keeps.STATE, (), state_bytes=size, checkpoints=state.checkpoints)


def _state_widths(state: State, launch: CacheLaunch) -> tuple[int, int]:
    convolution = WIDTHS.get(launch.mamba_cache_dtype, launch.model_width)
    own = launch.mamba_ssm_cache_dtype if launch.mamba_ssm_cache_dtype != "auto" else state.own_recurrent
    return convolution, WIDTHS.get(own or "", convolution)
