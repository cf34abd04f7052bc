"""The native stack as an engine: how it is launched and where its stages can be seen."""

from __future__ import annotations

import sys

from inspectors.probe.tracepoint import Engine, Launch, Tracepoint

_PACKAGE = "backends.native"

_TRACEPOINTS = (
    Tracepoint(
        "checkpoint.open", "checkpoint.opened", f"{_PACKAGE}.checkpoint.index:open_checkpoint", {"path": "path"}
    ),
    Tracepoint(
        "tensor.read",
        "tensor.read",
        f"{_PACKAGE}.checkpoint.reader:iterate_weights",
        {"name": "result.0", "tensor": "result.1"},
    ),
    Tracepoint(
        "tensor.read",
        "tensor.rearranged",
        f"{_PACKAGE}.checkpoint.gguf_weights:rearranged",
        {"tensor": "result", "source": "tensor", "order": "order", "dim": "dim"},
    ),
    Tracepoint(
        "method.select",
        "skip.decided",
        f"{_PACKAGE}.quantization.skip:is_layer_skipped",
        {
            "module": "prefix",
            "ignored": "ignored_layers",
            "tried": "local:names_tried",
            "expansion_source": "local:expansion_source",
            "is_skipped": "result",
        },
    ),
    Tracepoint(
        "method.select",
        "method.selected",
        f"{_PACKAGE}.quantization.config:QuantizationConfig+.get_quant_method",
        {"module": "prefix", "layer": "layer", "config": "self", "selected": "result"},
    ),
    Tracepoint(
        "kernel.select",
        "kernel.chosen",
        f"{_PACKAGE}.kernels.choice:choose",
        {"module": "module", "op": "op", "kernel": "result.kind", "refused": "result.refused"},
    ),
    Tracepoint(
        "weights.create",
        "weights.created",
        f"{_PACKAGE}.quantization.config:QuantizeMethod+.create_weights",
        {"module": "layer.prefix", "method": "self"},
    ),
    Tracepoint(
        "weight.map",
        "weights.mapped",
        f"{_PACKAGE}.models.*:*.load_weights",
        {"model": "self"},
    ),
    Tracepoint(
        "weight.load",
        "loader.called",
        f"{_PACKAGE}.layers.parameter:default_weight_loader",
        {"parameter": "param", "tensor": "loaded_weight"},
    ),
    Tracepoint(
        "weights.process",
        "weights.processed",
        f"{_PACKAGE}.quantization.config:QuantizeMethod+.process_weights_after_loading",
        {"module": "layer.prefix", "method": "self"},
    ),
    Tracepoint(
        "model.ready",
        "model.loaded",
        f"{_PACKAGE}.loader:finish_load",
        {"model": "model", "never_filled": "report.never_filled", "never_used": "report.never_used"},
    ),
    Tracepoint(
        "forward.run",
        "forward.ran",
        f"{_PACKAGE}.models.*:*[load_weights].forward",
        {"model": "self", "input_ids": "input_ids", "positions": "positions"},
    ),
)


def command(launch: Launch) -> tuple[str, ...]:
    """The argv of one load, and of a generation where `prompt_ids` are given."""
    argv = [sys.executable, "-m", _PACKAGE, launch.model, "--tp", str(launch.tp), "--device", launch.device]
    if launch.prompt_ids and launch.max_new_tokens:
        argv += ["--prompt-ids", ",".join(map(str, launch.prompt_ids)), "--max-new-tokens", str(launch.max_new_tokens)]
    else:
        argv.append("--load-only")
    return (*argv, *launch.extra)


ENGINE = Engine(
    name="native",
    module=_PACKAGE,
    distribution="loadscope",
    rank=f"{_PACKAGE}.parallel.groups:tp_rank",
    tp_size=f"{_PACKAGE}.parallel.groups:tp_size",
    tracepoints=_TRACEPOINTS,
    command=command,
    is_embedded=True,
    has_harmless_words=True,
    takes_dtype=True,
    unwinding=(f"{_PACKAGE}.parallel.lockstep.RankAbortedError",),
)
