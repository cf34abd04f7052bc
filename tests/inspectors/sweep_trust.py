"""The complete form of `test_trust.py`, a script to run by hand: every architecture, format, level, fault and moment.

    python tests/inspectors/sweep_trust.py bits FOLDER [WORD …]     # bits and recall; combinations that hold every word
    python tests/inspectors/sweep_trust.py kills FOLDER [COUNT]     # COUNT kills (100) of one load, at random moments
    python tests/inspectors/sweep_trust.py disks FOLDER             # a full and a read-only disk, as root

Prints a line for each case and ends with the number of those that were not as they should be.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import trust_kills
import trust_runs as runs

from sessions.alignment import align
from sessions.errors import SessionError
from sessions.session import Session

LEVELS = ("calls", "ledger", "values", "tensors")
SECONDS = 3.0


def bits(folder: Path, words: list[str]) -> int:
    """Hashes at every level against those without the probe, and what was recorded against what was counted."""
    known = runs.formats()
    wanted = [
        (architecture, method)
        for architecture in known.ARCHITECTURES
        for method in ("bf16", *known.METHODS)
        if all(word in f"{architecture} {method}" for word in words)
    ]
    models = [runs.write_model(folder, *one) for one in wanted]
    broken = [runs.write_broken(model) for model in models[:: max(1, len(models) // 6)]]
    plain = runs.run([*models, *broken], counts=True)
    wrong = 0
    for level in LEVELS:
        session = folder / f"session-{level}"
        runs.write_manifest(session, level)
        watched = runs.run([*models, *broken], session)
        for name, said in plain.said.items():
            other = watched.said.get(name, {})
            keys = ("parameters", "logits", "error")
            is_same = [said.get(key) for key in keys] == [other.get(key) for key in keys]
            counted, recorded = Counter(said["counts"]), watched.recorded.get(name, Counter())
            is_complete = all(recorded[kind] == counted[kind] for kind in runs.COUNTED)
            wrong += not (is_same and is_complete)
            told = "" if is_complete else f" counted {dict(counted)}, recorded {[recorded[k] for k in runs.COUNTED]}"
            verdict = f"{'same bits' if is_same else 'OTHER BITS'} {'all' if is_complete else 'SOME'}"
            print(f"{verdict} {level:8} {name}{told}", flush=True)
    return wrong


def kills(folder: Path, count: int) -> int:
    """Kill a host that loads over and over; each session must be a beginning of a whole one, short of 100 ms."""
    model = runs.write_model(folder, "qwen3_next", "fp8 block")
    chance, wrong, losses = random.Random(count), 0, []  # noqa: S311 - moments, not secrets
    whole = _killed(model, folder / "whole", folder / "whole-times", 2 * SECONDS)
    for number in range(count):
        session, times = folder / f"kill-{number}", folder / "times"
        times.unlink(missing_ok=True)
        _killed(model, session, times, chance.uniform(0.0, SECONDS))
        done = [int(line) for line in times.read_text().split("\n")[:-1]] if times.exists() else []
        try:
            killed, full = Session.open(session), Session.open(whole)
        except SessionError as error:
            print(f"UNREADABLE {session}: {error.what}", flush=True)
            wrong += 1
            continue
        found = align(killed, full)
        lost = trust_kills.lost_ms(done, killed.count("loader.called"))
        losses.append(lost)
        is_right = found.is_alike and lost <= trust_kills.LIMIT_MS
        wrong += not is_right
        print(f"{'right' if is_right else 'WRONG'} {len(killed):7,} events, {lost:5.1f} ms lost, "
              f"{len(found.differences)} differ", flush=True)  # fmt: skip
        killed.close()
        full.close()
        if is_right:
            shutil.rmtree(session)
    losses = sorted(losses) or [0.0]
    print(f"lost at most {losses[-1]:.1f} ms, in half of the cases at most {losses[len(losses) // 2]:.1f} ms")
    return wrong


def _killed(model: Path, session: Path, times: Path, seconds: float) -> Path:
    runs.write_manifest(session, "ledger")
    argv = runs.argv(models=[str(model)], tp=1, times=str(times))
    host = subprocess.Popen(argv, env=runs.environment(session), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        host.stdout.readline()
        time.sleep(seconds)
    finally:
        host.send_signal(signal.SIGKILL)
        host.communicate()
    return session


def disks(folder: Path) -> int:
    """A disk that is full after so many kilobytes, and one that takes no writes, under a load of the native stack."""
    models = [runs.write_model(folder, architecture, "bf16") for architecture in ("qwen3_5", "qwen3_next")]
    plain, wrong = _lines(models), 0
    cases = [
        (f"full at {size} KB", ("-t", "tmpfs", "-o", f"size={size}k", "tmpfs")) for size in (16, 64, 256, 512, 640)
    ]
    for name, words in [*cases, ("read-only", ("-t", "tmpfs", "-o", "ro", "tmpfs"))]:
        session = folder / name.replace(" ", "-")
        runs.write_manifest(session, "tensors")
        (session / "streams").mkdir()
        subprocess.run(["mount", *words, session / "streams"], check=True)
        try:
            argv = runs.argv(models=[str(one) for one in models], tp=2)
            watched = subprocess.run(argv, env=runs.environment(session), capture_output=True, text=True, check=False)
            is_same = watched.stdout.splitlines() == plain
            told = watched.stderr.count("recording ended, the host goes on")
            opened = _opened(session)
            is_right = is_same and watched.returncode == 0 and told <= 1
            wrong += not is_right
            print(f"{'right' if is_right else 'WRONG'} {name}: told {told} times, {opened}", flush=True)
        finally:
            subprocess.run(["umount", session / "streams"], check=True)
    return wrong


def _lines(models: list[Path]) -> list[str]:
    done = subprocess.run(runs.argv(models=[str(one) for one in models], tp=2), env=runs.environment(None),
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.splitlines()


def _opened(session: Path) -> str:
    try:
        opened = Session.open(session)
    except SessionError as error:
        return error.what
    try:
        return f"{len(opened):,} events readable"
    finally:
        opened.close()


def main(what: str, folder: Path, words: list[str]) -> int:
    """Run one of the three; returns how many cases were wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    if what == "bits":
        return bits(folder, words)
    if what == "kills":
        return kills(folder, int(words[0]) if words else 100)
    return disks(folder)


if __name__ == "__main__":
    found = main(sys.argv[1], Path(sys.argv[2]).absolute(), sys.argv[3:])
    print(f"{found} wrong")
    sys.exit(min(found, 1))
