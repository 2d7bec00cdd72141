"""What reverse-mode differentiation keeps and allocates: a tape of operations by their sizes, played backwards.

The rules are those of PyTorch's autograd: an operation saves an operand only if the gradient of another one needs it;
what several operations save counts once per storage; a view has the storage of its base; in the backward pass all
gradients that an operation gives stand beside its own gradient and what it saved, which are then let go; gradients of
a tensor with several uses are summed in place. Nothing here knows of models.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Storage:
    """Memory that values share."""

    n_bytes: int
    counted: bool = True
    """False for what stands in another account: parameters, and tables that all layers share."""
    of_weights: bool = False
    """A copy of a parameter in another width."""


@dataclass(slots=True, eq=False)
class Value:
    """A tensor: its elements, bytes for each, and whether a gradient flows into it."""

    elements: int
    width: int
    grad: bool
    storage: Storage
    leaf: bool = False
    """A parameter: its gradient stays when the backward pass is over."""

    @property
    def n_bytes(self) -> int:
        return self.elements * self.width


@dataclass(slots=True, eq=False)
class _Node:
    out: Value
    inputs: tuple[Value, ...]
    saved: tuple[Storage, ...]
    passes: bool
    """The output's gradient is the inputs' (sums and views): nothing is allocated."""
    temporary_bytes: int


@dataclass(frozen=True, slots=True)
class Backward:
    """The backward pass over one tape."""

    peak_bytes: int
    """Most bytes at once: what is still saved, gradients under way, gradients of parameters, scratch."""
    gradient_bytes: int
    """Of parameters, kept at the end."""


@dataclass(slots=True)
class Tape:
    """Operations in their order; only those through which a gradient flows are kept."""

    nodes: list[_Node] = field(default_factory=list)
    uses: list[tuple[Storage, ...]] = field(default_factory=list)
    """Of each operation, through which a gradient flows or not: its operands and its result."""

    def value(
        self,
        elements: int,
        width: int,
        inputs: Iterable[Value],
        saved: Iterable[Value] = (),
        *,
        passes: bool = False,
        view_of: Value | None = None,
        temporary_bytes: int = 0,
        keeps_itself: bool = False,
    ) -> Value:
        """The result of an operation on `inputs` whose backward pass needs `saved` (and, `keeps_itself`, the result).

        `temporary_bytes` are allocated in the backward pass beside the inputs' gradients.
        """
        operands = tuple(inputs)
        flows = any(operand.grad for operand in operands)
        storage = view_of.storage if view_of is not None else Storage(elements * width)
        out = Value(elements, width, flows, storage)
        self.uses.append((*(operand.storage for operand in operands), storage))
        if flows:
            kept = [each.storage for each in saved]
            if keeps_itself:
                kept.append(storage)
            needing = tuple(operand for operand in operands if operand.grad)
            counted = tuple(dict.fromkeys(each for each in kept if each.counted))
            self.nodes.append(_Node(out, needing, counted, passes, temporary_bytes))
        return out

    def hold(self, *values: Value) -> None:
        """The program still has these at this point, used or not."""
        self.uses.append(tuple(value.storage for value in values))

    def forward_bytes(self, held: Sequence[Storage] = ()) -> int:
        """Most bytes at once in the forward pass: what is saved so far, and what is still to be used."""
        kept = self.saved() | set(held)
        last = {storage: number for number, used in enumerate(self.uses) for storage in used}
        live = peak = sum(storage.n_bytes for storage in held)
        there = set(held)
        for number, used in enumerate(self.uses):
            fresh = {storage for storage in used if storage.counted} - there
            there |= fresh
            live += sum(storage.n_bytes for storage in fresh)
            peak = max(peak, live)
            gone = {each for each in used if each in there and last[each] == number} - kept
            there -= gone
            live -= sum(storage.n_bytes for storage in gone)
        return peak

    def saved(self) -> set[Storage]:
        """Every storage that is kept for the backward pass and counts."""
        return {storage for node in self.nodes for storage in node.saved}

    def backward(self, out: Value, *, held: Sequence[Storage] = (), keeps_gradients: bool = True) -> Backward:
        """Play back from the gradient of `out`, whose bytes are part of the peak.

        `held` stays to the end whoever saves it; gradients of parameters go at once unless `keeps_gradients`.
        """
        play = _Play(keeps_gradients)
        for storage in (*(each for node in self.nodes for each in node.saved), *held):
            play.save(storage)
        play.start(out)
        for node in reversed(self.nodes):
            play.step(node)
        return Backward(play.peak_bytes, play.kept_bytes)


@dataclass(slots=True, eq=False)
class _Gradient:
    n_bytes: int
    holders: int = 1


@dataclass(slots=True)
class _Play:
    """The state of a backward pass."""

    keeps_gradients: bool
    live_bytes: int = 0
    peak_bytes: int = 0
    kept_bytes: int = 0
    uses: dict[Storage, int] = field(default_factory=dict)
    pending: dict[Value, _Gradient] = field(default_factory=dict)

    def save(self, storage: Storage) -> None:
        if storage not in self.uses:
            self.uses[storage] = 0
            self.grow(storage.n_bytes)
        self.uses[storage] += 1

    def start(self, out: Value) -> None:
        self.pending[out] = _Gradient(out.n_bytes)
        self.grow(out.n_bytes)

    def step(self, node: _Node) -> None:
        gradient = self.pending.pop(node.out, None)
        if gradient is None:
            return
        given = []
        for value in node.inputs:
            if node.passes:
                gradient.holders += 1
                given.append(gradient)
            else:
                self.grow(value.n_bytes)
                given.append(_Gradient(value.n_bytes))
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + node.temporary_bytes)
        for storage in node.saved:
            self.uses[storage] -= 1
            if not self.uses[storage]:
                self.live_bytes -= storage.n_bytes
        self.let_go(gradient)
        for value, each in zip(node.inputs, given, strict=True):
            self.receive(value, each)

    def receive(self, value: Value, gradient: _Gradient) -> None:
        """Sum with what came before, in whichever of both nobody else holds."""
        before = self.pending.get(value)
        if before is None:
            if value.leaf and not self.keeps_gradients:
                self.let_go(gradient)
                return
            self.pending[value] = gradient
            self.kept_bytes += value.n_bytes if value.leaf else 0
            return
        if before.holders == 1:
            self.let_go(gradient)
        elif gradient.holders == 1:
            self.pending[value] = gradient
            self.let_go(before)
        else:
            self.grow(value.n_bytes)
            self.pending[value] = _Gradient(value.n_bytes)
            self.let_go(before)
            self.let_go(gradient)

    def grow(self, n_bytes: int) -> None:
        self.live_bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def let_go(self, gradient: _Gradient) -> None:
        gradient.holders -= 1
        if not gradient.holders:
            self.live_bytes -= gradient.n_bytes
