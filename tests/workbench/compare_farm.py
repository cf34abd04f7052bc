"""Runs hosts of comparisons as forks of one process that has imported torch: many recordings in the time of one."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sessions.manifest import Outcome
from workbench.compare.running import Hosts, Run, hosts_of
from workbench.host import Host
from workbench.launching import Watch, embedded_engine

ROOT = Path(__file__).resolve().parents[2]
FARM = """
import json, os, sys, traceback
import backends.native.cli, inspectors.probe.bootstrap, inspectors.probe.agent
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log = os.open(os.path.join(job["session"], "host.log"), os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(log, 1); os.dup2(log, 2)
            os.environ.update(LOADSCOPE_SESSION=job["session"], LOADSCOPE_LEVEL=job["level"])
            inspectors.probe.bootstrap.arm()
            exec(job["before"])
            code = backends.native.cli.main(job["arguments"])
            import atexit; atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Farm:
    """One process that forks a host for each job."""

    def __init__(self) -> None:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("LOADSCOPE_")}
        variables |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )

    def run(self, host: Host, before: str = "") -> None:
        """Run a host's command; `before` is Python that plants a defect in it."""
        host.manifest = dataclasses.replace(host.manifest, outcome=Outcome("running"))
        host.manifest.write(host.folder)
        arguments = host.manifest.command[host.manifest.command.index("backends.native") + 1 :]
        job = {"session": str(host.folder), "level": host.manifest.level, "before": before, "arguments": arguments}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        if code:
            raise AssertionError((host.folder / "host.log").read_text(encoding="utf-8"))
        dataclasses.replace(host.manifest, outcome=Outcome("ok", 0)).write(host.folder)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)


def made_hosts(
    reference: Path,
    candidate: Path,
    folder: Path,
    *,
    tp: tuple[int, int] = (1, 1),
    dtypes: tuple[str, str] = ("", ""),
    tokens: Sequence[int] = (1, 2, 3, 4, 5),
) -> Hosts:
    """The two hosts of a comparison, not run yet."""
    runs = [
        Run(model, embedded_engine(), size, "cpu", dtype)
        for model, size, dtype in zip((reference, candidate), tp, dtypes, strict=True)
    ]
    return hosts_of(runs[0], runs[1], tuple(tokens), Watch("compare", output=str(folder)))
