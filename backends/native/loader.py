"""Loads a checkpoint: builds the model on every rank, fills it from one weights iterator, finishes it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backends.devices.placement import Placement, place
from backends.native.checkpoint.index import open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.config import ModelConfig, read_config
from backends.native.errors import LoadError
from backends.native.kernels.choice import kinds_on
from backends.native.layers.build import Build
from backends.native.parallel.groups import shared, tp_rank, tp_size
from backends.native.parallel.lockstep import run_ranks
from backends.native.quantization.skip import DEFAULT_FUSED_FALLBACK
from backends.native.registry import architecture_module, described, quantization_config
from backends.native.weights import LoadReport

logger = logging.getLogger(__name__)
NAMES_LISTED = 20


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is loaded.

    `dtype` None means the one in config.json, `kernels` None those the device prefers; `device` is a name, or a name
    and a number as in `cpu:0`. `quantizes_inputs` does so in FP8 blocks too, as engines do on GPUs; otherwise these are
    weight-only.
    """

    tp_size: int = 1
    dtype: torch.dtype | None = None
    device: str = "cpu"
    kernels: str | None = None
    quantizes_inputs: bool = False
    fused_fallback: Mapping[str, Sequence[str]] = field(default_factory=lambda: DEFAULT_FUSED_FALLBACK)


@dataclass(frozen=True)
class Loaded:
    """One model and one report per rank; those of one rank only in a process that is one rank of several."""

    models: tuple[Any, ...]
    reports: tuple[LoadReport, ...]
    place: Placement

    @property
    def device(self) -> torch.device:
        """What the parameters are on, and what inputs must be on."""
        return self.place.torch_device

    @property
    def tp_size(self) -> int:
        """Number of ranks."""
        return max(len(self.models), tp_size())

    def model(self, rank: int) -> Any:
        """The model of a rank that this process holds."""
        return self.models[rank if len(self.models) > 1 else 0]


def load(path: str | Path, options: LoadOptions | None = None) -> Loaded:
    """Load the checkpoint folder `path`; raises what is wrong with its files, its config, its weights or the device."""
    options = options or LoadOptions()
    placement = place(options.device)
    config = described(read_config(path), path)
    quant_config = quantization_config(config, {}, {})
    kinds = kinds_on(str(placement.torch_device), placement.kind.kernel_kinds, options.kernels)
    quant_config.require_device(placement, options.dtype or config.dtype)
    checkpoint = open_checkpoint(path)
    logger.info("loading %d tensors from %d files", checkpoint.tensor_count, len(checkpoint.files))
    logger.info("device %s, kernels %s", placement, ", ".join(kinds))
    forecast = quant_config.memory_forecast(
        checkpoint.entries(), placement, options.dtype or config.dtype, options.tp_size
    )
    if forecast is not None:
        logger.info("%s", forecast)
    weights = iter(quant_config.model_weights(iterate_weights(checkpoint)))
    ranks = run_ranks(options.tp_size, lambda _: load_rank(config, options, weights, placement, kinds))
    models, reports = zip(*ranks, strict=True)
    _log_left_over(reports[0])
    placement.synchronize()
    logger.info("memory of %s: %s", placement, placement.memory())
    return Loaded(models, reports, placement)


def load_rank(
    config: ModelConfig,
    options: LoadOptions,
    weights: Iterator[tuple[str, Tensor]],
    placement: Placement,
    kinds: tuple[str, ...],
) -> tuple[nn.Module, LoadReport]:
    """Build, fill and finish the calling rank's model."""
    with torch.no_grad():
        with placement.torch_device:
            model = build_model(config, options, kinds, keeps_blocks=placement.kind.keeps_quantized_blocks)
        # A default device is asked for at every operation, which costs small tensors more than their copy.
        report: LoadReport = model.load_weights(shared(weights))
        if placement.kind.has_values:
            with placement.torch_device:
                process_weights(model)
    finish_load(model, report)
    return model, report


def process_weights(model: nn.Module) -> None:
    """Let every layer's method finish what was loaded, which looks at values."""
    for module in model.modules():
        quant_method = getattr(module, "quant_method", None)
        if quant_method is not None:
            quant_method.process_weights_after_loading(module)


def build_model(config: ModelConfig, options: LoadOptions, kinds: tuple[str, ...], *, keeps_blocks: bool) -> Any:
    """The calling rank's model with parameters nothing was written to yet."""
    model_class = getattr(architecture_module(config.architecture), config.architecture)
    quant_config = quantization_config(config, model_class.packed_modules_mapping, options.fused_fallback)
    if options.quantizes_inputs:
        quant_config = quant_config.with_quantized_inputs()
    return model_class(config, Build(quant_config, options.dtype or config.dtype, kinds, keeps_blocks))


def finish_load(model: nn.Module, report: LoadReport) -> None:
    """The calling rank's model is ready; raises LoadError naming the parameters nothing was written to."""
    logger.info("rank %d: filled %d of %d parameters", tp_rank(), report.filled, report.parameters)
    if report.never_filled:
        count = len(report.never_filled)
        raise LoadError(
            f"{count} parameters of {type(model).__name__} were never filled: {_listed(report.missing_shards)}.",
            "compare their names with the names in the checkpoint's index",
        )


def _log_left_over(report: LoadReport) -> None:
    if report.ignored:
        logger.info("ignored %d tensors by name: %s", len(report.ignored), _listed(report.ignored))
    if report.never_used:
        logger.warning("never used %d tensors: %s", len(report.never_used), _listed(report.never_used))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else ""
    return ", ".join(names[:NAMES_LISTED]) + more
