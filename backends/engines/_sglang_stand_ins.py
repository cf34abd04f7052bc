"""What SGLang's model code imports that a machine without a GPU lacks: modules that can be imported, not used."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

NAMES = ("sgl_kernel", "vllm")
"""Compiled packages of which only the import is needed while a model is built and loaded; installed ones are used."""

KERNEL_MODULES = ("sglang.srt.layers.quantization.fp8_kernel", "sglang.kernels.ops.quantization.fp8_kernel")

FLOAT8_MAX = 448.0


class _AbsentType(type):
    """The class of classes that are not there: their attributes are texts that say so."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__module__}.{cls.__name__}.{name} is not installed"


class AbsentModule(types.ModuleType):
    """A module, or a function of one, that is not installed: it has whatever is asked for, and refuses to be called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        found = _AbsentType(name, (), {"__module__": self.__name__}) if name[:1].isupper() else AbsentModule(full)
        setattr(self, name, found)
        return found

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError(f"{self.__name__} was called, which needs a GPU; this launcher builds and loads only")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last, so that what is installed is found by the others."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A spec for the packages of NAMES and what is below them."""
        del path, target
        if name.partition(".")[0] not in NAMES:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The stand-in itself."""
        return AbsentModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def install() -> None:
    """Stand in for what is absent. To be called before SGLang is imported."""
    import torch

    sys.meta_path.append(_Finder())
    # torchvision's own build for GPUs looks for its operators' schemas when it is imported.
    make: Any = torch.library.Library
    _schemas.append(make("torchvision", "FRAGMENT"))
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _schemas[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_schemas: list[Any] = []  # torch forgets an operator when its library object goes


def fill_kernels() -> None:
    """Give SGLang reference operations where loading itself calls a compiled kernel. To be called after its import."""
    for name in KERNEL_MODULES:
        try:
            kernels: Any = importlib.import_module(name)
        except ModuleNotFoundError:
            continue  # another version's place
        if not hasattr(kernels, "sgl_per_tensor_quant_fp8"):
            kernels.sgl_per_tensor_quant_fp8 = per_tensor_quant_fp8


def per_tensor_quant_fp8(given: Any, output: Any, scale: Any, is_static: bool) -> None:
    """Write `given` [rows, columns] divided by `scale` [1] to `output`, float8_e4m3fn; a dynamic scale is set first."""
    import torch

    if not is_static:
        scale.fill_(given.abs().max().float() / FLOAT8_MAX)
    output.copy_((given.float() / scale.float()).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn))


def absent() -> tuple[str, ...]:
    """The packages that were stood in for so far."""
    return tuple(name for name in NAMES if isinstance(sys.modules.get(name), AbsentModule))
