"""What the README promises is what is run."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

from workbench import plugins
from workbench.diagnosis.verdict import rules

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ["pip install -c constraints.txt . && loadscope demo", "pip install -c constraints.txt '.[test]' && pytest"]


def test_the_readme_has_the_two_commands_in_its_first_block():
    read = runpy.run_path(str(ROOT / ".ci/readme_commands.py"))["commands"]
    assert read(README) == COMMANDS


def test_ci_takes_the_commands_from_the_readme_and_from_nowhere_else():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert ".ci/readme_commands.py README.md" in script
    lines = {line.strip() for line in script.splitlines()}
    assert not lines & {part for command in COMMANDS for part in (command, *command.split(" && "))}


def test_a_readme_without_the_commands_is_refused(tmp_path: Path):
    broken = tmp_path / "README.md"
    broken.write_text("# Loadscope\n\n```sh\nloadscope demo\n```\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/readme_commands.py", broken], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "expected 2 commands" in done.stderr


def test_every_verb_stands_in_the_readme_and_every_verb_there_exists():
    named = set(re.findall(r"^\| `loadscope (\w+)", README, flags=re.MULTILINE))
    assert named == set(plugins.names(plugins.VERBS))


def test_every_rule_stands_in_the_readme_of_the_diagnosis():
    table = (ROOT / "workbench/diagnosis/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z-]+/[a-z-]+)` \|", table, flags=re.MULTILINE))
    assert {rule.class_ for rule in rules()} - named == set()


def test_the_pinned_versions_are_the_ones_installed_together():
    pins = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
