"""Which parameters learn, and the bytes of all of them on one rank of tensor parallelism, before data parallelism.

NF4 (Dettmers et al. 2023): half a byte a number, a float32 scale for each 64 of them; double quantization makes the
scales single bytes with a float32 scale for each 256. Embeddings, norms and the output projection stay as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from heliosd.estimation.layout import Kind, Layout, Split, Tensor
from heliosd.estimation.training_activations import adapted
from heliosd.estimation.training_operators import Widths
from heliosd.estimation.training_optimizers import Trained
from heliosd.estimation.training_plan import Method, TrainingPlan

NF4_BLOCK = 64
NF4_BLOCKS_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of one rank of tensor parallelism."""

    base_bytes: int
    """Of the model's own weights."""
    adapter_bytes: int
    trained: tuple[Trained, ...]
    largest_unit_bytes: int
    """Weights that are gathered together: the largest layer, or the embedding or output projection."""
    largest_unit_trained: int
    """Most parameters that learn in one such unit."""
    base_elements: int

    @property
    def trained_elements(self) -> int:
        return sum(each.elements for each in self.trained)


def parameters(layout: Layout, plan: TrainingPlan, width: Widths) -> Parameters:
    """Every tensor once; those that a checkpoint stores as one matrix together."""
    trained: list[Trained] = []
    base_bytes = adapter_bytes = base_elements = largest_bytes = largest_trained = 0
    for copies, tensors in _units(layout):
        unit_bytes, unit_trained = 0, []
        for tensor in tensors:
            elements = on_rank(tensor, plan.tensor_parallel)
            unit_bytes += _stored_bytes(tensor, elements, plan, width, inside=copies > 0)
            base_elements += elements * max(1, copies)
            unit_trained += list(_learning(tensor, elements, plan))
        adapters = 0
        if plan.method is not Method.FULL:
            adapters = sum(each.elements for each in unit_trained) * width.trained
        base_bytes += unit_bytes * max(1, copies)
        adapter_bytes += adapters * max(1, copies)
        largest_bytes = max(largest_bytes, unit_bytes + adapters)
        largest_trained = max(largest_trained, sum(each.elements for each in unit_trained))
        trained += [replace(each, copies=each.copies * max(1, copies)) for each in unit_trained]
    return Parameters(base_bytes, adapter_bytes, tuple(trained), largest_bytes, largest_trained, base_elements)


def on_rank(tensor: Tensor, ranks: int) -> int:
    """Elements of all copies that the fullest of `ranks` holds."""
    match tensor.split:
        case Split.WHOLE:
            return tensor.elements
        case Split.HEADS if tensor.heads:
            return -(-tensor.elements * -(-tensor.heads // ranks) // tensor.heads)
        case _:
            return -(-tensor.elements // ranks)


def _units(layout: Layout) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """What is gathered together, with how many such there are; 0 for what stands outside the layers, once."""
    for tensor in (*layout.first, *layout.last, *layout.towers):
        yield 0, (tensor,)
    for block in layout.blocks:
        yield len(block.layers), merged(block.tensors)


def merged(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors of one name as the one matrix that they are in the model."""
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        before = found.get(tensor.name)
        rows = tensor.rows + (before.rows if before is not None else 0)
        found[tensor.name] = replace(tensor, rows=rows)
    return tuple(found.values())


def _stored_bytes(tensor: Tensor, elements: int, plan: TrainingPlan, width: Widths, *, inside: bool) -> int:
    if plan.method is Method.FULL:
        return elements * width.trained
    if plan.method is Method.QLORA and inside and tensor.kind in (Kind.LINEAR, Kind.EXPERT) and tensor.columns > 1:
        return nf4_bytes(elements, double=plan.double_quantization)
    return elements * width.frozen


def nf4_bytes(elements: int, *, double: bool) -> int:
    """Of a matrix in four bits with its scales."""
    blocks = -(-elements // NF4_BLOCK)
    scales = blocks + 4 * -(-blocks // NF4_BLOCKS_TOGETHER) if double else 4 * blocks
    return -(-elements // 2) + scales


def _learning(tensor: Tensor, elements: int, plan: TrainingPlan) -> Iterator[Trained]:
    if plan.method is Method.FULL:
        # Experts are one parameter in the model, other copies one each.
        copies = 1 if tensor.kind is Kind.EXPERT else tensor.copies
        rows = -(-elements // (tensor.columns * copies))
        yield Trained(rows, tensor.columns, copies, tensor.kind is Kind.EMBEDDING)
    elif adapted(tensor, plan):
        across = tensor.split is Split.COLUMNS
        rows = tensor.rows if across or tensor.split is Split.WHOLE else -(-tensor.rows // plan.tensor_parallel)
        columns = -(-tensor.columns // plan.tensor_parallel) if across else tensor.columns
        yield Trained(plan.rank, columns, tensor.copies)
        yield Trained(rows, plan.rank, tensor.copies)
