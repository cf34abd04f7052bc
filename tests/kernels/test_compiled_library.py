"""Compiling the C kernels: once per machine, into a folder of one's own, and without a compiler not at all."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backends.native.errors import KernelError
from backends.native.kernels import compiled
from backends.native.kernels.compiled import library
from backends.native.kernels.compiled.dequantize_gguf import IN_C, dequantize_gguf
from backends.native.kernels.compiled.dequantize_mxfp4 import dequantize_mxfp4
from backends.native.kernels.compiled.fp8_blocks import dequantize_blocks
from backends.native.kernels.reference import dequantize_gguf as gguf_definition
from backends.native.kernels.reference import dequantize_mxfp4 as mxfp4_definition
from backends.native.kernels.reference import fp8_block_linear as fp8_definition
from backends.native.kernels.reference.ggml_types import BY_NAME

FAKE_COMPILER = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in --version) echo fake 1.0; exit 0;; esac
{action}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine on which nothing was compiled: an empty cache, nothing on the PATH, nothing loaded."""
    monkeypatch.setattr(library._Held, "loaded", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(library.SWITCH, raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


def install_compiler(machine, action):
    path = machine / "bin" / "gcc"
    path.write_text(FAKE_COMPILER.format(calls=machine / "calls", action=action))
    path.chmod(0o755)


def calls(machine):
    path = machine / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line != "--version"]


def assert_reference_is_used():
    weight, scale = torch.randn(4, 64).to(torch.float8_e4m3fn), torch.rand(1, 1)
    expected = fp8_definition.dequantize_blocks(weight, scale, (128, 128))
    assert torch.equal(dequantize_blocks(weight, scale, (128, 128), torch.float32), expected)
    packed, exponents = torch.arange(32, dtype=torch.uint8).view(2, 16), torch.full((2, 1), 127, dtype=torch.uint8)
    expected = mxfp4_definition.dequantize_mxfp4(packed, exponents, torch.float32)
    assert torch.equal(dequantize_mxfp4(packed, exponents, torch.float32), expected)
    blocks = torch.ones(3, 34, dtype=torch.uint8)
    expected = gguf_definition.dequantize_gguf(blocks, 8, torch.float32)
    assert torch.equal(dequantize_gguf(blocks, 8, torch.float32), expected)


def test_without_a_compiler_the_reference_is_used_and_why_not_says_so(machine):
    assert compiled.why_not("cpu") == "no C compiler: none of cc, gcc, clang is on the PATH"
    assert_reference_is_used()
    with pytest.raises(KernelError, match="no C compiler") as caught:
        compiled.require_runnable("cpu")
    assert "--kernels reference" in str(caught.value)


def test_they_can_be_switched_off(machine, monkeypatch):
    install_compiler(machine, "exit 1")
    monkeypatch.setenv(library.SWITCH, "0")
    assert compiled.why_not("cpu") == "LOADSCOPE_COMPILED=0 switches them off"
    assert_reference_is_used()
    assert calls(machine) == []


def test_they_are_not_for_other_devices():
    assert compiled.why_not("cuda:1") == "C kernels run on the CPU, not on cuda:1"


def test_a_compiler_that_fails_is_asked_once_and_its_words_are_kept(machine, caplog):
    install_compiler(machine, 'echo "numbers.h:3: fatal error: stdint.h: no such file" >&2; exit 1')
    assert compiled.why_not("cpu") is None
    assert_reference_is_used()
    assert compiled.why_not("cpu").endswith("gcc failed: numbers.h:3: fatal error: stdint.h: no such file")
    assert len(calls(machine)) == 2  # with the flag for this CPU, and without
    assert [record.levelname for record in caplog.records if "torch is used instead" in record.message] == ["WARNING"]
    assert list((machine / "cache").rglob("*.tmp")) == []


def test_a_compiler_that_makes_no_library_is_a_reason_too(machine):
    install_compiler(machine, "exit 0")
    assert_reference_is_used()
    assert "made no library that can be loaded" in compiled.why_not("cpu")


def test_a_compiler_that_does_not_know_this_cpu_compiles_for_any(machine):
    install_compiler(machine, 'case "$*" in *-march=native*) exit 1;; esac')
    library.loaded()
    assert [("-march=native" in call) for call in calls(machine)][:2] == [True, False]


def test_the_cache_is_for_its_owner_alone_and_one_that_others_write_to_is_not_used(machine):
    folder = machine / "cache/loadscope/kernels"
    assert library._cache_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    other = library._cache_folder()
    assert other != folder
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    other.rmdir()


def test_the_key_changes_with_the_sources_the_compiler_and_the_cpu(machine, monkeypatch):
    install_compiler(machine, "exit 1")
    compiler = library._compiler()
    keys = {library._key(compiler)}
    monkeypatch.setattr(library, "_cpu", lambda: "another")
    keys.add(library._key(compiler))
    monkeypatch.setattr(library, "FLAGS", ("-O0",))
    keys.add(library._key(compiler))
    sources = machine / "source"
    sources.mkdir()
    (sources / "a.c").write_text("int a;")
    monkeypatch.setattr(library, "SOURCES", sources)
    keys.add(library._key(compiler))
    assert len(keys) == 4


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the oldest processors of x86-64")
def test_compiled_for_the_oldest_processors_the_numbers_are_the_same(tmp_path, monkeypatch):
    if library.loaded().library is None:
        pytest.skip(f"no C kernels: {library.why_not()}")
    weight = torch.arange(256, dtype=torch.uint8).repeat(3, 2)
    scale, packed = torch.rand(1, 4), torch.randint(0, 256, (3, 96), dtype=torch.uint8)
    blocks = torch.randint(0, 256, (40, 2 * 1584), dtype=torch.uint8)

    def results():
        yield dequantize_blocks(weight.view(torch.float8_e4m3fn), scale, (128, 128), torch.bfloat16)
        yield dequantize_mxfp4(packed, packed[:, :6], torch.float32)
        for name in sorted(IN_C):
            ggml_type = BY_NAME[name]
            rows = blocks[:, : 3168 // ggml_type.block_bytes * ggml_type.block_bytes]
            yield dequantize_gguf(rows, ggml_type.number, torch.float32)
            yield dequantize_gguf(rows, ggml_type.number, torch.bfloat16)

    expected = list(results())
    monkeypatch.setattr(library._Held, "loaded", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "FOR_THIS_CPU", "-march=x86-64")
    monkeypatch.setattr(library, "FLAGS", ("-O1", *library.FLAGS[1:]))  # compiles faster
    assert library.loaded().library is not None
    for found, wanted in zip(results(), expected, strict=True):
        assert torch.equal(found.nan_to_num(nan=7.0), wanted.nan_to_num(nan=7.0))


def test_nothing_is_compiled_by_importing_and_once_only_by_using(tmp_path):
    if library.loaded().library is None:
        pytest.skip(f"no C kernels: {library.why_not()}")
    code = """
import importlib, pathlib, sys
from backends.native.kernels import compiled
for path in pathlib.Path(compiled.__file__).parent.glob("*.py"):
    importlib.import_module(f"{compiled.__name__}.{path.stem}")
compiled.why_not("cpu")
print(len(list(pathlib.Path(sys.argv[1]).rglob("*.so"))))
compiled.require_runnable("cpu")
made = list(pathlib.Path(sys.argv[1]).rglob("*.so"))
print(len(made), oct(made[0].stat().st_mode & 0o777))
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    assert run.stdout.splitlines() == ["0", "1 0o700"]
    made = next(tmp_path.rglob("*.so"))
    before = made.stat().st_mtime_ns
    # A library that was cut short is made again.
    made.write_bytes(made.read_bytes()[:100])
    made.chmod(0o700)
    subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    assert made.stat().st_size > 1000
    assert made.stat().st_mtime_ns != before
