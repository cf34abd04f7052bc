"""One run of a method's post-processing from entry to return: the watch over its operations, and what it left."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from inspectors.probe.dispatch import LoaderOperations, is_torch_here
from inspectors.probe.loadwatch import Ledger
from inspectors.probe.repacks import Repacks
from inspectors.probe.tensors import plain_tensors

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe
    from inspectors.probe.call import Call
    from inspectors.probe.inspector import Inspector


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.watches: list[Ledger] = []
        self.operations: LoaderOperations | None = None


class RepackedCalls:
    """The post-processing of every thread; of a method that calls another one, both tell what they left."""

    def __init__(self, probe: Probe, inspector: Inspector) -> None:
        self._probe, self._inspector = probe, inspector
        self._repacks, self._state = Repacks(), _ThreadState()

    def entered(self, call: Call, module: str) -> None:
        """`process_weights_after_loading` of a layer is about to run."""
        layer, state = call.get("layer"), self._state
        if layer is None or not is_torch_here():
            return
        processing = call.kept[self] = self._repacks.begin(module, layer)
        state.watches.append(processing.watch)
        if state.operations is None:
            state.operations = LoaderOperations(Ledger.concerns, self._saw)
        state.operations.enter()

    def left(self, call: Call) -> None:
        """It returned or raised: tell what is new in the layer."""
        processing = call.kept.pop(self, None)
        if processing is None:
            return
        state = self._state
        if state.operations is not None:
            state.operations.leave()
        state.watches.remove(processing.watch)
        for repacked in self._repacks.ended(processing):
            self._probe.recorder.point(repacked, call.rank)

    def _saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        probe = self._probe
        if probe.is_ours or not self._state.watches:
            return
        plain = plain_tensors()
        if plain is not None:
            plain.__enter__()
        try:
            self._state.watches[-1].saw(func, args, kwargs, out)  # all have one memory
        except Exception as error:
            probe.fault(self._inspector, error)
        finally:
            if plain is not None:
                plain.__exit__(None, None, None)
