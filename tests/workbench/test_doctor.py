"""What doctor says of this Python and of this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def said(loadscope: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its answer as JSON, once."""
    folder = tmp_path_factory.mktemp("doctor") / "sessions"
    ran = loadscope("doctor", "--json", LOADSCOPE_DIR=str(folder), TRITON_INTERPRET="0")
    assert {check["name"]: check["found"] for check in ran.json["checks"]}["sessions"] == str(folder)
    return ran


def names(folder: str, constant: str) -> set[str]:
    """Files of a folder that assign the constant, read by hand."""
    files = (ROOT / folder).glob("*.py")
    return {f.stem for f in files if f"\n{constant}" in f.read_text(encoding="utf-8")}


def test_doctor_names_the_engine_and_ends_well_where_nothing_is_missing(said):
    checks = {check["name"]: check for check in said.json["checks"]}
    assert checks["native"]["is_ok"]
    assert said.exit_code == (0 if all(check["is_ok"] for check in checks.values()) else 5)


def test_every_architecture_method_and_device_is_listed(said):
    assert {one["name"] for one in said.json["architectures"]} == names("backends/native/models", "ARCHITECTURES")
    assert {one["name"] for one in said.json["methods"]} == names("backends/native/quantization", "QUANT_METHODS")
    assert {one["name"].replace("-", "_") for one in said.json["devices"]} == names("backends/devices", "DEVICE")


def test_a_device_that_is_not_here_has_a_reason_and_one_that_is_has_memory(said):
    devices = {one["name"]: one for one in said.json["devices"]}
    assert (devices["cpu"]["is_here"], devices["cpu"]["why_not"]) == (True, None)
    assert devices["cpu"]["total_bytes"] > 1 << 28
    assert devices["cuda"]["is_here"] is torch.cuda.is_available()
    assert devices["npu"]["is_here"] or devices["npu"]["why_not"]
    assert devices["simulated-npu"]["note"] == "simulated on the CPU"
    assert devices["simulated-npu"]["max_grid_product"] == 65535


def test_every_kind_of_kernels_tells_why_it_does_not_run(said):
    cpu = next(one for one in said.json["devices"] if one["name"] == "cpu")
    reasons = {kind["name"]: kind["why_not"] for kind in cpu["kinds"]}
    assert reasons.keys() == {p.parent.name for p in (ROOT / "backends/native/kernels").glob("*/__init__.py")}
    assert reasons["reference"] is None
    if importlib.util.find_spec("triton") is not None:
        assert "interpreter is off" in reasons["triton"]


def test_an_operation_is_done_by_the_first_kind_that_a_device_prefers_and_has(said):
    devices = {one["name"]: one for one in said.json["devices"] if one["is_here"]}
    for operation in said.json["kernels"]:
        for name, chosen in operation["chosen"].items():
            runs = {kind["name"] for kind in devices[name]["kinds"] if kind["why_not"] is None}
            wanted = [k for k in devices[name]["prefers"] if k in runs and k in operation["kinds"]]
            assert chosen == wanted[0], operation
    listed = {one["name"]: one["kinds"] for one in said.json["kernels"]}
    assert listed["fp8_block_linear"][-1] == "reference"
    assert "triton" in listed["fp8_block_linear"]
    assert "ggml_types" not in listed


def test_a_format_whose_dtype_a_device_lacks_is_not_on_it(said):
    methods = {(one["name"], one["format"]): one for one in said.json["methods"]}
    block = methods["fp8", "block"]
    assert "cpu" in block["devices"]
    assert block["why_not"]["npu"] == "has no float8_e4m3fn"
    assert methods["awq", "int4 groups"]["why_not"] == {}


def test_without_torch_doctor_says_so_and_how_to_see_more(loadscope, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = loadscope("doctor", LOADSCOPE_DIR=str(tmp_path / "file" / "sessions"), PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert ran.exit_code == 5
    assert "set LOADSCOPE_DIR" in ran.stdout
    assert "cannot be asked: ImportError: no torch here" in ran.stdout
    assert "-m workbench.capabilities" in ran.stdout
