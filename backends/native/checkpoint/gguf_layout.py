"""How a converter to GGUF has changed the tensors of an architecture, as the architecture's file declares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GgmlLayout:
    """What differs from the tensors that the model was published with.

    `are_heads_interleaved`: rows of query and key heads stand in the order in which ggml turns pairs of neighbours.
    `are_norms_shifted`: norms that the model stores as their difference from one are stored whole.
    `are_value_heads_tiled`: the value heads of a delta net stand one of each key head first, then the next of each.
    """

    are_heads_interleaved: bool = False
    are_norms_shifted: bool = False
    are_value_heads_tiled: bool = False
