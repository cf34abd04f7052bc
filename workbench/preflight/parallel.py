"""Whether a tensor parallel size divides what it must divide, from the numbers of config.json."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.errors import UserError

MUST_DIVIDE = (
    "num_attention_heads",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
)
"""Sizes that are cut into equal pieces, one a rank."""

MAY_REPEAT = ("num_key_value_heads",)
"""Sizes that are cut, or repeated where there are fewer than ranks."""


def check_tp(fields: Mapping[str, object], tp: int) -> None:
    """Raises UserError (exit 2) naming the first size that `tp` ranks cannot share."""
    if tp < 1:
        raise UserError(f"--tp {tp}: a model is loaded by at least one rank", "give --tp 1 or more")
    for key in (*MUST_DIVIDE, *MAY_REPEAT):
        size = fields.get(key)
        if not isinstance(size, int) or size <= 0:
            continue
        is_shared = size % tp == 0 or (key in MAY_REPEAT and tp % size == 0)
        if not is_shared:
            raise UserError(f"--tp {tp} does not divide {key} = {size} of config.json", f"give --tp {fitting(fields)}")


def fitting(fields: Mapping[str, object], at_most: int = 16) -> str:
    """The tensor parallel sizes that fit, as words."""
    sizes = [size for key in MUST_DIVIDE if isinstance(size := fields.get(key), int) and size > 0]
    repeating = [size for key in MAY_REPEAT if isinstance(size := fields.get(key), int) and size > 0]
    fits = [
        str(tp)
        for tp in range(1, at_most + 1)
        if all(size % tp == 0 for size in sizes) and all(size % tp == 0 or tp % size == 0 for size in repeating)
    ]
    return f"{', '.join(fits[:-1])} or {fits[-1]}" if len(fits) > 1 else fits[0]
