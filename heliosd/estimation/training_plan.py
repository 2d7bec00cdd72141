"""How a model is to be trained: the values that `training_account` asks for, checked when they are made."""

from dataclasses import dataclass
from enum import StrEnum

from heliosd.errors import BadRequest

LARGEST = 2**31
"""No batch, length, rank or number of devices comes near it."""


class Method(StrEnum):
    """Which parameters learn."""

    FULL = "full"
    LORA = "lora"
    """Two thin matrices beside each chosen projection; the rest is frozen."""
    QLORA = "qlora"
    """The same over projections stored in four bits (NF4)."""


class Optimizer(StrEnum):
    ADAM = "adam"
    ADAMW = "adamw"
    ADAM8BIT = "adam8bit"
    """Moments in blocks of 256 numbers of eight bits."""
    ADAFACTOR = "adafactor"
    SGD = "sgd"


class Precision(StrEnum):
    """In what the weights are stored and what is computed in."""

    FP32 = "fp32"
    BF16 = "bf16"
    """Everything in bfloat16, optimizer states too: nothing has a float32 copy."""
    MIXED = "mixed"
    """Autocast: trained weights in float32, matrix products in bfloat16. Frozen weights are stored in bfloat16."""
    MASTER = "master"
    """Weights and gradients in bfloat16, the optimizer keeps float32 masters: ZeRO's and Megatron's mixed precision."""


class Attention(StrEnum):
    EAGER = "eager"
    """Scores and probabilities are tensors: their bytes grow with the square of the length."""
    SDPA = "sdpa"
    FLASH = "flash"


class Sharding(StrEnum):
    """What the data-parallel ranks divide among them instead of each holding it whole."""

    NONE = "none"
    ZERO1 = "zero1"
    """Optimizer states and masters."""
    ZERO2 = "zero2"
    """And gradients."""
    ZERO3 = "zero3"
    """And weights, gathered layer by layer."""
    FULL_SHARD = "full_shard"
    """FSDP: what ZeRO-3 divides."""
    SHARD_GRAD_OP = "shard_grad_op"
    """FSDP: what ZeRO-2 divides."""

    @property
    def stage(self) -> int:
        """The ZeRO stage that divides the same."""
        match self:
            case Sharding.NONE:
                return 0
            case Sharding.ZERO1:
                return 1
            case Sharding.ZERO2 | Sharding.SHARD_GRAD_OP:
                return 2
            case Sharding.ZERO3 | Sharding.FULL_SHARD:
                return 3


class Offload(StrEnum):
    """What lives in host memory."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    """Optimizer states, masters, and the gradients on which the host's update works."""
    ALL = "all"
    """The weights too; the device has them a layer at a time."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Sizes are for one device unless they say otherwise. Raises BadRequest when a value makes no sense."""

    method: Method = Method.FULL
    optimizer: Optimizer = Optimizer.ADAMW
    precision: Precision = Precision.MIXED
    batch_size: int = 1
    """Sequences in one forward pass of one device."""
    sequence_length: int = 2048
    gradient_checkpointing: bool = False
    """Each layer keeps its input only and is computed again in the backward pass."""
    gradient_accumulation: int = 1
    """Forward and backward passes for one update."""
    attention: Attention = Attention.SDPA
    rank: int = 16
    """Of the LoRA matrices."""
    targets: tuple[str, ...] = ()
    """Last part of the names of the projections with LoRA (`q_proj`); empty: all of the layers' projections."""
    adapter_dropout: bool = False
    momentum: bool = False
    """Of SGD."""
    double_quantization: bool = True
    """NF4's scales are quantized again."""
    fused: bool = True
    """The optimizer updates in place, without temporary copies. On the CPU it never does."""
    sharding: Sharding = Sharding.NONE
    data_parallel: int = 1
    tensor_parallel: int = 1
    offload: Offload = Offload.NONE
    bucket_elements: int = 500_000_000
    """Numbers reduced at once over the ranks; ZeRO's default."""
    on_gpu: bool = True
    """False: operators of the CPU, as in the tests, with other scratch and other dropout masks."""

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "sequence_length",
            "gradient_accumulation",
            "rank",
            "data_parallel",
            "tensor_parallel",
            "bucket_elements",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < LARGEST:
                raise _bad(f"{name} is {str(value)[:40]!r}, not a whole number from 1 to {LARGEST - 1}", name)
        if self.momentum and self.optimizer is not Optimizer.SGD:
            raise _bad(f"momentum is a choice of sgd, not of {self.optimizer}", "momentum")
        if self.targets and self.method is Method.FULL:
            raise _bad("targets are for lora and qlora; full training trains every parameter", "targets")
        if self.method is Method.QLORA and self.precision is Precision.FP32:
            raise _bad("qlora computes in bfloat16: choose bf16, mixed or master", "precision")
        if self.offload is Offload.ALL and self.sharding.stage < 3:
            raise _bad(f"weights go to the host under zero3 or full_shard only, not {self.sharding}", "offload")


def _bad(reason: str, param: str) -> BadRequest:
    return BadRequest(f"cannot plan the training: {reason}", code="bad_training_plan", param=param)
