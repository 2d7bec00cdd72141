"""A language model with encoders in front of it: finds the parts of a configuration and joins their layouts.

Published configurations nest the parts or, when they are older or written by hand, name the language part's sizes at
the top and the encoders' in full, in part or not at all. What is missing is the class's default; an encoder of which
a configuration says nothing is noted in `Layout.guessed`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from heliosd.errors import BadRequest
from heliosd.estimation.families.assembly import moved
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import hidden_of
from heliosd.estimation.families.vision_assumed import ENCODERS
from heliosd.estimation.families.vision_blocks import Tensors
from heliosd.estimation.fields import Fields, class_defaults
from heliosd.estimation.layout import Layout

Towers = Callable[[Fields, int], Tensors]
"""`(the whole configuration, width of the language model) -> encoders and projectors`."""

SAME_AS: Mapping[str, str] = {"internlm2": "llama", "kimi_k2": "deepseek_v3"}
"""Classes that the library does not have, and whose tensors are another's."""
_ALONE = frozenset({"gemma3", "gemma4", "gemma4_unified", "llama4", "mllama", "qwen3_5", "qwen3_5_moe"})
"""Wholes whose class has another for the language part alone, published with the whole's configuration."""


def with_towers(
    towers: Towers,
    *,
    parts: tuple[str, ...] = ("vision_config",),
    prefix: str = "model.language_model.",
    language: str | None = None,
    generates: bool = False,
) -> Family:
    """A family whose language part is another family.

    `parts`: the encoders' configurations; `prefix`: what the checkpoint calls the language part (`model.` where it
    is not moved); `language`: the language part's class where a configuration does not say; `generates`: the class
    that writes is named like one that does not (`...Model`).
    """

    def family(fields: Fields, head: Head) -> Layout:
        text = language_of(fields, language)
        layout = language_layout(fields, text, Head.VOCABULARY if generates else head, prefix)
        if text_only(fields):
            return layout
        unsaid = tuple(part for part in parts if not fields.given(part))
        return replace(
            layout,
            towers=(*layout.towers, *towers(fields, hidden_of(text))),
            guessed=(*layout.guessed, *unsaid),
        )

    return family


def text_only(fields: Fields) -> bool:
    """Whether the architecture's name is that of the language part alone."""
    names = fields.items("architectures")
    return (
        bool(names) and isinstance(names[0], str) and names[0].endswith("ForCausalLM") and fields.model_type in _ALONE
    )


def language_of(fields: Fields, language: str | None = None) -> Fields:
    """The language part, tied as the whole model is."""
    text = fields.language()
    if text.model_type == fields.model_type or not text.model_type:
        text = text.changed(model_type=language) if language else text
    return text.changed(tie_word_embeddings=is_tied(fields, text))


def language_layout(fields: Fields, text: Fields, head: Head, prefix: str) -> Layout:
    """The language part's own layout. Raises BadRequest when no family knows its class."""
    from heliosd.estimation.families.registry import families

    known = families()
    family = known.get(text.model_type) or known.get(SAME_AS.get(text.model_type, ""))
    if family is None or text.model_type == fields.model_type:
        raise BadRequest(
            f"cannot read the configuration: no family knows the language part {text.model_type[:40]!r}",
            code="bad_config",
            param="text_config",
        )
    layout = family(text, head)
    return layout if prefix == "model." else moved(layout, prefix)


def is_tied(fields: Fields, text: Fields) -> bool:
    """Whether the output projection is the embedding.

    What the whole says explicitly, else what its language part says. Where both are silent, engines look at the
    language part, whose class may differ from the whole one's: tied then only when neither default denies it.
    """
    for part in (fields, text):
        said = part.explicit("tie_word_embeddings")
        if said is not None:
            return bool(said)
    whole = class_defaults().get(fields.model_type, {}).get("tie_word_embeddings")
    own = class_defaults().get(text.model_type, {}).get("tie_word_embeddings")
    return own is not False and whole is not False and (own or whole or False)


def part_of(fields: Fields, name: str, model_type: str | None = None, fallback: str = "") -> Fields | None:
    """The encoder's configuration `name`, read with the defaults of `model_type`; None when there is none.

    Without `model_type`, the configuration's own class counts, then its default's, then `fallback`.
    """
    raw = fields.get(name)
    if not fields.given(name):
        raw = ENCODERS.get((fields.model_type, name), raw)
    if not isinstance(raw, Mapping):
        if not fallback or fields.given(name):
            return None
        raw = {}
    if model_type is None:
        own = raw.get("model_type")
        default = class_defaults().get(fields.model_type, {}).get(name)
        inherited = default.get("model_type") if isinstance(default, Mapping) else None
        model_type = (own if isinstance(own, str) else "") or inherited or fallback
    return Fields({**raw, "model_type": model_type})


def needed(fields: Fields, name: str, model_type: str | None = None, fallback: str = "") -> Fields:
    """Like `part_of`, with everything from the class's default when the configuration has no such part."""
    found = part_of(fields, name, model_type, fallback)
    return found if found is not None else Fields({"model_type": model_type or fallback})
