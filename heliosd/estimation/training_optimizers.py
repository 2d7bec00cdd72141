"""What an optimizer keeps for each parameter, and what its update takes at most for a moment.

Adam(W): two moments in the parameter's own width (float32 over masters) and a four-byte step for each tensor.
SGD: nothing, or one momentum in the parameter's width. Adafactor (Shazeer and Stern 2018, as in `transformers`): a
float32 row and column for each matrix, everything for a vector, and one number for its size; for bfloat16 it computes
in float32 copies.
8-bit Adam (Dettmers et al. 2022): two bytes for a parameter and a float32 scale for each 256 numbers of both moments;
tensors under 4,096 numbers and embeddings stay at float32.

Run on the CPU here: AdamW, SGD, Adafactor. From the publication: 8-bit Adam; the fused and batched updates of GPUs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heliosd.estimation.training_plan import Optimizer, Precision, TrainingPlan

SMALLEST_QUANTIZED = 4096
BLOCK = 256
STEP_BYTES = 4


@dataclass(frozen=True, slots=True)
class Trained:
    """`copies` equal parameters that learn: matrices of `rows` x `columns`, vectors with one column."""

    rows: int
    columns: int
    copies: int
    embedding: bool = False

    @property
    def each(self) -> int:
        return self.rows * self.columns

    @property
    def elements(self) -> int:
        return self.each * self.copies


def state_bytes(parameters: Iterable[Trained], plan: TrainingPlan, width: int) -> int:
    """All states; `width` is that of the weights which the optimizer updates (4 for masters)."""
    return sum(each.copies * _one_state_bytes(each, plan, width) for each in parameters)


def state_formula(plan: TrainingPlan, width: int) -> str:
    """The law in words, for `why`."""
    match plan.optimizer:
        case Optimizer.ADAM | Optimizer.ADAMW:
            return f"2 moments x {width} B, {STEP_BYTES} B a tensor"
        case Optimizer.ADAM8BIT:
            return f"2 moments x (1 B + 4/{BLOCK} B); embeddings and tensors under {SMALLEST_QUANTIZED} numbers 2 x 4 B"
        case Optimizer.ADAFACTOR:
            return "(rows + columns) x 4 B a matrix, 4 B a number of vectors"
        case Optimizer.SGD:
            return f"momentum {width} B" if plan.momentum else "none without momentum"


def step_bytes(parameters: Sequence[Trained], plan: TrainingPlan, width: int) -> int:
    """Scratch of one update. Parameter by parameter it is the largest's, with what the one before it left behind;
    batched, of all of them.

    Adam: the root of the second moment and its quotient (twice the parameter; batched updates divide in place: once).
    Adafactor: the update and its successor, and for bfloat16 the copies of parameter and gradient.
    """
    match plan.optimizer:
        case Optimizer.ADAM | Optimizer.ADAMW:
            if plan.on_gpu:
                return 0 if plan.fused else width * sum(each.elements for each in parameters)
            return width * _one_by_one(parameters, 2)
        case Optimizer.ADAFACTOR:
            low = plan.precision in (Precision.BF16, Precision.MASTER)
            return 4 * _one_by_one(parameters, 4 if low else 2)
        case Optimizer.SGD | Optimizer.ADAM8BIT:
            return 0


def _one_by_one(parameters: Sequence[Trained], times: int) -> int:
    """Most numbers at once when each parameter takes `times` its size and one such tensor of the last one is left."""
    before = [parameters[-1], *parameters[:-1]] if parameters else []
    return max((last.each + times * each.each for last, each in zip(before, parameters, strict=True)), default=0)


def _one_state_bytes(each: Trained, plan: TrainingPlan, width: int) -> int:
    match plan.optimizer:
        case Optimizer.ADAM | Optimizer.ADAMW:
            return 2 * each.each * width + STEP_BYTES
        case Optimizer.ADAM8BIT:
            if each.embedding or each.each < SMALLEST_QUANTIZED:
                return 2 * each.each * 4
            return 2 * (each.each + 4 * -(-each.each // BLOCK))
        case Optimizer.ADAFACTOR:
            return 4 * (each.rows + each.columns if each.columns > 1 else each.rows) + STEP_BYTES
        case Optimizer.SGD:
            return each.each * width if plan.momentum else 0
