"""The types of ggml: how many elements a block of each has, and how many bytes."""

from __future__ import annotations

from dataclasses import dataclass

from backends.native.errors import CheckpointError, KernelError


@dataclass(frozen=True)
class GgmlType:
    """`number` is what a file stores; a row is whole blocks of `block_elements`, each of `block_bytes`."""

    name: str
    number: int
    block_elements: int
    block_bytes: int

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` elements, which must be whole blocks."""
        return columns // self.block_elements * self.block_bytes

    def columns(self, row_bytes: int) -> int:
        """Elements of a row of so many bytes, which must be whole blocks."""
        return row_bytes // self.block_bytes * self.block_elements


F32, F16, BF16 = 0, 1, 30
_SIZES = (
    ("F32", F32, 1, 4), ("F16", F16, 1, 2), ("BF16", BF16, 1, 2), ("F64", 28, 1, 8),
    ("I8", 24, 1, 1), ("I16", 25, 1, 2), ("I32", 26, 1, 4), ("I64", 27, 1, 8),
    ("Q4_0", 2, 32, 18), ("Q4_1", 3, 32, 20), ("Q5_0", 6, 32, 22), ("Q5_1", 7, 32, 24),
    ("Q8_0", 8, 32, 34), ("Q8_1", 9, 32, 40), ("Q8_K", 15, 256, 292), ("Q1_0", 41, 128, 18),
    ("Q2_K", 10, 256, 84), ("Q3_K", 11, 256, 110), ("Q4_K", 12, 256, 144), ("Q5_K", 13, 256, 176),
    ("Q6_K", 14, 256, 210),
    ("IQ1_S", 19, 256, 50), ("IQ1_M", 29, 256, 56), ("IQ2_XXS", 16, 256, 66), ("IQ2_XS", 17, 256, 74),
    ("IQ2_S", 22, 256, 82), ("IQ3_XXS", 18, 256, 98), ("IQ3_S", 21, 256, 110), ("IQ4_NL", 20, 32, 18),
    ("IQ4_XS", 23, 256, 136), ("TQ1_0", 34, 256, 54), ("TQ2_0", 35, 256, 66), ("MXFP4", 39, 32, 17),
    ("NVFP4", 40, 64, 36),
)  # fmt: skip
GGML_TYPES = {number: GgmlType(name, number, elements, size) for name, number, elements, size in _SIZES}
BY_NAME = {ggml_type.name: ggml_type for ggml_type in GGML_TYPES.values()}
UNQUANTIZED = frozenset({F32, F16, BF16})


def ggml_type(number: int, where: str) -> GgmlType:
    """The type that a file calls `number`; raises CheckpointError naming `where` for one that is not known."""
    if number not in GGML_TYPES:
        raise CheckpointError(
            f"{where} has the ggml type {number}, expected one of {', '.join(sorted(BY_NAME))}.",
            "convert the file to one of these types, or download it again",
        )
    return GGML_TYPES[number]


def cannot_be_dequantized(number: int) -> KernelError:
    """The error for a type that nothing turns into numbers: it exists only while ggml computes, or is too new."""
    name = GGML_TYPES[number].name if number in GGML_TYPES else str(number)
    return KernelError(
        f"blocks of the ggml type {name} cannot be dequantized.", "convert the checkpoint to another type, such as Q8_0"
    )
