"""Refs are read as people write them, and nothing else is let in."""

import pytest

from heliosd.core.names import ModelRef, parse_digest, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("smollm2", ModelRef("smollm2")),
        ("org/name", ModelRef("org/name")),
        ("org/name@v1.0", ModelRef("org/name", "v1.0")),
        ("org/name@refs/pr/7", ModelRef("org/name", "refs/pr/7")),
    ],
)
def test_reads(text: str, ref: ModelRef) -> None:
    assert parse_ref(text) == ref
    assert parse_ref(str(ref)) == ref


@pytest.mark.parametrize(
    "text", ["", "/", "a/b/c", "../etc", "a/..", "-x", "a b", "a@", "a@../b", "a@b//c", "x" * 97, "a\n", "ä"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        parse_ref(text)


def test_digest_is_a_sha256() -> None:
    assert parse_digest("a" * 64) == "a" * 64
    for wrong in ("a" * 63, "A" * 64, "g" * 64, "../" + "a" * 61):
        with pytest.raises(ValueError, match="cannot read"):
            parse_digest(wrong)
