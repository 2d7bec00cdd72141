"""vLLM's load format `helios`: its own loader of safetensors, with tensors that are mapped instead of read.

Which files a model needs, which experts are this worker's and what the model makes of each tensor stays vLLM's. On the
CPU, parameters end up pointing at the page cache, where several replicas share them; on a GPU, tensors come through
`loader_staging`. Files may be recipes, see `tensor_files`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import vllm.model_executor.model_loader as loaders
from vllm.model_executor.model_loader import default_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

from heliosd.core.units import MiB
from heliosd.engines import loader_memory
from heliosd.engines.changed import changed
from heliosd.engines.loader_formats import HELIOS
from heliosd.engines.loader_staging import Cuda, Ring
from heliosd.engines.loader_zero_copy import ZeroCopy
from heliosd.engines.tensor_files import TensorFile, open_tensor_file, recipes_in, weight_files
from heliosd.engines.tensor_files_mapped import MappedFile
from heliosd.errors import CorruptData
from heliosd.estimation.headers import Tensor

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
_FILES = "safetensors_weights_iterator"


class HeliosModelLoader(DefaultModelLoader):  # type: ignore[misc]
    """What is not a safetensors file, it loads as vLLM does with `auto`."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)
        self.load_config: Any
        self._files: list[MappedFile] = []
        self._onto_gpu = False
        """Not outside of `load_weights`: who asks for all weights, to compare them, may keep them all at once."""

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Raises what vLLM raises, and CorruptData for a file that is not what it says."""
        if loaders_device() != "cpu":
            self._onto_gpu = loaders_device() == "cuda"
            super().load_weights(model, model_config)
            torch.accelerator.empty_host_cache()  # the pinned buffers, which PyTorch would keep
            return
        zero_copy = ZeroCopy(model, self._is_mapped)
        with zero_copy:
            super().load_weights(model, model_config)
        pointed_at = zero_copy.settle()
        loader_memory.remember(pointed_at, [memory for file in self._files for memory in file.maps])
        self._files.clear()
        default_loader.logger.info(
            "Mapped %d MiB of weights in %d tensors", sum(each.nbytes for each in pointed_at) // MiB, len(pointed_at)
        )

    def _is_mapped(self, address: int, size_bytes: int) -> bool:
        return any(loader_memory.lies_in(memory, address, size_bytes) for file in self._files for memory in file.maps)

    def _prepare_weights(
        self,
        model_name_or_path: str,
        subfolder: str | None,
        revision: str | None,
        fall_back_to_pt: bool,
        allow_patterns_overrides: list[str] | None,
    ) -> Any:
        folder = Path(model_name_or_path, subfolder or "")
        if allow_patterns_overrides is None and recipes_in(folder):
            return _choose(folder)
        with self._as_auto():
            return super()._prepare_weights(
                model_name_or_path, subfolder, revision, fall_back_to_pt, allow_patterns_overrides
            )

    @contextmanager
    def _as_auto(self) -> Iterator[None]:
        """vLLM knows only its own formats there."""
        ours = self.load_config
        self.load_config = copy.copy(ours)
        self.load_config.load_format = "auto"
        try:
            yield
        finally:
            self.load_config = ours

    def _get_weights_iterator(self, source: Any) -> Any:
        theirs = getattr(default_loader, _FILES, None)
        if theirs is None or not hasattr(super(), "_get_weights_iterator"):
            raise changed(f"default_loader.{_FILES}")

        def files(paths: list[str], use_tqdm: bool, strategy: str | None = None, **options: Any) -> Any:
            if strategy == "torchao":  # puts subclasses of tensors together again
                return theirs(paths, use_tqdm, strategy, **options)
            return self._tensors(sorted(map(Path, paths)), options.get("local_expert_ids"), theirs)

        setattr(default_loader, _FILES, files)
        try:
            return super()._get_weights_iterator(source)
        finally:
            setattr(default_loader, _FILES, theirs)

    def _tensors(self, paths: list[Path], experts: set[int] | None, theirs: Any) -> Iterator[tuple[str, Any]]:
        for path in paths:
            file = open_tensor_file(path)
            if foreign := {each.dtype for each in file.header.tensors} - DTYPES.keys():
                if recipes_in(path.parent):
                    raise CorruptData(f"cannot load {path.name}: no tensor can be made of {', '.join(sorted(foreign))}")
                yield from theirs([str(path)], False, None, local_expert_ids=experts)
                continue
            wanted = [each for each in file.header.tensors if not should_skip_weight(each.name, experts)]
            if self._onto_gpu:
                with Ring(Cuda()) as ring:
                    yield from ring.tensors(file, wanted, DTYPES)
            else:
                yield from self._mapped(file, wanted)

    def _mapped(self, file: TensorFile, wanted: list[Tensor]) -> Iterator[tuple[str, Any]]:
        mapped = MappedFile(file)
        self._files.append(mapped)
        for each in wanted:
            mapped.fetch(each.begin, each.end)
            yield each.name, tensor_of(mapped, each)


def tensor_of(file: MappedFile, tensor: Tensor) -> Any:
    """A tensor over the mapping, with a storage of its own size; a copy where it straddles parts or is not aligned."""
    dtype = DTYPES[tensor.dtype]
    view = file.view(tensor.begin, tensor.end)
    if tensor.begin == tensor.end:
        return torch.empty(tensor.shape, dtype=dtype, device="cpu")
    if view is not None and view.offset % dtype.itemsize == 0:
        flat = torch.frombuffer(view.memory, dtype=dtype, count=view.size_bytes // dtype.itemsize, offset=view.offset)
    else:
        flat = torch.frombuffer(file.copy(tensor.begin, tensor.end), dtype=dtype)
    return flat.view(tensor.shape)


def loaders_device() -> str:
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def _choose(folder: Path) -> tuple[str, list[str], bool, str]:
    """As `DefaultModelLoader._prepare_weights` does in a directory, for files of which some are recipes."""
    files = weight_files(folder)
    consolidated = [file for file in files if file.name.startswith("consolidated")]
    index = "consolidated.safetensors.index.json" if consolidated else default_loader.SAFE_WEIGHTS_INDEX_NAME
    names = [str(file) for file in consolidated or files]
    return str(folder), default_loader.filter_duplicate_safetensors_files(names, str(folder), index), True, index


def register() -> None:
    """Make the format known to vLLM in this process: the plug-in's entry point, and the zygote's."""
    if loaders._LOAD_FORMAT_TO_MODEL_LOADER.get(HELIOS) is not HeliosModelLoader:
        loaders.register_model_loader(HELIOS)(HeliosModelLoader)
