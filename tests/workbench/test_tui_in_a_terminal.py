"""The workbench in a real terminal: tmux starts it, sends keys and reads the pane."""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
LIMIT_S = 60.0


class Terminal:
    """One tmux server of its own with one window."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._server = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]
        line = f"{shlex.join(command)}; echo left with $?; sleep {LIMIT_S:.0f}"
        environment = ["env", "-u", "COLUMNS", "-u", "LINES", "TERM=xterm-256color", "LC_ALL=C.UTF-8", "sh", "-c", line]
        self._tmux("new-session", "-d", "-x", "120", "-y", "36", shlex.join(environment))

    def _tmux(self, *words: str) -> str:
        done = subprocess.run([*self._server, *words], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def shows(self, text: str) -> None:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            if text in self.text:
                return
        raise AssertionError(f"the terminal never showed {text!r}\n{self.text}")

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal(failed_demo, variables, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "workbench.cli", "open", failed_demo.json["session"]]
    it = Terminal(tmp_path, command)
    yield it
    it.close()


def test_a_session_opens_at_its_root_cause_answers_keys_and_is_left(terminal):
    terminal.shows("how it came about")
    terminal.shows("F1 · error · skip-decision/fused-name")
    terminal.press("1")
    terminal.shows("from the fallback table, not the model")
    terminal.press("Enter")
    terminal.shows("rule's code")
    terminal.press("q")
    terminal.shows("never tried")
    terminal.press("?")
    terminal.shows("where the selected row leads")
    terminal.press("q", "q")
    terminal.shows("how it came about")
    terminal.press("q")
    terminal.shows("left with 0")
