"""Checkpoint: what the files' headers declare, read with the standard library, and every tensor the engine reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inspectors.probe import ggufheader
from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.events import NO_RANK, CheckpointOpened, TensorListed, TensorRead
from inspectors.probe.tensors import dtype_name, shape_of, size_bytes
from inspectors.probe.tracepoint import Tracepoint

_MAX_HEADER_BYTES = 100 << 20
_MAX_CONFIG_BYTES = 16 << 20


class CheckpointInspector:
    """Lists a checkpoint when it is opened. Files it cannot read are the engine's to complain about."""

    stages = frozenset({"checkpoint.open", "tensor.read"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Forget what an earlier probe has listed."""
        del probe
        self._listed: set[str] = set()

    def enter(self, call: Call) -> None:
        """The headers are listed before the engine reads them, so that a broken checkpoint is listed too."""
        if call.tracepoint.shows == "checkpoint.opened" and call.get("path") is not None:
            self._list(call, str(call.get("path")))

    def _list(self, call: Call, path: str) -> None:
        folder = Path(path)
        self._listed.add(path)
        files = sorted(folder.glob("*.safetensors"))
        recorder = call.probe.recorder
        if files:
            listed = [tensor for file in files for tensor in _tensors(file)]
            recorder.point(_opened(folder, files, len(listed)), NO_RANK)
        else:
            files = ggufheader.files_of(folder)
            headers = {file: header for file in files if (header := ggufheader.read_header(file)) is not None}
            listed = [_listed(file, one) for file, header in headers.items() for one in header.tensors]
            recorder.point(_opened_gguf(folder, files, list(headers.values()), len(listed)), NO_RANK)
        for tensor in listed:
            recorder.point(tensor, NO_RANK)

    def leave(self, call: Call) -> None:
        """A tensor was read; one read serves every rank of the process, so it belongs to none."""
        if call.tracepoint.shows == "checkpoint.opened":
            folder = str(call.get("folder", "") or "")  # known only now where the path was a name to download
            if folder and folder not in self._listed:
                self._list(call, folder)
        if call.tracepoint.shows == "tensor.read" and (tensor := call.get("tensor")) is not None:
            body = TensorRead(
                checkpoint_name=str(call.get("name", "")),
                dtype=dtype_name(tensor),
                shape=shape_of(tensor),
                size_bytes=size_bytes(tensor),
            )
            call.probe.recorder.measured(body, NO_RANK, call.start_ns, call.dur_ns)

    def failed(self, call: Call, error: BaseException) -> None:
        """The error itself is recorded by the probe."""


def _opened(folder: Path, files: list[Path], tensors: int) -> CheckpointOpened:
    config = _object(folder / "config.json")
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    quantization = config.get("quantization_config") or _object(folder / "hf_quant_config.json").get("quantization")
    quantization = quantization if isinstance(quantization, dict) else {}
    architectures = config.get("architectures")
    return CheckpointOpened(
        path=str(folder),
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        quant_method=str(quantization.get("quant_method") or quantization.get("quant_algo") or ""),
        quantization_config=json.dumps(quantization) if quantization else "",
        layers=_whole((inner or {}).get("num_hidden_layers")),
        files=len(files),
        tensors=tensors,
        size_bytes=sum(_size(file) for file in files),
    )


def _opened_gguf(folder: Path, files: list[Path], headers: list[ggufheader.Header], tensors: int) -> CheckpointOpened:
    """The types of its tensors, most frequent first, stand for a quantization config, which such a file has not."""
    first = headers[0] if headers else ggufheader.Header("", 0, ())
    types = Counter(tensor.dtype for header in headers for tensor in header.tensors)
    return CheckpointOpened(
        path=str(folder),
        architecture=first.architecture,
        quant_method=ggufheader.SUFFIX.removeprefix(".") if headers else "",
        quantization_config=json.dumps({"types": dict(types.most_common())}) if types else "",
        layers=_whole(first.layers),
        files=len(files),
        tensors=tensors,
        size_bytes=sum(_size(file) for file in files),
    )


def _listed(file: Path, one: ggufheader.Declared) -> TensorListed:
    return TensorListed(one.name, one.dtype, tuple(_whole(n) for n in one.shape), file.name, one.begin, one.end)


def _tensors(file: Path) -> Iterator[TensorListed]:
    """The tensors that a safetensors header declares, in byte order; nothing for a header that is not one."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(_MAX_HEADER_BYTES, _size(file)):
                return
            header = json.loads(opened.read(length))
    except (OSError, ValueError):
        return
    entries = header.items() if isinstance(header, dict) else ()
    found = [
        TensorListed(
            checkpoint_name=str(name),
            dtype=str(entry.get("dtype", "")),
            shape=tuple(_whole(n) for n in entry.get("shape") or ()),
            file=file.name,
            begin=8 + length + _whole(entry["data_offsets"][0]),
            end=8 + length + _whole(entry["data_offsets"][1]),
        )
        for name, entry in entries
        if isinstance(entry, dict) and _is_pair(entry.get("data_offsets"))
    ]
    yield from sorted(found, key=lambda tensor: tensor.begin)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _object(path: Path) -> dict[str, Any]:
    try:
        if _size(path) > _MAX_CONFIG_BYTES:
            return {}
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and -(1 << 63) <= value < (1 << 63) else 0


INSPECTOR = CheckpointInspector()
