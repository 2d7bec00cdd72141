"""Which files of a repository or folder an engine needs, and whether its weights may come in. Pure."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from heliosd.core.manifest import MAX_FILES, checked_path
from heliosd.errors import BadRequest, CorruptData, NotAllowed
from heliosd.store.adapter_config import CONFIG, WEIGHTS, WEIGHTS_STEM
from heliosd.store.sources.source import SourceFile

PICKLES = (".bin", ".pt", ".ckpt", ".pth", ".pkl", ".pickle")
"""Loading one of these runs whatever code its author put into it."""

_KEPT = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".spm", ".vocab", ".bpe")
_ALSO_KEPT = ("LICENSE", "NOTICE")
_OTHER_FORMATS = ("onnx", "openvino", "coreml", "original", "metal", "gguf", "tflite", "runs", "checkpoints")
"""Folders with the same weights once more, for other engines, or with what training left behind."""
_TRAINING = ("optimizer", "scheduler", "rng_state", "training_args", "trainer_state")


def choose(files: Sequence[SourceFile], where: str, *, allow_pickle: bool) -> tuple[SourceFile, ...]:
    """Pick what an engine needs of a model or an adapter. Safetensors are taken rather than pickles if there are both.

    Raises BadRequest when there is neither in it, NotAllowed when its weights are pickles and those were not
    allowed, CorruptData for a file name that would leave the folder.
    """
    _check_names(files, where)
    plain = [file for file in files if _wanted_place(PurePosixPath(file.path))]
    kept = [file for file in plain if _wanted_kind(PurePosixPath(file.path))]
    tensors = [file for file in kept if file.path.endswith(".safetensors")]
    pickles = [file for file in plain if file.path.endswith(PICKLES)]
    if _is_adapter(plain):
        kept = [file for file in plain if file.path == CONFIG or file.path.startswith(_ALSO_KEPT)]
        tensors = [file for file in plain if file.path == WEIGHTS]
        pickles = [file for file in plain if _is_adapter_pickle(file.path)]
        kept += tensors
    elif not any(file.path == "config.json" for file in kept):
        raise BadRequest(f"cannot add {where}: it has no config.json, so no engine can load it{_hint(files)}")
    if tensors:
        return tuple(sorted(_without_second_copy(kept), key=lambda file: file.path))
    if not pickles:
        raise BadRequest(f"cannot add {where}: it has no weights in safetensors format{_hint(files)}")
    if not allow_pickle:
        raise NotAllowed(
            f"cannot add {where}: its weights are pickles ({pickles[0].path}), which run code when they are loaded; "
            "choose a revision with safetensors, or allow pickles for this model if you trust its author",
            code="pickle_refused",
        )
    return tuple(sorted([*kept, *pickles], key=lambda file: file.path))


def _is_adapter(files: Sequence[SourceFile]) -> bool:
    """A configuration of one, and no weights beside it but its own. Those in folders are steps of its training."""
    names = {file.path for file in files if "/" not in file.path}
    weights = [
        name for name in names if name.endswith((".safetensors", *PICKLES)) and not name.startswith(WEIGHTS_STEM)
    ]
    return CONFIG in names and not ("config.json" in names and weights)


def _is_adapter_pickle(path: str) -> bool:
    return path.startswith(WEIGHTS_STEM) and path.endswith(PICKLES) and "/" not in path


def _check_names(files: Sequence[SourceFile], where: str) -> None:
    if len(files) > MAX_FILES:
        raise BadRequest(f"cannot add {where}: it holds {len(files)} files, the limit is {MAX_FILES}")
    seen: set[str] = set()
    for file in files:
        try:
            checked_path(file.path).encode()
        except ValueError as error:
            raise CorruptData(f"cannot add {where}: {error}") from error
        if file.path in seen:
            raise CorruptData(f"cannot add {where}: {file.path} is listed twice")
        seen.add(file.path)


def _wanted_place(path: PurePosixPath) -> bool:
    """Not hidden, not one of another engine's folders, not a training run's state."""
    return (
        not any(part.startswith(".") for part in path.parts)
        and not any(part.lower() in _OTHER_FORMATS for part in path.parts[:-1])
        and not path.name.startswith(_TRAINING)
    )


def _wanted_kind(path: PurePosixPath) -> bool:
    return path.name.endswith(_KEPT) or path.name.startswith(_ALSO_KEPT)


def _without_second_copy(files: list[SourceFile]) -> list[SourceFile]:
    """Some repositories hold the weights twice: as `model*` and, for their author's own loader, as `consolidated*`."""
    names = [PurePosixPath(file.path).name for file in files]
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        return files
    return [file for file in files if not PurePosixPath(file.path).name.startswith("consolidated")]


def _hint(files: Sequence[SourceFile]) -> str:
    gguf = next((file.path for file in files if file.path.endswith(".gguf")), None)
    return f"; import its {gguf} as a GGUF file instead" if gguf else ""
