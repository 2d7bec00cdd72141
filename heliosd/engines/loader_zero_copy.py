"""Has a model's parameters point at mapped tensors where its own loading code would have copied all of one over all of
the other.

The model decides which tensor goes where and how it is changed on the way; what is looked at is only the copy at the
end of it. That is put off, and done after all as soon as anything reads or writes what it should have filled. Where
nothing did until the whole model was loaded, the parameter gets the mapped memory instead.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LEAST_BYTES = 4096
"""Nothing smaller can be shared, and small ones are what loading code may read past PyTorch's dispatcher."""
IsMapped = Callable[[int, int], bool]
"""Whether these bytes, from an address on, lie in a mapping of ours."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """A copy that was not done yet: of all of a mapped tensor over all of a parameter."""

    parameter: Any
    target: Any
    mapped: Any


class ZeroCopy(TorchDispatchMode):  # type: ignore[misc]
    """Use as a context around the model's loading. `settle()` after it."""

    def __init__(self, model: Any, is_mapped: IsMapped, least_bytes: int = LEAST_BYTES) -> None:
        super().__init__()
        self._least_bytes = least_bytes
        self._is_mapped = is_mapped
        self._owners = _sole_owners(model)
        self._put_off: dict[int, PutOff] = {}
        """By the address of the parameter's memory."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default and self._puts_off(args[0], args[1]):
            return args[0]
        if self._put_off and not func.is_view:
            for tensor in _tensors((*args, *(kwargs or {}).values())):
                if tensor.numel() and (copy := self._put_off.pop(_address(tensor), None)) is not None:
                    copy.target.copy_(copy.mapped)
        return func(*args, **(kwargs or {}))

    def _puts_off(self, target: Any, source: Any) -> bool:
        address = _address(target)
        parameter = self._owners.get(address)
        if parameter is None or address in self._put_off or not _same(target, source):
            return False
        if target.shape != parameter.shape or not _covers(target) or not source.is_contiguous():
            return False
        if source.nbytes < self._least_bytes or not self._is_mapped(source.data_ptr(), source.nbytes):
            return False
        self._put_off[address] = PutOff(parameter, target.detach(), source.detach())
        return True

    def settle(self) -> list[Any]:
        """Have the parameters point at mapped tensors, and return these. The memory they had before is freed."""
        for copy in self._put_off.values():
            copy.parameter.data = copy.mapped
        found = [copy.mapped for copy in self._put_off.values()]
        self._put_off.clear()
        self._owners.clear()
        return found


def _same(target: Any, source: Any) -> bool:
    """Whether a copy would change nothing: not the number format, not the shape, not the device."""
    return bool(
        source.device.type == target.device.type == "cpu"
        and source.dtype == target.dtype
        and source.shape == target.shape
        and source.numel() > 0
        and not source.is_conj()
        and not source.is_neg()
    )


def _covers(tensor: Any) -> bool:
    """Whether a tensor is all of its storage, in order: nothing else can lie there."""
    return bool(
        tensor.is_contiguous() and tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == tensor.nbytes
    )


def _sole_owners(model: Any) -> dict[int, Any]:
    """Parameters by the address of their storage, without those that anything else knows the storage of.

    A view that a layer made of its parameter for later use must go on showing that parameter.
    """
    owners: dict[int, Any] = {}
    alone = _users(torch.nn.Parameter(torch.empty(1), requires_grad=False))
    for parameter in model.parameters():  # each once, also when it is tied
        if parameter.device.type == "cpu" and parameter.numel() and _covers(parameter) and _users(parameter) == alone:
            owners[_address(parameter)] = parameter
    return owners


def _users(tensor: Any) -> int:
    """How many tensors share a tensor's storage, and a constant."""
    storage = tensor.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata))


def _address(tensor: Any) -> int:
    return 0 if tensor.device.type == "meta" else int(tensor.untyped_storage().data_ptr())


def _tensors(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
