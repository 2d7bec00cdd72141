"""The moments of a training step and what is held at each: the forward pass ends, the loss and the output projection
go back, the layers go back, the embedding goes back, the optimizer updates."""

from dataclasses import dataclass

from heliosd.estimation.training_activations import Run, Segment
from heliosd.estimation.training_plan import TrainingPlan


@dataclass(frozen=True, slots=True)
class Moment:
    """What is held at one point of a training step, by the terms' names."""

    name: str
    held: tuple[tuple[str, int], ...]

    @property
    def total_bytes(self) -> int:
        return sum(n_bytes for _, n_bytes in self.held)


@dataclass(frozen=True, slots=True)
class Fixed:
    """What is there through the whole step, and gradients as they grow."""

    held: tuple[tuple[str, int], ...]
    gradient_bytes: int
    """All of them, on one rank before data parallelism."""
    parts: int
    """Data-parallel ranks that divide the gradients."""
    on_host: bool
    """Gradients go to the host as they come."""
    resident: bool
    """They stay from pass to pass: gradient accumulation."""
    step_bytes: int

    def gradients(self, come_bytes: int) -> int:
        whole = self.gradient_bytes if self.resident else min(come_bytes, self.gradient_bytes)
        return 0 if self.on_host else -(-whole // self.parts)


def moments(run: Run, plan: TrainingPlan, fixed: Fixed) -> tuple[Moment, ...]:
    """In the order of a step. Of the layers the one at which most is held."""
    checkpointing = plan.gradient_checkpointing
    kept = [each.input_bytes if checkpointing else each.saved_bytes for each in run.layers]
    casts = [0 if checkpointing else each.casts_bytes for each in run.layers]
    logits, below, below_casts = run.tail.saved_bytes, sum(kept), sum(casts)
    cached = sum(each.casts_bytes for each in run.layers) if checkpointing else below_casts
    found = [
        _moment(
            "end of the forward pass",
            fixed,
            0,
            activations=below + run.tables_bytes + run.mask_bytes,
            casts=cached + run.tail.casts_bytes,
            logits=logits + run.logits_forward_bytes,
        ),
        _moment(
            "loss and output projection",
            fixed,
            0,
            activations=below + run.tables_bytes + run.mask_bytes,
            casts=below_casts + run.tail.casts_bytes,
            logits=run.tail.peak_bytes - run.tail.casts_bytes,
        ),
    ]
    # A shared output projection's gradient is no parameter's yet: it is there whatever becomes of those.
    waiting = run.shared_gradient_bytes
    come = max(0, run.tail.gradient_bytes - waiting)
    fullest: Moment | None = None
    for index in range(len(run.layers) - 1, -1, -1):
        segment = run.layers[index]
        below, below_casts = below - kept[index], below_casts - casts[index]
        moment = _layer_moment(index, segment, run, fixed, below, below_casts, come, waiting)
        if fullest is None or moment.total_bytes > fullest.total_bytes:
            fullest = moment
        come += segment.gradient_bytes
    if fullest is not None:
        found.append(fullest)
    if run.embedding_gradient_bytes:
        found.append(
            _moment(
                "embedding",
                fixed,
                fixed.gradient_bytes - run.embedding_gradient_bytes,
                activations=run.tables_bytes,
                temporary=run.shared_gradient_bytes
                + run.embedding_gradient_bytes
                + max(run.layers[0].input_bytes, run.embedding_sum_bytes),
            )
        )
    found.append(
        _moment("update", fixed, fixed.gradient_bytes, activations=run.tables_bytes, temporary=fixed.step_bytes)
    )
    return tuple(found)


def _layer_moment(
    index: int, segment: Segment, run: Run, fixed: Fixed, below: int, below_casts: int, come: int, waiting: int
) -> Moment:
    inside = segment.peak_bytes
    saved = min(inside, segment.saved_bytes)
    return _moment(
        f"layer {index}, backward",
        fixed,
        come,
        activations=below + run.tables_bytes + run.mask_bytes + saved,
        casts=below_casts + min(inside - saved, segment.casts_bytes),
        temporary=max(0, inside - saved - segment.casts_bytes) + waiting,
    )


def _moment(
    name: str,
    fixed: Fixed,
    come: int,
    *,
    activations: int = 0,
    casts: int = 0,
    logits: int = 0,
    temporary: int = 0,
) -> Moment:
    parts = (
        *fixed.held,
        ("gradients", fixed.gradients(come)),
        ("activations", activations),
        ("weight casts", casts),
        ("logits and loss", logits),
        ("temporary", temporary),
    )
    return Moment(name, tuple((part, n_bytes) for part, n_bytes in parts if n_bytes))
