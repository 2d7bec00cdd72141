"""How a matrix is stored in fewer bits, and how many bytes that takes: the published formats."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a matrix is stored."""

    name: str
    bits: float
    """Of one weight."""
    group_bytes: float = 0.0
    """Scales and zero points of one group along the inputs."""
    group: int = 0
    """Inputs that share a scale; 0: no groups."""
    block: int = 0
    """Outputs that share a scale too (fp8 in tiles); 0: each output its own."""
    row_bytes: int = 0
    """Scales of one output channel."""
    matrix_bytes: int = 0
    """Scales of the whole matrix."""

    def size_bytes(self, rows: int, columns: int) -> int:
        """Bytes of one matrix."""
        return round(rows * columns * self.bits / 8) + self.scales_bytes(rows, columns)

    def scales_bytes(self, rows: int, columns: int) -> int:
        """What of it are scales and zero points, tensors of their own."""
        size = float(rows * self.row_bytes)
        if self.group:
            groups = -(-columns // self.group)
            size += groups * self.group_bytes * (-(-rows // self.block) if self.block else rows)
        return round(size) + self.matrix_bytes


def fp8_tiles(tile: int = 128) -> Scheme:
    """float8 with a float32 scale for each tile x tile weights."""
    return Scheme(f"fp8 tiles {tile}", 8, 4, tile, tile)


FP8_CHANNEL = Scheme("fp8 channels", 8, row_bytes=4)
FP8_TENSOR = Scheme("fp8 tensor", 8, matrix_bytes=8)
INT8_CHANNEL = Scheme("int8 channels", 8, row_bytes=4)
NF4 = Scheme("nf4 double", 4, 1 + 4 / 256, 64)
"""bitsandbytes: an 8-bit scale for 64 weights, a float32 one for 256 of those."""
NF4_UNPACKED = Scheme("nf4", 4, 4, 64)
"""As engines keep it from 0.9.2 on: the scales are float32 again, which saves a kernel for each product."""
MXFP4 = Scheme("mxfp4", 4, 1, 32)
MXFP8 = Scheme("mxfp8", 8, 1, 32)
NVFP4 = Scheme("nvfp4", 4, 1, 16, matrix_bytes=8)


def integer_groups(bits: int, group: int, *, zeros: bool) -> Scheme:
    """Packed integers with a half precision scale, and for asymmetric ones a packed zero point, for each group.

    `group` of -1: one scale for an output.
    """
    per_group = 2 + (bits / 8 if zeros else 0)
    if group <= 0:
        return Scheme(f"int{bits} channels", bits, row_bytes=round(per_group))
    return Scheme(f"int{bits} groups {group}", bits, per_group, group)
