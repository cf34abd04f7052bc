"""A small dense model in int8 that scenarios about the filling of its parameters share, and how they spoil its load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give

LAYERS = 2
LAYER = f"model.layers.{LAYERS - 1}"
"""Where the defect is: the layer before it is loaded as it should be."""
TP = 2
_SIZES: Mapping[str, object] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def scenario(description: str, plant: Callable[[], None], expects: str) -> Scenario:
    """One defect in the load of the checkpoint that they share."""
    plain = {"lm_head.weight": "FLOAT", "model.embed_tokens.weight": "FLOAT"}
    return Scenario(
        description=description,
        checkpoint="qwen3-tiny-w8a8",
        architecture="Qwen3ForCausalLM",
        overrides={
            "quantization_config": {"quant_method": "modelslim", "model_quant_type": "W8A8_DYNAMIC", **plain},
        },
        sizes=_SIZES,
        tp=TP,
        plant=plant,
        expects=expects,
    )


def load_times(times: Mapping[str, int]) -> None:
    """Let the tensors whose names begin so be given to their loaders that many times instead of once.

    Most engines do not look whether every part came; this one does, and would end the load.
    """
    from backends.native import weights

    give(weights.NameMapping, "placements", lambda repaired: _repeating(repaired, times))
    give(weights, "_missing_shards", lambda _: _nothing)


def _nothing(*_: object) -> tuple[()]:
    return ()


def _repeating(repaired: Callable[..., Iterator[Any]], times: Mapping[str, int]) -> Callable[..., Iterator[Any]]:
    def placements(self: object, name: str, loaded_weight: object, parameters: object) -> Iterator[Any]:
        count = next((count for start, count in times.items() if name.startswith(start)), 1)
        for _ in range(count):
            yield from repaired(self, name, loaded_weight, parameters)

    return placements
