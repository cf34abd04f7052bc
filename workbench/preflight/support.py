"""Whether the native stack knows the architecture and the quantization method of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from backends.native.errors import NativeError
from inspectors.probe.tracepoint import Engine
from workbench.errors import INCOMPLETE, UserError


def check_support(engine: Engine, folder: Path) -> None:
    """Raises UserError (exit 5) with the nearest known names; an engine of others answers for itself when it loads."""
    if not engine.is_embedded:
        return
    from backends.native.config import read_config
    from backends.native.registry import architecture_module, quantization_config

    try:
        config = read_config(folder)
        architecture_module(config.architecture)
        quantization_config(config, {}, {})
    except NativeError as error:
        raise UserError(error.what.rstrip("."), error.remedy, INCOMPLETE) from error
