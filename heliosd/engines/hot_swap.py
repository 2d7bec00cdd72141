"""In an engine's process: other weights of the same shape in place of those that are there, and proof that they are.

vLLM reads them into the tensors that exist. Every tensor of the new model is compared with what lies in the engine,
because vLLM's loaders pass over a name that they do not know. Kernels on the CPU pack weights into memory of their own
and empty the parameter: what they pack is compared just before.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from heliosd.engines import preload


@dataclass(slots=True)
class Compared:
    """What came of comparing."""

    equal_bytes: int = 0
    unknown_bytes: int = 0
    """Of tensors that have no counterpart in the engine by their name."""
    differs: str | None = None
    """The first parameter that is another than in the files."""


class Expected:
    """What a model's files hold, by the engine's names for it."""

    def __init__(self, model: Any, weights: Iterable[tuple[str, Any]]) -> None:
        held = dict(model.named_parameters())
        packed: Mapping[str, list[str]] = getattr(model, "packed_modules_mapping", None) or {}
        self.found = Compared()
        self._whole: dict[str, list[Any]] = {}
        parts: dict[str, dict[int, Any]] = {}
        counts: dict[str, int] = {}
        for name, tensor in weights:
            whole, number, count = (name, 0, 1) if name in held else _part_of(name, packed)
            if whole not in held:
                self.found.unknown_bytes += tensor.nbytes
                continue
            parts.setdefault(whole, {})[number] = tensor
            counts[whole] = count
        for whole, some in parts.items():
            if len(some) == counts[whole]:
                self._whole[whole] = [some[number] for number in range(counts[whole])]
            else:
                self.found.unknown_bytes += sum(tensor.nbytes for tensor in some.values())

    def look(self, name: str, parameter: Any) -> None:
        """Compare one parameter, unless it was before. Rows behind the last are padding."""
        tensors = self._whole.get(name)
        if tensors is None or not parameter.numel():
            return
        del self._whole[name]
        rows = sum(tensor.shape[0] if tensor.dim() else 1 for tensor in tensors)
        shaped = parameter.dim() and all(tensor.shape[1:] == parameter.shape[1:] for tensor in tensors)
        if not shaped or rows > parameter.shape[0]:
            self.found.unknown_bytes += sum(tensor.nbytes for tensor in tensors)
            return
        begin = 0
        for tensor in tensors:
            there = parameter.data[begin : begin + tensor.shape[0]]
            begin += tensor.shape[0]
            if not _equal(there, tensor.to(there.device, there.dtype)):
                self.found.differs = self.found.differs or name
            self.found.equal_bytes += tensor.nbytes

    def rest(self, model: Any) -> Compared:
        """Compare what is left, and tell."""
        for name, parameter in model.named_parameters():
            self.look(name, parameter)
        self.found.unknown_bytes += sum(tensor.nbytes for some in self._whole.values() for tensor in some)
        return self.found


def _equal(one: Any, other: Any) -> bool:
    """Bit for bit; eight bytes at a time where they lie in a row, which is several times faster than by numbers."""
    import torch

    if one.is_contiguous() and other.is_contiguous() and one.nbytes % 8 == 0:
        one, other = (each.reshape(-1).view(torch.uint8).view(torch.int64) for each in (one, other))
    return bool(torch.equal(one, other))


def _part_of(name: str, packed: Mapping[str, list[str]]) -> tuple[str, int, int]:
    """The parameter that a tensor is part of, which part, of how many, one below the other."""
    for whole, parts in packed.items():
        for number, part in enumerate(parts):
            if f".{part}." in name:
                return name.replace(f".{part}.", f".{whole}."), number, len(parts)
    return "", 0, 1


def swap(
    runner: Any, vllm_config: Any, directory: str, served_names: list[str], ended: Callable[[str], None]
) -> Compared:
    """Read the weights in `directory` and compare. Raises what vLLM does; the engine is then good for nothing.

    `ended` is told of each phase: `weights` are read, with what had to be compared before it was packed, and `check`.
    """
    model, config = runner.get_model(), vllm_config.model_config
    config.model = config.tokenizer = directory
    config.served_model_name = served_names
    loaders = importlib.import_module("vllm.model_executor.model_loader")
    loader = loaders.get_model_loader(vllm_config.load_config)
    weights = list(loader.get_all_weights(config, model))  # as they lie in the mapped files
    expected = Expected(model, weights)
    with _before_packing(model, expected):
        runner.reload_weights(weights_iterator=iter(weights))
    preload.forget_tokenizer(config)
    ended("weights")
    found = expected.rest(model)
    ended("check")
    return found


@contextmanager
def _before_packing(model: Any, expected: Expected) -> Iterator[None]:
    """Have each layer's parameters looked at when they are read and nothing is made of them yet."""
    names = {layer: name for name, layer in model.named_modules()}
    methods = {id(it): it for layer in names if (it := getattr(layer, "quant_method", None)) is not None}

    packed: set[Any] = set()

    def look_and_pack(pack: Any, layer: Any) -> None:
        packed.add(layer)
        for name, parameter in layer.named_parameters(recurse=False):
            expected.look(f"{names[layer]}.{name}", parameter)
        pack(layer)

    for method in methods.values():
        method.process_weights_after_loading = partial(look_and_pack, method.process_weights_after_loading)
    try:
        yield
        # A head that is tied to the table of tokens has no weights of its own in the files, so that vLLM passes it
        # over, but it may have packed those of the table for itself.
        for layer in names.keys() - packed:
            if hasattr(layer, "quant_method") and any(each.numel() for each in layer.parameters(recurse=False)):
                layer.quant_method.process_weights_after_loading(layer)
    finally:
        for method in methods.values():
            del method.process_weights_after_loading
