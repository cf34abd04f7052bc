"""`loadscope compare` as a person uses it, and its comparison on the precision screen."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.synthesize import write_checkpoint
from sessions.manifest import Manifest
from sessions.session import Session
from workbench.cli import main
from workbench.compare.comparison import FILE_NAME

HERE = Path(__file__).parent
DEFECT = "model.layers.1.self_attn.o_proj"


def loaded_file(path: Path):
    spec = importlib.util.spec_from_file_location(f"loadscope_tests_{path.stem}", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


formats = loaded_file(HERE.parent / "backends" / "test_format_checkpoints.py")
opened_at = loaded_file(HERE / "tui_driver.py").opened_at


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """A plain checkpoint, and the same as FP8 with one scale of one layer eight times too large."""
    folder = tmp_path_factory.mktemp("pair")
    plain = write_checkpoint(folder / "plain", formats.small_config("llama"), seed=3, max_file_bytes=1 << 22)
    bad = write_checkpoint(folder / "bad", formats.config_of("llama", "fp8 block"), seed=3, max_file_bytes=1 << 22)
    for path in bad.glob("*.safetensors"):
        tensors = load_file(path)
        tensors[f"{DEFECT}.weight_scale_inv"] *= 8
        save_file(tensors, path, metadata={"format": "pt"})
    return plain, bad


@pytest.fixture(scope="session")
def compared(loadscope, home, pair):
    return loadscope("compare", *pair, "--tokens", "1,2,3,5,8", "--candidate-tp", 2, "-o", home / "compared", "--json")


def test_a_planted_defect_is_the_first_finding_and_exit_code_one(compared, home):
    said = compared.json
    assert (compared.exit_code, said["exit_code"], said["outcome"]) == (1, 1, "findings")
    assert said["first"] == {"module": DEFECT, "slots": [], "layer": 1}
    (finding,) = said["findings"]
    assert (finding["id"], finding["class"], finding["module"]) == ("F1", "precision/checkpoint", DEFECT)
    assert finding["tensor"] == f"{DEFECT}.weight"
    assert said["session"] == str(home / "compared")
    assert (said["reference"]["tp"], said["candidate"]["tp"]) == (1, 2)
    assert said["thresholds"]["output_db"] == 10
    output = next(one for one in said["outputs"] if one["module"] == DEFECT)
    assert output["stands_out"]
    assert output["excess_db"] > 10
    assert {"cosine", "sqnr_db", "max_abs_error", "relative_error"} <= output.keys()
    weight = next(one for one in said["weights"] if one["tensor"] == f"{DEFECT}.weight")
    assert weight["sqnr_db"] == pytest.approx(-16.9, abs=0.1)
    assert weight["expected_sqnr_db"] == pytest.approx(31.6, abs=0.5)
    json.loads(compared.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_both_runs_are_sessions_that_can_be_opened(compared, home):
    for folder, tp in ((home / "compared", 2), (home / "compared" / "reference", 1)):
        session = Session.open(folder)
        assert (session.manifest.tp, session.manifest.level, session.manifest.outcome.state) == (tp, "tensors", "ok")
        assert session.count("tensor.kept") > 0
        session.close()


@pytest.fixture
def compare(capsys, monkeypatch):
    """Runs the verb in this process, which has imported torch already; returns exit code, output and error lines."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*words: object) -> tuple[int, str, list[str]]:
        code = main(["compare", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return run


def test_two_alike_exit_with_zero_and_print_every_module(compare, pair, tmp_path):
    code, out, errors = compare(pair[0], pair[0], "--candidate-dtype", "float32", "-o", tmp_path / "alike")
    assert (code, errors) == (0, [])
    lines = out.splitlines()
    assert any(line.startswith("verdict   alike") and "10 dB" in line for line in lines)
    for name in ("model.layers.0.self_attn.qkv_proj[k_proj]", "model.layers.1.mlp.down_proj", "lm_head"):
        assert any(name in line for line in lines), name
    assert "the same checkpoint" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tokens", "1,x"), "is not a list of numbers"),
        (("--tokens", "1,128"), "token 128 is not in the vocabulary"),
        (("--candidate-tp", "3"), "3"),
        (("--prompt", "hello"), "tokenizer.json"),
    ],
)
def test_what_cannot_be_run_is_told_in_two_lines_before_any_host_starts(compare, pair, tmp_path, words, told):
    code, out, errors = compare(*pair, *words, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert told in errors[0]
    assert errors[1].startswith("try: ")
    assert not (tmp_path / "out" / "session.json").exists()


def test_a_host_that_fails_is_named_with_its_session(compare, pair, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in pair[0].iterdir():
        if path.suffix != ".safetensors":
            (broken / path.name).write_bytes(path.read_bytes())
    for path in pair[0].glob("*.safetensors"):
        tensors = load_file(path)
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
        save_file(tensors, broken / path.name, metadata={"format": "pt"})
    code, _, errors = compare(broken, pair[1], "-o", tmp_path / "out")
    assert code == 4
    assert "the host of the reference, broken, failed with exit code 1" in errors[0]
    assert errors[1] == f"try: loadscope diagnose {tmp_path / 'out' / 'reference'}"


def test_an_interrupted_comparison_leaves_sessions_that_can_be_read(pair, variables, tmp_path):
    words = ["compare", *map(str, pair), "-o", str(tmp_path / "out")]
    running = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *words], cwd=HERE.parents[1], env=variables, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    inner = tmp_path / "out" / "reference"
    while running.poll() is None and not list(inner.glob("streams/*.sqlite")):
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 5
    assert "interrupted while the reference ran" in told
    assert Manifest.read(inner).outcome.state == "interrupted"
    Session.open(inner).close()


async def test_the_screen_opens_at_the_defect_and_shows_weight_and_output(compared, home):
    async with opened_at(home / "compared", (120, 40)) as it:
        await it.opened()
        await it.press("e")
        await it.shows("first excess · layer 1 of 2")
        assert "against plain · bfloat16 · tp 1" in it.text
        assert "residual stream, SQNR in dB" in it.text
        assert "✗ first layers.1.self_attn.o_proj" in it.text
        assert "whose fault" in it.text
        assert "checkpoint" in it.text
        lines = it.text.splitlines()
        weight = next(line for line in lines if "weight   " in line)
        assert "31.6 dB" in weight
        assert "-16.9 dB" in weight
        await it.press("left")
        await it.shows("layer 0 of 2")
        await it.press("v")
        await it.shows("layers.1.self_attn.o_proj.weight")
        await it.press("x")
        await it.until(lambda: len(it.session.view.rows) == 1, "only the weight that stands out")
        await it.press("o")
        await it.shows("-16.9")
        await it.press("enter")
        await it.shows("why this method")
        await it.press("q")
        await it.shows("is it right")
        assert "internal error" not in it.text


@pytest.mark.parametrize("size", [(80, 24), (240, 60)])
async def test_the_screen_says_the_verdict_at_every_size(compared, home, size):
    async with opened_at(home / "compared", size) as it:
        await it.opened()
        await it.press("e")
        await it.shows("first excess · layer 1 of 2")
        await it.shows("✗ SQNR")


async def test_a_comparison_that_cannot_be_read_costs_one_pane(compared, home):
    path = home / "compared" / FILE_NAME
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:100], encoding="utf-8")
    try:
        async with opened_at(home / "compared") as it:
            await it.opened()
            await it.press("e")
            await it.shows("cannot be read")
            await it.press("p")
            await it.shows("layers.0")
    finally:
        path.write_text(whole, encoding="utf-8")
