"""The header of a GGUF file as the probe reads it, against the format's own library."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from inspectors.probe.ggufheader import Declared, files_of, read_header

ROWS = 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One tensor of every type that has a size, with metadata of every kind before them."""
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(7)
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_array("some.texts", ["a", "bc"])
    writer.add_bool("some.flag", True)
    for number, (block, size) in gguf.GGML_QUANT_SIZES.items():
        content = np.zeros((ROWS, 2 * size), dtype=np.uint8)
        writer.add_tensor(f"blk.{number.value}.weight", content, raw_shape=content.shape, raw_dtype=number)
        assert block > 0
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_tensor_has_the_type_shape_and_bytes_that_the_library_reads(file):
    found = read_header(file)
    expected = [
        Declared(
            tensor.name,
            tensor.tensor_type.name,
            tuple(int(n) for n in reversed(tensor.shape)),
            int(tensor.data_offset),
            int(tensor.data_offset) + int(tensor.n_bytes),
        )
        for tensor in gguf.GGUFReader(file).tensors
    ]
    assert (found.architecture, found.layers) == ("llama", 7)
    assert list(found.tensors) == sorted(expected, key=lambda tensor: tensor.begin)
    assert {math.prod(tensor.shape) for tensor in found.tensors} >= {ROWS * 2, ROWS * 512}


@pytest.mark.parametrize("size", [0, 3, 20, 200])
def test_a_file_that_ends_inside_its_header_is_none_of_ours(file, size):
    file.write_bytes(file.read_bytes()[:size])
    assert read_header(file) is None


def test_another_file_is_no_header(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    assert read_header(tmp_path / "model.gguf") is None
    assert read_header(tmp_path / "absent.gguf") is None


def test_all_files_of_a_split_are_found_by_any_of_them_and_by_the_folder(tmp_path):
    names = [f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in files_of(tmp_path / names[1])] == names
    assert [path.name for path in files_of(tmp_path)] == names
    assert files_of(tmp_path / "single.gguf") == [tmp_path / "single.gguf"]
    assert files_of(tmp_path / "absent") == []
