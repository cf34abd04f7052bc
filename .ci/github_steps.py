"""Run the README's steps for GitHub Actions as a runner does, on a project whose load fails, and see what they leave.

Run it with the Python of an environment that has the tests' packages but not Loadscope, and the names of the README,
of a folder that does not exist yet, and of the folder with the wheel, from which `pip install loadscope` is served.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

WRITE = """
from pathlib import Path
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.registry import architecture_module
from safetensors.torch import load_file, save_file

write_checkpoint(Path("model"), architecture_module("Qwen3ForCausalLM").tiny_config(), seed=1, max_file_bytes=1 << 26)
for file in Path("model").glob("*.safetensors"):
    tensors = load_file(file)
    for name in [name for name in tensors if name.endswith("layers.1.self_attn.k_proj.weight")]:
        tensors[name] = tensors[name][:-64].contiguous()
    save_file(tensors, file, {"format": "pt"})
"""

TESTS = """
import subprocess, sys

def test_the_model_loads_at_tp_2():
    load = [sys.executable, "-m", "backends.native", "model", "--tp", "2", "--load-only"]
    subprocess.run(load, check=True)

def test_nothing_is_wrong_here():
    assert True
"""
UPLOAD = "actions/upload-artifact@"


def expect(claim: bool, otherwise: str) -> None:
    """Stop with `otherwise` when the claim does not hold."""
    if not claim:
        sys.exit(f"GitHub steps: {otherwise}")


def steps(text: str) -> list[dict[str, object]]:
    """The steps in the README's block of YAML."""
    block = text.partition("\n```yaml\n")[2].partition("\n```")[0]
    found = yaml.safe_load(block)
    expect(isinstance(found, list) and bool(found), "the README has no list of steps in a block of YAML")
    return list(found)


def run(job: list[dict[str, object]], folder: Path, environment: dict[str, str]) -> tuple[bool, list[Path]]:
    """Do the steps in order: after a failed one only those that ask for it. True when one failed; what was uploaded."""
    has_failed, uploaded = False, list[Path]()
    for step in job:
        condition = str(step.get("if", ""))
        expect(condition in ("", "failure()", "always()"), f"a step has the condition {condition!r}")
        if has_failed is (condition == "") or (condition == "failure()" and not has_failed):
            continue
        if "run" in step:
            print(f"$ {step['run']}", flush=True)
            words = ["bash", "-e", "-c", str(step["run"])]
            has_failed |= subprocess.run(words, cwd=folder, env=environment, check=False).returncode != 0
        else:
            expect(str(step.get("uses", "")).startswith(UPLOAD), f"a step of an unknown kind: {step}")
            options = step["with"]
            expect(isinstance(options, dict), f"no options in {step}")
            uploaded += sorted((folder / str(dict(options)["path"])).rglob("*"))  # type: ignore[call-overload]
    return has_failed, uploaded


def main(readme: Path, folder: Path, wheels: Path) -> None:
    """Make the project, run the steps in it, and look at the bundle and at the job's page."""
    folder.mkdir()
    page, programs = folder / "summary.md", str(Path(sys.executable).parent)
    served = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)}
    environment = {**os.environ, **served, **github, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    job = steps(readme.read_text(encoding="utf-8"))
    (folder / "tests").mkdir()
    (folder / "tests" / "test_load.py").write_text(TESTS, encoding="utf-8")
    has_failed, _ = run(job[:1], folder, environment)
    expect(not has_failed, "the first step failed")
    subprocess.run([sys.executable, "-c", WRITE], cwd=folder, env=environment, check=True)
    has_failed, uploaded = run(job[1:], folder, environment)
    expect(has_failed, "a load that fails did not fail the job")
    bundles = [file for file in uploaded if file.suffix == ".zip"]
    expect(len(bundles) == 1, f"expected one bundle to be uploaded, found {uploaded}")
    told = page.read_text(encoding="utf-8")
    for part in ("test_the_model_loads_at_tp_2", "self_attn.qkv_proj.weight", bundles[0].name):
        expect(part in told.replace("\\", ""), f"the job's page does not say {part!r}:\n{told}")
    told = _diagnosed(bundles[0], environment)
    expect("self_attn.k_proj.weight" in told and "shard 'k'" in told, f"the bundle does not name the call:\n{told}")
    print(f"GitHub steps: {len(job)} steps, one bundle that names the failing call, and the job's page")


def _diagnosed(bundle: Path, environment: dict[str, str]) -> str:
    asked = ["loadscope", "diagnose", str(bundle)]
    return subprocess.run(asked, env=environment, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    main(*(Path(word).absolute() for word in sys.argv[1:4]))
