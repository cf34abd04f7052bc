"""Activations: what goes into and comes out of every module of a forward pass, kept in the session's `tensors/`."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.dispatch import is_torch_here
from inspectors.probe.events import RecordingCapped, TensorKept
from inspectors.probe.keeping import can_keep, copied, write_tensors
from inspectors.probe.modulehooks import ModuleHooks, tensors_of, version_of
from inspectors.probe.tensors import dtype_name, shape_of, size_bytes, unobserved
from inspectors.probe.tracepoint import Tracepoint

KEPT_PASSES = 1
"""Forward passes of each model that are kept: the first one, which reads the whole prompt."""


class _Pass:
    """One forward pass of one rank: copies on their way to a file, and what each of them was to its modules."""

    def __init__(self, number: int, rank: int) -> None:
        self.number, self.rank = number, rank
        self.file = f"{os.getpid()}-{threading.get_native_id()}-r{rank}-p{number}.safetensors"
        self.copies: dict[str, Any] = {}
        self.uses: list[TensorKept] = []
        self.hooks: ModuleHooks | None = None
        self._known: dict[int, tuple[Any, int, str]] = {}

    def name_of(self, tensor: Any) -> str:
        """The name under which exactly this tensor, unchanged since, is kept already; "" when it is not."""
        known = self._known.get(id(tensor))
        return known[2] if known is not None and known[0]() is tensor and known[1] == version_of(tensor) else ""

    def keep(self, name: str, tensor: Any) -> None:
        """Copy a tensor."""
        with unobserved():
            self.copies[name] = copied(tensor)
        if version_of(tensor) >= 0:
            self._known[id(tensor)] = (weakref.ref(tensor), version_of(tensor), name)


class ActivationsInspector:
    """Hooks the modules of a model while its forward runs; a hook copies and returns nothing."""

    stages = frozenset({"forward.run"})
    level = "tensors"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Forget everything of an earlier probe."""
        self._probe, self._recorder = probe, probe.recorder
        self._thread = threading.local()
        self._passes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._lock, self._left_bytes, self._is_capped = threading.Lock(), probe.settings.max_kept_bytes, False

    def enter(self, call: Call) -> None:
        """Hook the model's modules for its first passes; a forward inside another one belongs to it."""
        model = call.get("model")
        if getattr(self._thread, "current", None) is not None or not is_torch_here():
            return
        number = self._passes.get(model, 0)
        self._passes[model] = number + 1
        if number >= KEPT_PASSES:
            return
        kept = _Pass(number, call.rank)
        call.kept[self] = self._thread.current = kept
        kept.hooks = ModuleHooks(self._probe, self, model, partial(self._keep_all, kept))

    def leave(self, call: Call) -> None:
        """Keep the model's own result, and write the file."""
        kept = call.kept.pop(self, None)
        if kept is not None:
            try:
                self._keep_all(kept, "", "output", call.result)
            finally:
                self._finish(kept)

    def failed(self, call: Call, error: BaseException) -> None:
        """What was kept until the error is written all the same."""
        del error
        kept = call.kept.pop(self, None)
        if kept is not None:
            self._finish(kept)

    # --- one pass

    def _keep_all(self, kept: _Pass, module: str, role: str, value: Any) -> None:
        for index, tensor in enumerate(tensors_of(value)):
            if not can_keep(tensor):
                continue
            name = kept.name_of(tensor)
            if not name:
                name = f"{role}.{index}:{module}"
                while name in kept.copies:  # a module that is called twice in one pass
                    name = f"{name}'"
                if not self._has_room(size_bytes(tensor), kept.rank):
                    continue
                kept.keep(name, tensor)
            kept.uses.append(
                TensorKept(
                    module=module,
                    role=role,
                    index=index,
                    forward=kept.number,
                    file=kept.file,
                    name=name,
                    dtype=dtype_name(tensor),
                    shape=shape_of(tensor),
                    size_bytes=size_bytes(tensor),
                )
            )

    def _has_room(self, wanted_bytes: int, rank: int) -> bool:
        with self._lock:
            if wanted_bytes <= self._left_bytes:
                self._left_bytes -= wanted_bytes
                return True
            was_capped, self._is_capped = self._is_capped, True
        if not was_capped:
            limit = self._probe.settings.max_kept_bytes
            self._recorder.point(RecordingCapped(limit="max_kept_bytes", value=limit), rank)
        return False

    def _finish(self, kept: _Pass) -> None:
        """A tensor is told of only when the file that holds it is whole."""
        self._thread.current = None
        if kept.hooks is not None:
            kept.hooks.remove()
        if kept.copies:
            write_tensors(
                self._probe.settings.folder / "tensors" / kept.file,
                kept.copies,
                {"rank": str(kept.rank), "forward": str(kept.number)},
            )
        for body in kept.uses:
            self._recorder.point(body, kept.rank)


INSPECTOR = ActivationsInspector()
