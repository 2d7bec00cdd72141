"""One tokenizer serves all engines whose files are the same, and no other."""

import copy
from pathlib import Path
from typing import Any

import pytest

from heliosd.engines.tokenizers import Tokenizers, content, shared


class Pool:
    """What vLLM makes of a tokenizer."""

    made = 0

    def __init__(self) -> None:
        Pool.made += 1


def folder(root: Path, name: str, **files: str) -> Path:
    """A model's directory, as the store presents it: links to blobs that are named by what is in them."""
    blobs, made = root / "blobs", root / name
    blobs.mkdir(exist_ok=True)
    made.mkdir()
    for file, text in files.items():
        (blobs / f"digest-of-{text}").write_text(text)
        (made / file.replace("__", ".")).symlink_to(blobs / f"digest-of-{text}")
    return made


def tokenizers(kept: int = 6) -> tuple[Tokenizers, list[str]]:
    loaded: list[str] = []

    def load(name: str, **options: Any) -> object:
        loaded.append(Path(name).name)
        return object()

    return Tokenizers(load, lambda tokenizer: [tokenizer], kept), loaded


def test_models_with_the_same_tokenizer_share_it(tmp_path: Path) -> None:
    one = folder(tmp_path, "one", tokenizer__json="words", model__safetensors="1", generation_config__json="a")
    two = folder(tmp_path, "two", tokenizer__json="words", model__safetensors="2", generation_config__json="b")
    some, loaded = tokenizers()
    assert some.get(str(one), mode="auto") is some.get(str(two), mode="auto")
    assert loaded == ["one"]
    assert some.get(str(two), mode="slow") is not some.get(str(one), mode="auto")


@pytest.mark.parametrize("file", ["tokenizer__json", "chat_template__jinja", "config__json", "vocab__txt"])
def test_any_file_that_it_may_read_tells_them_apart(tmp_path: Path, file: str) -> None:
    assert content(folder(tmp_path, "one", **{file: "a"})) != content(folder(tmp_path, "two", **{file: "b"}))


def test_a_file_that_is_no_link_is_known_by_its_place_and_time(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("words")
    before = content(tmp_path)
    (tmp_path / "tokenizer.json").write_text("other words")
    assert content(tmp_path) != before


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    some, loaded = tokenizers(kept=2)
    folders = [folder(tmp_path, name, tokenizer__json=name) for name in ("a", "b", "c")]
    for each in (*folders, folders[2], folders[1], folders[0]):
        some.get(str(each))
    assert loaded == ["a", "b", "c", "a"]


def test_what_cannot_be_shared_is_loaded_each_time(tmp_path: Path) -> None:
    some = Tokenizers(lambda name: object(), lambda tokenizer: None)
    assert some.get(str(tmp_path)) is not some.get(str(tmp_path))


def test_a_copy_of_a_shared_one_is_itself() -> None:
    pooled = shared(lambda tokenizer: Pool(), Pool, object())
    assert copy.copy(pooled) is pooled
    assert shared(lambda tokenizer: tokenizer, Pool, object()) is None
