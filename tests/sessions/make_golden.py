"""Make the golden recordings again: a script to run by hand when events or rules change, not a test.

    python tests/sessions/make_golden.py [SCENARIO …]     # without names: every scenario that plants a defect

Each scenario is loaded once; its session is freed of this machine's paths and written to sessions/golden/SCENARIO.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import site
import sqlite3
import sys
import sysconfig
import tempfile
from pathlib import Path

from sessions.manifest import Manifest
from sessions.session import Session
from workbench import places, plugins
from workbench.demonstration import host_of_scenario
from workbench.diagnosis.verdict import findings
from workbench.launching import Watch
from workbench.scenario import scenario_named

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "sessions" / "golden"
SHORT = ("--max-new-tokens", "1")
LOADS_ONLY = {
    "int8-packed-scale",
    "unwritten-slot", "double-write", "swapped-halves", "dropped-scale", "rank-offset", "left-twice",
}  # fmt: skip
"""Recordings whose forward pass would be most of their size and has nothing to show."""
STREAM = "1-0.sqlite"
EXPECTED = "findings.json"


def replacements() -> list[tuple[str, str]]:
    """What stands in a session of where it was made, the longest first, and what it says instead."""
    libraries = {*site.getsitepackages(), sysconfig.get_path("purelib")}
    pairs = {
        f"{ROOT}/": "",
        **{f"{path}/": "site-packages/" for path in libraries},
        f"{sysconfig.get_path('stdlib')}/": "lib/python/",
        sys.executable: "python",
        f"{places.cache_folder()}/": "",
        f"{Path.home()}/": "~/",
    }
    return sorted(pairs.items(), key=lambda pair: -len(pair[0]))


def cleaned(text: str) -> str:
    for old, new in replacements():
        text = text.replace(old, new)
    return re.sub(r"checkpoints/[0-9a-f]{8}/", "checkpoints/", text)


def clean_stream(source: Path, target: Path) -> None:
    """A copy without the paths, in one file that nobody has to mend."""
    before = sqlite3.connect(source)
    db = sqlite3.connect(target)
    before.backup(db)
    before.close()
    db.create_function("cleaned", 1, cleaned)
    db.execute("PRAGMA journal_mode=DELETE")
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    for table in tables:
        for column in [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]:
            where = f"""typeof("{column}") = 'text' AND instr("{column}", '/')"""
            db.execute(f'UPDATE "{table}" SET "{column}" = cleaned("{column}") WHERE {where}')  # noqa: S608 - our schema
    db.commit()
    db.execute("VACUUM")
    db.close()


def clean_manifest(source: Path, target: Path) -> None:
    manifest = Manifest.read(source)
    command = tuple(cleaned(word) for word in manifest.command)
    dataclasses.replace(manifest, command=command, model=cleaned(manifest.model)).write(target)


def expected(folder: Path) -> list[dict[str, object]]:
    """What the rules find in a recording, as far as it must stay."""
    session = Session.open(folder)
    try:
        return [
            {"class": one.class_, "module": one.module, "parameter": one.parameter, "tensor": one.tensor,
             "root": one.root, "seen": one.seen}
            for one in findings(session)
        ]  # fmt: skip
    finally:
        session.close()


def make(name: str) -> Path:
    target = GOLDEN / name
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / name
        extra = ("--load-only",) if name in LOADS_ONLY else SHORT
        host = host_of_scenario(name, Watch("demo", output=str(made)), extra=extra, is_quiet=True)
        host.start()
        host.wait()
        shutil.rmtree(target, ignore_errors=True)
        (target / "streams").mkdir(parents=True)
        (stream,) = (made / "streams").glob("*.sqlite")
        clean_stream(stream, target / "streams" / STREAM)
        clean_manifest(made, target)
        log = (made / "host.log").read_text(encoding="utf-8")
        (target / "host.log").write_text(cleaned(log), encoding="utf-8")
    (target / EXPECTED).write_text(json.dumps(expected(target), indent=1) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    defects = [name for name in plugins.names(plugins.SCENARIOS) if scenario_named(name).expects]
    for chosen in sys.argv[1:] or defects:
        folder = make(chosen)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{size >> 10:>5} KB  {folder.relative_to(ROOT)}")
