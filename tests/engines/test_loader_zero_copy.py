"""Pointing parameters at mapped tensors: what is taken, what is copied, and that nobody can tell the difference."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from heliosd.engines.loader_zero_copy import ZeroCopy  # noqa: E402

Loading = Callable[[Any, Any], None]


def loaded(module: Any, load: Loading, source: Any, mapped: bool = True) -> list[Any]:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    only = source.data_ptr()
    zero_copy = ZeroCopy(module, lambda address, size_bytes: mapped and address == only, least_bytes=1)
    with zero_copy:
        load(module, source)
    return zero_copy.settle()


def plain(module: Any, source: Any) -> None:
    module.weight.data.copy_(source)


def sliced(module: Any, source: Any) -> None:
    """As vLLM's embeddings do."""
    module.weight[: source.shape[0]].data.copy_(source)
    module.weight[source.shape[0] :].data.fill_(0)


def keeps_and_changes(module: Any, source: Any) -> None:
    data = module.weight.data
    data.copy_(source)
    data.mul_(2)
    data[0] += 1


def keeps_and_reads(module: Any, source: Any) -> None:
    data = module.weight.data
    data.copy_(source)
    module.weight.data.copy_(data + 1)


def composed(module: Any, source: Any) -> None:
    """As vLLM's `composed_weight_loader` does."""
    plain(module, source)
    module.weight.data.copy_(-torch.exp(module.weight))


def converts(module: Any, source: Any) -> None:
    module.weight.data.copy_(source.to(torch.float64))


def fused(module: Any, source: Any) -> None:
    half = source.shape[0] // 2
    module.weight.data.narrow(0, 0, half).copy_(source[:half])
    module.weight.data.narrow(0, half, half).copy_(source[half:])


def transposed(module: Any, source: Any) -> None:
    module.weight.data.copy_(source.t())


def twice(module: Any, source: Any) -> None:
    module.weight.data.copy_(source)
    module.weight.data.copy_(source.clone())


@pytest.mark.parametrize("load", [plain, sliced])
def test_a_whole_tensor_over_a_whole_parameter_is_not_copied(load: Loading) -> None:
    module, source = torch.nn.Linear(4, 4, bias=False), torch.randn(4, 4)
    assert [each.data_ptr() for each in loaded(module, load, source)] == [source.data_ptr()]
    assert module.weight.data_ptr() == source.data_ptr()
    assert torch.equal(module.weight, source)


@pytest.mark.parametrize(
    "load", [plain, sliced, keeps_and_changes, keeps_and_reads, composed, converts, fused, transposed, twice]
)
@pytest.mark.parametrize("mapped", [True, False])
def test_it_comes_out_as_with_copies(load: Loading, mapped: bool) -> None:
    source = torch.randn(4, 4)
    expected, module = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    for parameter in expected.parameters():
        parameter.requires_grad_(False)
    load(expected, source.clone())
    loaded(module, load, source.clone(), mapped)
    assert torch.equal(module.weight, expected.weight)


@pytest.mark.parametrize("load", [keeps_and_changes, composed, converts, fused, transposed, twice])
def test_what_is_changed_on_the_way_is_the_parameters_own(load: Loading) -> None:
    module, source = torch.nn.Linear(4, 4, bias=False), torch.randn(4, 4)
    assert loaded(module, load, source) == []
    assert module.weight.data_ptr() != source.data_ptr()


def test_a_parameter_that_something_else_looks_into_keeps_its_memory() -> None:
    module = torch.nn.Linear(4, 4, bias=False)
    module.register_buffer("flat", module.weight.data.view(-1), persistent=False)
    source = torch.randn(4, 4)
    assert loaded(module, plain, source) == []
    assert torch.equal(module.flat, source.view(-1))


def test_a_tied_weight_stays_tied() -> None:
    module, other = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    other.weight = module.weight
    both = torch.nn.ModuleList([module, other])
    for parameter in both.parameters():
        parameter.requires_grad_(False)
    source = torch.randn(4, 4)
    zero_copy = ZeroCopy(both, lambda address, size_bytes: True, least_bytes=1)
    with zero_copy:
        plain(module, source)
    assert len(zero_copy.settle()) == 1
    assert other.weight.data_ptr() == module.weight.data_ptr() == source.data_ptr()


def test_what_is_smaller_than_a_page_is_copied() -> None:
    module, source = torch.nn.Linear(4, 4, bias=False), torch.randn(4, 4)
    module.weight.requires_grad_(False)
    zero_copy = ZeroCopy(module, lambda address, size_bytes: True)
    with zero_copy:
        plain(module, source)
    assert zero_copy.settle() == []
    assert torch.equal(module.weight, source)
