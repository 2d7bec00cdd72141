"""The nearest names: without case, with or without the organisation."""

import pytest

from heliosd.demands import nearest

NAMES = ["org1/qwen", "org2/qwen", "HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2", "tiny"]


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("org1/qwenn", "org1/qwen"),
        ("org2/Qwen", "org2/qwen"),
        ("smollm", "smollm2"),
        ("tini", "tiny"),
        ("someone/SmolLM2-135M-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_nearest(asked: str, first: str) -> None:
    assert nearest(asked, NAMES)[0] == first


def test_both_of_one_short_name_are_named() -> None:
    assert nearest("qwenn", NAMES) == ["org1/qwen", "org2/qwen"]


def test_nothing_is_near() -> None:
    assert nearest("zzz", NAMES) == []
