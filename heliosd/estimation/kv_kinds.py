"""Which layers of a model attend to everything, which to a window, and which keep a state instead.

Configurations say it in a dozen ways: a list by layer, a period, indices, a string of letters. What a class derives
when its configuration is silent is in `PERIODS`. What a person wrote as a sentence, `12 full + 36 sliding`, is read
too.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from heliosd.estimation.fields import Fields


class Keeps(StrEnum):
    """What one layer keeps of a sequence between steps."""

    FULL = "full"
    """Keys and values of all tokens."""
    SLIDING = "sliding"
    """Of the last `sliding_window` tokens."""
    CHUNKED = "chunked"
    """Of the tokens of the current chunk."""
    STATE = "state"
    """A state of fixed size: Mamba, linear attention, short convolutions."""
    BOTH = "both"
    """A state and keys and values of all tokens, side by side."""
    NOTHING = "nothing"


WORDS: Mapping[str, Keeps] = {
    "full_attention": Keeps.FULL, "attention": Keeps.FULL, "full": Keeps.FULL, "global": Keeps.FULL,
    "global_attention": Keeps.FULL, "indexed_attention": Keeps.FULL, "mla": Keeps.FULL, "dense_attention": Keeps.FULL,
    "sliding_attention": Keeps.SLIDING, "sliding": Keeps.SLIDING, "local": Keeps.SLIDING, "swa": Keeps.SLIDING,
    "local_attention": Keeps.SLIDING, "window": Keeps.SLIDING, "sliding_window": Keeps.SLIDING,
    "chunked_attention": Keeps.CHUNKED, "chunked": Keeps.CHUNKED,
    "linear_attention": Keeps.STATE, "linear": Keeps.STATE, "mamba": Keeps.STATE, "mamba2": Keeps.STATE,
    "conv": Keeps.STATE, "recurrent": Keeps.STATE, "kda": Keeps.STATE, "gdn": Keeps.STATE, "lightning": Keeps.STATE,
    "hybrid": Keeps.BOTH, "moe": Keeps.NOTHING, "mlp": Keeps.NOTHING, "skip": Keeps.NOTHING,
}  # fmt: skip
"""Every name of a kind that configurations use."""

PERIODS: Mapping[str, tuple[int, Keeps, int, bool]] = {
    "gemma2": (2, Keeps.SLIDING, 1, False),
    "gemma3_text": (6, Keeps.SLIDING, 5, False),
    "gemma3n_text": (5, Keeps.SLIDING, 4, False),
    "gemma4_text": (6, Keeps.SLIDING, 5, True),
    "gemma4_unified_text": (6, Keeps.SLIDING, 5, True),
    "cohere2": (4, Keeps.SLIDING, 3, False),
    "cohere2_moe": (4, Keeps.SLIDING, 3, False),
    "gpt_oss": (2, Keeps.SLIDING, 1, False),
    "olmo3": (4, Keeps.SLIDING, 3, False),
    "exaone4": (4, Keeps.SLIDING, 3, True),
    "exaone_moe": (4, Keeps.SLIDING, 3, True),
    "afmoe": (4, Keeps.SLIDING, 3, False),
    "step3p5": (2, Keeps.SLIDING, 0, False),
    "qwen3_next": (4, Keeps.STATE, 3, False),
    "qwen3_5_text": (4, Keeps.STATE, 3, False),
    "qwen3_5_moe_text": (4, Keeps.STATE, 3, False),
    "llama4_text": (4, Keeps.CHUNKED, 3, False),
    "olmo_hybrid": (4, Keeps.STATE, 3, False),
    "minimax": (2, Keeps.STATE, 1, False),
}
"""By model_type: the period, what the others keep, the place of the full layer in it, whether the last is full too."""

LAST_IS_FULL = frozenset({"gemma4_text", "gemma4_unified_text", "exaone4", "exaone_moe", "bailing_hybrid"})
WINDOWS = ("sliding_window", "sliding_window_size", "window_size")
STATE_ONLY = frozenset({"mamba", "mamba2", "falcon_mamba"})
SIDE_BY_SIDE = frozenset({"falcon_h1"})
LETTERS: Mapping[str, Keeps] = {
    "M": Keeps.STATE, "*": Keeps.FULL, "-": Keeps.NOTHING, "E": Keeps.NOTHING, "L": Keeps.SLIDING, "G": Keeps.FULL,
}  # fmt: skip


def kinds(text: Fields, layers: int) -> tuple[Keeps, ...]:
    """What each of `layers` layers keeps, by the configuration of the language part."""
    if text.model_type in STATE_ONLY:
        return (Keeps.STATE,) * layers
    if text.model_type in SIDE_BY_SIDE:
        return (Keeps.BOTH,) * layers
    if text.model_type == "gpt_oss":  # the engine alternates whatever layer_types says
        return _periodic(layers, *PERIODS["gpt_oss"])
    for read in (_listed, _told, _numbered, _lettered, _spaced):
        found = read(text, layers)
        if found is not None:
            return _windowed(text, found)
    derived = PERIODS.get(text.model_type)
    if derived is not None:
        return _windowed(text, _periodic(layers, *derived))
    plain = Keeps.SLIDING if window(text) else Keeps.FULL
    first = text.optional("max_window_layers") if text.given("max_window_layers") and plain is Keeps.SLIDING else None
    if first:
        return (Keeps.FULL,) * min(first, layers) + (Keeps.SLIDING,) * max(0, layers - first)
    return (plain,) * layers


def window(text: Fields) -> int:
    """Tokens of the sliding window; 0 without one."""
    size = text.get(*WINDOWS)
    if text.null(*WINDOWS) or not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        return 0
    return 0 if text.get("use_sliding_window") is False else size


def _windowed(text: Fields, found: Iterable[Keeps]) -> tuple[Keeps, ...]:
    """Sliding layers without a window are full ones."""
    given = tuple(found)
    if window(text) or text.get("sliding_windows", "sliding_window_list") is not None:
        return given
    return tuple(Keeps.FULL if kind is Keeps.SLIDING else kind for kind in given)


def _periodic(layers: int, period: int, others: Keeps, place: int, last_full: bool) -> tuple[Keeps, ...]:
    found = [Keeps.FULL if index % period == place else others for index in range(layers)]
    if last_full and found:
        found[-1] = Keeps.FULL
    return tuple(found)


def _listed(text: Fields, layers: int) -> tuple[Keeps, ...] | None:
    """A list with one word for each layer."""
    names = text.items("layer_types", "layers_block_type", "block_types", "layer_block_types")
    found = [WORDS.get(name) for name in names if isinstance(name, str)]
    if len(found) < layers or any(kind is None for kind in found[:layers]):
        return None
    return tuple(kind for kind in found[:layers] if kind is not None)


def _told(text: Fields, layers: int) -> tuple[Keeps, ...] | None:
    """Numbers of layers by kind: a mapping, or a sentence like `12 full + 36 sliding (3:1)`."""
    counts = text.get("layer_counts")
    sentence = text.get("layer_types")
    pairs: list[tuple[int, Keeps]] = []
    if isinstance(counts, Mapping):
        pairs = [(n, WORDS[word]) for word, n in counts.items() if word in WORDS and isinstance(n, int) and n > 0]
    elif isinstance(sentence, str):
        for number, word in re.findall(r"(\d{1,5})\s*[x×]?\s*([a-z_]+\d?)", sentence.lower()):
            if word in WORDS:
                pairs.append((int(number), WORDS[word]))
    if not pairs or sum(number for number, _ in pairs) != layers:
        return None
    return _spread(pairs)


def _spread(pairs: list[tuple[int, Keeps]]) -> tuple[Keeps, ...]:
    """The kinds interleaved evenly."""
    placed = [((index + 0.5) / number, kind) for number, kind in pairs for index in range(number)]
    return tuple(kind for _, kind in sorted(placed, key=lambda pair: pair[0]))


def _numbered(text: Fields, layers: int) -> tuple[Keeps, ...] | None:
    """Lists of indices, and lists of zeros and ones."""
    linear = text.get("linear_attn_config")
    if isinstance(linear, Mapping) and isinstance(linear.get("kda_layers"), list | tuple):
        states = {index - 1 for index in linear["kda_layers"] if isinstance(index, int)}
        return tuple(Keeps.STATE if index in states else Keeps.FULL for index in range(layers))
    for name, others in (("attn_layer_indices", Keeps.STATE), ("full_attn_idxs", Keeps.STATE)):
        places = text.get(name)
        if isinstance(places, list | tuple):
            return tuple(Keeps.FULL if index in places else others for index in range(layers))
    shared = text.get("hybrid_layer_ids")
    if isinstance(shared, list | tuple):
        return tuple(Keeps.BOTH if index in shared else Keeps.STATE for index in range(layers))
    for name, zero, one in (
        ("attn_type_list", Keeps.STATE, Keeps.FULL),
        ("hybrid_layer_pattern", Keeps.FULL, Keeps.SLIDING),
        ("no_rope_layers", Keeps.FULL, Keeps.CHUNKED),
    ):
        marks = text.get(name)
        if isinstance(marks, list | tuple) and len(marks) >= layers and (name != "no_rope_layers" or _chunked(text)):
            return tuple(one if mark else zero for mark in marks[:layers])
    return None


def _chunked(text: Fields) -> bool:
    return text.get("attention_chunk_size") is not None or text.model_type == "llama4_text"


def _lettered(text: Fields, layers: int) -> tuple[Keeps, ...] | None:
    """`M*-E` strings, one letter for each layer, and patterns that repeat: `LLLG`."""
    letters = text.get("hybrid_override_pattern")
    if isinstance(letters, str) and len(letters) >= layers and set(letters) <= LETTERS.keys():
        return tuple(LETTERS[letter] for letter in letters[:layers])
    repeated = text.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(repeated, str) and repeated and set(repeated) <= LETTERS.keys():
        found = [LETTERS[repeated[index % len(repeated)]] for index in range(layers)]
        return (*found[:-1], Keeps.FULL)
    return None


def _spaced(text: Fields, layers: int) -> tuple[Keeps, ...] | None:
    """A period, with an offset or without."""
    last = text.model_type in LAST_IS_FULL
    offset = text.whole("attn_layer_offset", default=0)
    readers: tuple[tuple[str, Callable[[int], tuple[Keeps, ...]]], ...] = (
        ("attn_layer_period", lambda n: _periodic(layers, n, Keeps.STATE, offset % n, False)),
        ("full_attention_interval", lambda n: _periodic(layers, n, Keeps.STATE, n - 1, False)),
        ("layer_group_size", lambda n: _periodic(layers, n, Keeps.STATE, n - 1, last)),
        ("no_rope_layer_interval", lambda n: _periodic(layers, n, Keeps.CHUNKED, n - 1, False)),
        ("sliding_window_pattern", lambda n: _periodic(layers, n, Keeps.SLIDING, n - 1, last)),
        ("_sliding_window_pattern", lambda n: _periodic(layers, n, Keeps.SLIDING, n - 1, last)),
    )
    for name, kinds_of in readers:
        period = text.get(name)
        if name == "no_rope_layer_interval" and not _chunked(text):
            continue
        if isinstance(period, int) and not isinstance(period, bool) and 1 < period < 1000:
            return kinds_of(period)
    return None
