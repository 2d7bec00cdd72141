"""Parameter counts against `transformers` itself, on the meta device, for every architecture that Helios could serve.

Groups are the library's own lists (`architectures.GROUPS`): causal, multimodal, sequence-to-sequence, speech, masked,
encoders, classifiers. What is only vision, audio classification, time series or image generation is in none of them:
no engine here serves it, and its weights are read from its headers. Classes that do not instantiate with their own
defaults are left out; `families/test_*_varied.py` give many of them sizes.
"""

import pytest

from tests.estimation.architectures import GROUPS, architectures, compare

_ZERO = "the class makes matrices for its `zero` experts, which published checkpoints do not have"
_PROTEIN = "its protein encoder is no part of what an engine serves"
_ROBOT = "a policy for robots, no language model"
_BOTH = "all of speech and text, in and out: an engine serves one way through it"
EXCEPTIONS = {
    "LongcatFlashForCausalLM": _ZERO,
    "LongcatFlashModel": _ZERO,
    "EvollaForProteinText2Text": _PROTEIN,
    "EvollaModel": _PROTEIN,
    "PI0ForConditionalGeneration": _ROBOT,
    "PI0Model": _ROBOT,
    "SeamlessM4TModel": _BOTH,
    "SeamlessM4Tv2Model": _BOTH,
    "Qwen2_5OmniForConditionalGeneration": "its speaking half is not loaded by an engine of text",
    "KyutaiSpeechToTextModel": "without its head it still carries the codec's matrices twice",
    "BlipModel": "compares texts with images; the one that captions is counted exactly",
    "UdopModel": "1,024 parameters of a second table of positions that the class never uses",
}
FEWEST = {
    "causal": 150,
    "multimodal": 75,
    "seq2seq": 30,
    "speech": 15,
    "masked": 45,
    "encoding": 25,
    "classes": 110,
    "base": 250,
}
"""So many of a group instantiate at least; fewer would mean that the test compares nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_architecture_that_instantiates_is_counted_exactly(group: str) -> None:
    exact, wrong = 0, []
    for architecture in architectures(group):
        true, predicted, why = compare(architecture)
        if true is None:
            continue
        if true == predicted:
            exact += 1
            assert architecture.name not in EXCEPTIONS, f"{architecture.name} is exact now: no exception any more"
        elif architecture.name not in EXCEPTIONS:
            wrong.append(f"{architecture.name}: {true} parameters, predicted {predicted} {why}")
    assert not wrong, "\n".join(wrong)
    assert exact >= FEWEST[group]
