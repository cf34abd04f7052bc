"""Tensors kept in a session: every type as torch reads it, and files that are cut off, malformed or lie."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inspectors.activations import _Pass
from inspectors.probe.events import TensorKept
from inspectors.probe.keeping import copied, write_tensors
from inspectors.probe.recorder import Recorder
from sessions.errors import SessionError
from sessions.manifest import Manifest, Outcome
from sessions.session import Session
from sessions.tensors import TensorFile, kept_tensors

BYTES = torch.arange(256, dtype=torch.uint8)
TENSORS = {
    "f64": torch.randn(2, 3, dtype=torch.float64),
    "f32": torch.randn(4, 1, 3),
    "f16": torch.tensor([1.0, -2.5, torch.inf, 6e-8]).half(),
    "bf16": torch.tensor([[1.0, -3e38, 1e-40, torch.nan]]).bfloat16(),
    "e4m3": BYTES.view(torch.float8_e4m3fn),
    "e5m2": BYTES.view(torch.float8_e5m2),
    "e8m0": BYTES.view(torch.float8_e8m0fnu),
    "i64": torch.tensor([1 << 40, -1]),
    "i8": torch.tensor([-128, 127], dtype=torch.int8),
    "u8": BYTES,
    "flag": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "none": torch.zeros(0, 7),
}


def as_torch(tensor):
    kept = (torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool)
    return (tensor if tensor.dtype in kept else tensor.float()).numpy()


@pytest.mark.parametrize("write", ["ours", "safetensors"])
def test_every_type_is_read_as_torch_reads_it(tmp_path, write):
    path = tmp_path / "tensors" / "1-r0-p0.safetensors"
    path.parent.mkdir()
    if write == "ours":
        write_tensors(path, {name: copied(tensor) for name, tensor in TENSORS.items()}, {"rank": "0"})
    else:
        save_file({name: tensor.clone() for name, tensor in TENSORS.items()}, path)
    file = TensorFile.open(path)
    for name, tensor in TENSORS.items():
        got = file.read(name)
        assert got.shape == tuple(tensor.shape), name
        assert np.array_equal(got, as_torch(tensor), equal_nan=got.dtype.kind == "f"), name
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_is_written_is_read_by_the_library_of_the_format(tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "tensors" / "x.safetensors"
    transposed = torch.randn(3, 5).t()
    write_tensors(path, {"t": copied(transposed), "b": copied(TENSORS["bf16"])}, {})
    assert torch.equal(load_file(path)["t"], transposed)
    assert load_file(path)["b"].dtype == torch.bfloat16


def header(said) -> bytes:
    text = json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text


GOOD = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "header"),
        (b"\xff" * 8, "does not fit"),
        (header(GOOD)[:20] + b" " * 80, "not JSON"),
        (header([1]) + b"\0" * 8, "expected an object"),
        (header(GOOD) + b"\0" * 7, "described wrongly"),
        (header({"x": {**GOOD["x"], "data_offsets": [4, 8]}}) + b"\0" * 8, "described wrongly"),
        (header({"x": {**GOOD["x"], "data_offsets": [-8, 0]}}) + b"\0" * 8, "described wrongly"),
        (header({"x": {**GOOD["x"], "shape": [1 << 62, 4]}}) + b"\0" * 8, "described wrongly"),
        (header({"x": {**GOOD["x"], "shape": "2"}}) + b"\0" * 8, "described wrongly"),
        (header({"x": {**GOOD["x"], "dtype": "F4"}}) + b"\0" * 8, "described wrongly"),
        (header({"x": 7}) + b"\0" * 8, "described wrongly"),
    ],
)
def test_a_file_that_lies_about_itself_is_refused_with_its_name(tmp_path, content, told):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(SessionError, match=told) as caught:
        TensorFile.open(path)
    assert str(path) in caught.value.what


def session_with(folder: Path, *files: str) -> Session:
    recorder = Recorder(folder, "tensors")
    for number, file in enumerate(files):
        recorder.point(TensorKept(f"m{number}", "output", 0, number, file, "x", "float32", (2,), 8), 0)
    recorder.close()
    Manifest(id="t", verb="trace", level="tensors", outcome=Outcome("ok", 0)).write(folder)
    return Session.open(folder)


def test_kept_tensors_are_those_of_one_pass_and_a_missing_file_is_named(tmp_path):
    session = session_with(tmp_path, "a.safetensors", "b.safetensors")
    (kept,) = kept_tensors(session, forward=1)
    assert (kept.module, kept.rank, kept.shape) == ("m1", 0, (2,))
    with pytest.raises(SessionError, match=r"b\.safetensors: cannot be read"):
        kept.read()
    write_tensors(kept.path, {"x": torch.tensor([1.0, 2.0])}, {})
    assert kept.read().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("file", ["../a.safetensors", "/etc/passwd", ".a.safetensors", "a.txt", ""])
def test_a_recorded_file_name_cannot_lead_out_of_the_folder(tmp_path, file):
    with pytest.raises(SessionError, match="no name of a file"):
        kept_tensors(session_with(tmp_path, file))


def test_what_is_kept_is_a_copy_and_a_tensor_changed_in_place_is_another_one():
    kept, tensor = _Pass(0, 0), torch.ones(3)
    kept.keep("first", tensor)
    assert kept.name_of(tensor) == "first"
    assert kept.name_of(tensor.clone()) == ""
    tensor.add_(1)
    assert kept.name_of(tensor) == ""
    assert kept.copies["first"].tolist() == [1, 1, 1]
    with torch.inference_mode():
        uncounted = torch.ones(2)
    kept.keep("second", uncounted)
    assert kept.name_of(uncounted) == ""  # torch does not count its changes, so it is kept anew
