"""Every architecture of the installed `transformers` that Helios could serve, instantiated without memory.

`python -m tests.estimation.architectures [GROUP] [MODEL_TYPE ...]` compares parameter counts and prints what differs.
"""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heliosd.errors import HeliosError
from heliosd.estimation.families.registry import layout_of
from tests.estimation.offline import no_hub

GROUPS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "multimodal": "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "encoding": "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
    "classes": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "base": "MODEL_MAPPING_NAMES",
}

TEXT = ("causal", "seq2seq", "masked", "encoding", "multimodal")
"""Of the models without a head (`base`), those are looked at that exist with one in these groups."""


@dataclass(frozen=True, slots=True)
class Architecture:
    group: str
    model_type: str
    name: str


def architectures(group: str) -> Iterator[Architecture]:
    from transformers.models.auto import modeling_auto

    served = {name for each in TEXT for name in getattr(modeling_auto, GROUPS[each])}
    for model_type, names in getattr(modeling_auto, GROUPS[group]).items():
        if group == "base" and model_type not in served:
            continue
        name = names[0] if isinstance(names, tuple | list) else names
        yield Architecture(group, model_type, name)


def instantiate(architecture: Architecture, **changes: Any) -> tuple[dict[str, Any], Any]:
    """(configuration as it would be published, the model on the meta device). Raises whatever the class raises."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    with no_hub():
        config = CONFIG_MAPPING[architecture.model_type](**changes)
    config.architectures = [architecture.name]
    with no_hub(), torch.device("meta"):
        model = getattr(transformers, architecture.name)(config)
    return config.to_dict(), model


def parameters(model: Any) -> int:
    """Tied ones once, as the module itself counts them."""
    return sum(parameter.numel() for parameter in model.parameters())


def compare(architecture: Architecture, **changes: Any) -> tuple[int | None, int | None, str]:
    """(true count, predicted count, what was raised on the way)."""
    try:
        config, model = instantiate(architecture, **changes)
    except Exception as error:
        return None, None, f"does not instantiate: {type(error).__name__}: {str(error)[:100]}"
    true = parameters(model)
    try:
        layout = layout_of(config)
    except HeliosError as error:
        return true, None, str(error)
    return true, None if layout is None else layout.parameters, "" if layout else "no family"


def main() -> None:
    groups = [word for word in sys.argv[1:] if word in GROUPS] or list(GROUPS)
    types = {word for word in sys.argv[1:] if word not in GROUPS}
    right = wrong = absent = 0
    for group in groups:
        for architecture in architectures(group):
            if types and architecture.model_type not in types:
                continue
            true, predicted, why = compare(architecture)
            if true is None:
                absent += 1
                print(f"absent {group:10} {architecture.model_type:28} {architecture.name:44} {why}")
            elif true == predicted:
                right += 1
            else:
                wrong += 1
                off = "" if predicted is None else f"{predicted - true:+}"
                print(f"WRONG  {group:10} {architecture.model_type:28} {architecture.name:44} {true} {off} {why}")
    print(f"{right} exact, {wrong} not, {absent} do not instantiate")


if __name__ == "__main__":
    main()
