"""Where triton kernels are tested: compiled on a GPU, interpreted on a CPU where there is none."""

from __future__ import annotations

import importlib
import importlib.util

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
if importlib.util.find_spec("triton") and not HAS_GPU:
    # Triton decorates its own functions (sum, cdiv, …) when it is first imported, so the interpreter must be on then.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton")


LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config, items):
    """Without a GPU leave its tests out as one number, not as hundreds of skipped lines."""
    of_gpus = [item for item in items if item.get_closest_marker("gpu") is not None]
    if not HAS_GPU and of_gpus:
        config.stash[LEFT_OUT] = len(of_gpus)
        config.hook.pytest_deselected(items=of_gpus)
        items[:] = [item for item in items if item.get_closest_marker("gpu") is None]


def pytest_terminal_summary(terminalreporter, config):
    """Say what was left out, and why."""
    if LEFT_OUT in config.stash:
        terminalreporter.write_line(f"{config.stash[LEFT_OUT]} tests for a GPU were left out: torch finds none")


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.skipif(HAS_GPU, reason="interpreted only where there is no GPU")),
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")]),
    ]
)
def device(request, monkeypatch):
    """The device of a triton kernel's arguments, with the interpreter on or off to match."""
    monkeypatch.setenv("TRITON_INTERPRET", "1" if request.param == "cpu" else "0")
    return request.param


@pytest.fixture
def triton_kernel(device):
    """The triton implementation of the operation of that name."""
    pytest.importorskip("triton")

    def find(op):
        return getattr(importlib.import_module(f"backends.native.kernels.triton.{op}"), op)

    return find
