"""Which files of a repository come in."""

import pytest

from heliosd.errors import BadRequest, CorruptData, NotAllowed
from heliosd.store.selection import choose
from heliosd.store.sources.source import SourceFile


def chosen(*paths: str, allow_pickle: bool = False) -> list[str]:
    files = [SourceFile(path, 1) for path in paths]
    return [file.path for file in choose(files, "org/m", allow_pickle=allow_pickle)]


def test_what_an_engine_needs() -> None:
    needed = [
        "1_Pooling/config.json",
        "LICENSE",
        "chat_template.jinja",
        "config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "modeling_own.py",
        "tokenizer.json",
        "tokenizer.model",
    ]
    other = [
        ".cache/huggingface/x.json",
        ".gitattributes",
        "README.md",
        "consolidated.safetensors",
        "figure.png",
        "flax_model.msgpack",
        "model.Q4.gguf",
        "onnx/config.json",
        "optimizer.pt",
        "original/consolidated.00.pth",
        "pytorch_model.bin",
        "trainer_state.json",
        "training_args.bin",
    ]
    assert chosen(*needed, *other) == needed


def test_weights_that_are_only_consolidated_are_kept() -> None:
    assert "consolidated.safetensors" in chosen("config.json", "consolidated.safetensors")


def test_pickles() -> None:
    paths = ("config.json", "pytorch_model.bin", "training_args.bin", "rng_state_0.pth")
    with pytest.raises(NotAllowed, match=r"pytorch_model\.bin"):
        chosen(*paths)
    assert chosen(*paths, allow_pickle=True) == ["config.json", "pytorch_model.bin"]


def test_what_holds_no_model() -> None:
    with pytest.raises(BadRequest, match=r"no config\.json"):
        chosen("model.safetensors")
    with pytest.raises(BadRequest, match="no weights"):
        chosen("config.json")
    with pytest.raises(BadRequest, match=r"import its m\.gguf as a GGUF file"):
        chosen("m.gguf")


def test_a_name_that_is_given_twice_or_cannot_be_written() -> None:
    with pytest.raises(CorruptData, match="listed twice"):
        chosen("config.json", "config.json", "model.safetensors")
    with pytest.raises(CorruptData, match="surrogates"):
        chosen("config.json", "model.safetensors", "\udcff.json")


@pytest.mark.parametrize("path", ["../x.json", "/etc/x.json", "a/../../x.json", "a\\x.json", "a//x.json", "a\nb.json"])
def test_names_that_lead_out_of_the_folder(path: str) -> None:
    with pytest.raises(CorruptData, match="plain relative path"):
        chosen("config.json", "model.safetensors", path)
