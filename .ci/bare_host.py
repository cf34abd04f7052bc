"""Record a toy engine in an environment that has our wheel and nothing else, and see that nothing else came in.

Run it with that environment's Python and the name of a folder which does not exist yet.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ENGINE = """
class Config:
    def get_quant_method(self, layer, prefix):
        return "method of " + prefix


def weight_loader(param, loaded_weight):
    param[:] = loaded_weight


def load():
    config, weights = Config(), [0.0, 0.0]
    for layer in range(3):
        config.get_quant_method(None, f"layers.{layer}")
    weight_loader(weights, [1.0, 2.0])
    return weights
"""

ADAPTER = """
from inspectors.probe.tracepoint import Engine, Tracepoint

ENGINE = Engine(
    name="toy",
    module="toy_engine",
    distribution="toy",
    rank="",
    tracepoints=(
        Tracepoint(
            stage="method.select",
            shows="method.selected",
            target="toy_engine:Config.get_quant_method",
            arguments={"layer": "layer", "module": "prefix", "selected": "result", "config": "self"},
        ),
    ),
    command=lambda launch: (),
)
"""

HOST = """
import json, sys
before = set(sys.modules)
import toy_engine
result = toy_engine.load()
foreign = [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]
print("LOADED", json.dumps({"result": result, "foreign": sorted(foreign), "early": sorted(before)}))
"""

OURS = ("inspectors", "backends", "toy_engine", "toy_adapter", "__main__", "_distutils_hack")  # the last: setuptools
INSTALLED = {"loadscope", "pip", "setuptools"}


def expect(claim: bool, otherwise: str) -> None:
    """Stop with `otherwise` when the claim does not hold."""
    if not claim:
        sys.exit(f"bare host: {otherwise}")


def main(folder: Path) -> None:
    """Write the toy, run it under `loadscope run`, and read back what was recorded."""
    installed = {distribution.metadata["Name"].lower() for distribution in distributions()}
    expect(installed <= INSTALLED, f"the environment is not bare, it has {sorted(installed - INSTALLED)}")
    folder.mkdir()
    for name, text in {"toy_engine.py": ENGINE, "toy_adapter.py": ADAPTER, "host.py": HOST}.items():
        (folder / name).write_text(text, encoding="utf-8")
    loadscope = Path(sys.executable).with_name("loadscope")
    watch = [loadscope, "run", "--json", "--level", "calls", "-o", "session", "--adapter", "toy_adapter", "-q"]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [*watch, "--", sys.executable, "host.py"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, sep="")
    expect(done.returncode == 0, f"loadscope run ended with {done.returncode}")
    log = (folder / "session" / "host.log").read_text(encoding="utf-8")
    expect("LOADED" in log, f"the host did not load: {log!r}")
    facts = json.loads(log.partition("LOADED ")[2].splitlines()[0])
    expect(facts["result"] == [1.0, 2.0], f"the host's own result changed: {facts['result']}")
    strangers = [name for name in facts["foreign"] if name.partition(".")[0] not in OURS]
    expect(not strangers, f"the probe brought in {strangers}")
    from sessions.session import Session

    session = Session.open(folder / "session")
    expect(
        session.count("method.selected") == 3, f"expected 3 method.selected, found {session.count('method.selected')}"
    )
    session.close()
    print("bare host: 3 decisions recorded, nothing but the standard library was imported")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
