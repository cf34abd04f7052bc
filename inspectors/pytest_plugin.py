"""The pytest door: `pytest --loadscope` records every test, and keeps a bundle of each that fails. Inert otherwise."""

from __future__ import annotations

import importlib
from typing import Any

_LEVELS = ("calls", "ledger", "values", "tensors")
_MARKER = "loadscope(min_coverage=1.0): with --loadscope, fail unless this part of every parameter was filled"


def pytest_addoption(parser: Any) -> None:
    """The options; none of them does anything without `--loadscope`."""
    group = parser.getgroup("loadscope", "record quantized model loads")
    group.addoption("--loadscope", action="store_true", help="record every test; keep a bundle of each that fails")
    group.addoption("--loadscope-dir", metavar="DIR", default="loadscope-results", help="where bundles go")
    group.addoption("--loadscope-level", choices=_LEVELS, default="ledger", help="what is recorded (default: ledger)")
    group.addoption(
        "--loadscope-on", choices=("failure", "always"), default="failure", help="which tests leave a bundle"
    )
    group.addoption(
        "--loadscope-adapter", metavar="MODULE", action="append", default=[], help="an adapter of your own (repeatable)"
    )
    group.addoption(
        "--loadscope-hold", metavar="SECONDS", nargs="?", type=float, const=600.0, default=0.0,
        help="a failing load waits at its exception for `loadscope attach`",
    )  # fmt: skip


def pytest_configure(config: Any) -> None:
    """Bring in what records, only when asked for: this file is read at every start of pytest."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--loadscope", default=False):
        plugin = importlib.import_module("workbench.testruns.plugin")
        config.pluginmanager.register(plugin.Recording(config), "loadscope-recording")
