"""The operators of a transformer as autograd sees them, each written onto a tape by its sizes.

What is saved follows the definitions of the operators' gradients: y = x W^T needs x for W's gradient and W for x's;
a product needs each factor for the other's; softmax, tanh and reciprocal roots need their result; fused attention
needs queries, keys, values, the output and one float32 number for each row of scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from heliosd.estimation.layout import Tensor
from heliosd.estimation.training_plan import Precision, TrainingPlan
from heliosd.estimation.training_tape import Storage, Tape, Value


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes for one number."""

    frozen: int
    """Weights that do not learn, where they are not in four bits."""
    trained: int
    compute: int
    """Matrix products."""
    autocast: bool
    """Operands are cast to `compute` where they differ."""


def widths(plan: TrainingPlan, *, full: bool) -> Widths:
    """By the plan's precision; frozen weights under autocast are stored in bfloat16."""
    match plan.precision:
        case Precision.FP32:
            return Widths(4, 4, 4, False)
        case Precision.BF16 | Precision.MASTER:
            return Widths(2, 2, 2, False)
        case Precision.MIXED:
            return Widths(4 if full else 2, 4, 2, True)


@dataclass(slots=True)
class Operators:
    """Operators for `tokens` = batch x length tokens, writing onto `tape`."""

    tape: Tape
    width: Widths
    tokens: int
    on_gpu: bool = True

    def parameter(self, elements: int, *, trained: bool) -> Value:
        width = self.width.trained if trained else self.width.frozen
        return Value(elements, width, trained, Storage(elements * width, counted=False), leaf=True)

    def cast(self, x: Value, width: int) -> Value:
        """A copy in another width; itself when it has it already."""
        if x.width == width:
            return x
        made = self.tape.value(x.elements, width, (x,))
        made.storage.of_weights = x.leaf
        return made

    def product(self, x: Value, columns: int, rows: int, weight: Value, *, temporary_bytes: int = 0) -> Value:
        """x W^T. Under autocast x is cast anew for each projection, the weight once for each pass."""
        compute = self.width.compute if self.width.autocast else x.width
        x, weight = self.cast(x, compute), self.cast(weight, compute) if self.width.autocast else weight
        saved = _needed(x, weight)
        return self.tape.value(
            x.elements // columns * rows, compute, (x, weight), saved, temporary_bytes=temporary_bytes
        )

    def add(self, a: Value, b: Value) -> Value:
        return self.tape.value(a.elements, max(a.width, b.width), (a, b), passes=a.width == b.width)

    def times(self, a: Value, b: Value) -> Value:
        saved = _needed(a, b)
        return self.tape.value(a.elements, max(a.width, b.width), (a, b), saved)

    def scaled(self, x: Value) -> Value:
        """Times a constant."""
        return self.tape.value(x.elements, x.width, (x,))

    def dropout(self, x: Value) -> Value:
        """The mask is a byte for each number on GPUs, a number of x's width on the CPU."""
        mask = Value(x.elements, 1 if self.on_gpu else x.width, False, Storage(0))
        mask.storage.n_bytes = mask.n_bytes
        return self.tape.value(x.elements, x.width, (x,), (mask,))

    def rms_norm(self, x: Value, size: int, *, trained: bool) -> Value:
        """In float32 whatever x is: saves x in float32, a number per row, and the normalized x for the scale."""
        wide, rows = self.cast(x, 4), x.elements // size
        square = self.tape.value(wide.elements, 4, (wide,), (wide,), temporary_bytes=2 * 4 * wide.elements)
        inverse = self.tape.value(rows, 4, (square,), keeps_itself=True)  # the mean, plus epsilon, to the power of -1/2
        saved = _needed(wide, inverse)
        normal = self.tape.value(wide.elements, 4, (wide, inverse), saved, temporary_bytes=4 * wide.elements)
        normal = self.cast(normal, x.width)
        scale = self.parameter(size, trained=trained)
        saved = _needed(normal, scale)
        width = max(normal.width, scale.width)
        spare = normal.n_bytes if trained else 0
        return self.tape.value(x.elements, width, (normal, scale), saved, temporary_bytes=spare)

    def layer_norm(self, x: Value, size: int, *, trained: bool) -> Value:
        """One fused operator: saves x, and mean and reciprocal deviation for each row."""
        rows = x.elements // size
        width = 4 if self.on_gpu else x.width
        moments = Value(2 * rows, width, False, Storage(2 * rows * width))
        scale = self.parameter(2 * size, trained=trained)
        return self.tape.value(x.elements, x.width, (x, scale), (x, moments))

    def rotary(self, x: Value, table_width: int) -> Value:
        """x cos + rotated(x) sin: saves only the tables, which all layers share."""
        width = max(x.width, table_width)
        return self.tape.value(x.elements, width, (x,), temporary_bytes=3 * x.elements * width)

    def fused_attention(self, operands: Sequence[Value], rows: int, out_elements: int) -> Value:
        """`rows` = tokens x heads. Operands are queries, keys, values, or one tensor that holds all three."""
        cast = [self.cast(each, self.width.compute if self.width.autocast else each.width) for each in operands]
        statistics = Value(rows, 4, False, Storage(rows * 4))
        return self.tape.value(out_elements, cast[0].width, cast, (*cast, statistics), keeps_itself=True)

    def eager_attention(
        self, operands: Sequence[Value], scores: int, softmax_width: int, expanded: int, *, dropout: bool
    ) -> Value:
        """`scores` = batch x heads x length squared; `expanded` = elements of keys repeated for each query head.

        Saves packed copies of queries, keys and values, the probabilities in `softmax_width` and, when that differs,
        in the width of the products.
        """
        width = self.width.compute if self.width.autocast else operands[0].width
        cast = [self.cast(each, width) for each in operands]
        if len(cast) == 1:
            third = cast[0].elements // 3
            packed = [self.tape.value(third, width, cast) for _ in range(3)]
        else:
            packed = [self.tape.value(cast[0].elements, width, cast[:1])]
            packed += [self.tape.value(expanded, width, (each,)) for each in cast[1:]]
        query, key, value = packed
        raw = self.scaled(self.tape.value(scores, width, (query, key), (query, key)))
        wide = self.cast(raw, softmax_width)
        probabilities = self.tape.value(scores, softmax_width, (wide,), keeps_itself=True)
        narrow = self.cast(probabilities, width)
        if dropout:
            narrow = self.dropout(narrow)
        return self.tape.value(query.elements, width, (narrow, value), (narrow, value))

    def activation(self, x: Value, name: str) -> Value:
        """Fused activations save their input, relu its result; the tanh approximation in Python four tensors."""
        if name == "relu":
            return self.tape.value(x.elements, x.width, (x,), keeps_itself=True)
        if name not in ("gelu_new", "gelu_python_tanh", "gelu_fast"):
            return self.tape.value(x.elements, x.width, (x,), (x,))
        cube = self.tape.value(x.elements, x.width, (x,), (x,), temporary_bytes=2 * x.n_bytes)
        inner = self.scaled(self.add(x, self.scaled(cube)))
        tanh = self.tape.value(x.elements, x.width, (inner,), keeps_itself=True)
        one_more = self.tape.value(x.elements, x.width, (tanh,), passes=True)
        return self.times(self.scaled(x), one_more)


def last_name(tensor: Tensor) -> str:
    """`q_proj` of `model.layers.{}.self_attn.q_proj.weight`."""
    parts = tensor.name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in ("weight", "bias") else parts[-1]


def _needed(a: Value, b: Value) -> list[Value]:
    """What a product of two keeps: each factor that the other's gradient needs."""
    return [*([a] if b.grad else []), *([b] if a.grad else [])]
