"""Compiles the C sources beside this file with the machine's compiler, once per machine, and loads the result."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)
SWITCH = "LOADSCOPE_COMPILED"
SOURCES = Path(__file__).parent / "source"
COMPILERS = ("cc", "gcc", "clang")
# A product contracted with a sum is rounded once where the definition rounds twice.
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fvisibility=hidden", "-shared", "-fPIC", "-Wno-psabi")
FOR_THIS_CPU = "-march=native"
LIMIT_S = 120
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True)
class Loaded:
    """The library, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str | None = None


class _Held:
    """What this process has loaded."""

    lock = threading.Lock()
    loaded: Loaded | None = None


def why_not() -> str | None:
    """Why the sources cannot be compiled, in words, or None; compiles nothing, but knows of an attempt that failed."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 switches them off"
    if _Held.loaded is not None:
        return _Held.loaded.reason
    if os.name != "posix":
        return f"they are compiled on POSIX systems only, not on {platform.system()}"
    if _compiler() is None:
        return f"no C compiler: none of {', '.join(COMPILERS)} is on the PATH"
    return None


def loaded() -> Loaded:
    """The library, compiled now if it never was on this machine; a failure is remembered and logged once."""
    reason = why_not()
    if reason is not None:
        return Loaded(None, reason)
    with _Held.lock:
        if _Held.loaded is None:
            _Held.loaded = _load()
            if _Held.loaded.reason is not None:
                logger.warning("no C kernels, torch is used instead: %s", _Held.loaded.reason)
        return _Held.loaded


def function(name: str) -> ctypes._NamedFuncPointer | None:
    """The C function of that name; None where the reference must do."""
    library = loaded().library
    if library is None:
        return None
    found: ctypes._NamedFuncPointer = getattr(library, name)
    return found


def _compiler() -> str | None:
    return next((path for name in COMPILERS if (path := shutil.which(name)) is not None), None)


def _load() -> Loaded:
    compiler = _compiler() or COMPILERS[0]
    try:
        folder = _cache_folder()
        path = folder / f"kernels-{_key(compiler)}.so"
        if not _is_ours(path):
            _compile(compiler, path)
        return Loaded(_opened(path, compiler))
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [f"exit code {error.returncode}"]
        return Loaded(None, f"{compiler} failed: {next((line for line in lines if 'error' in line), lines[-1])}")
    except (OSError, subprocess.SubprocessError) as error:
        return Loaded(None, f"{compiler} made no library that can be loaded: {error}")


def _opened(path: Path, compiler: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # cut short by a full disk, or of another C library
        _compile(compiler, path)
        return ctypes.CDLL(str(path))


def _cache_folder() -> Path:
    """A folder that nobody else can write to, since code is loaded from it; one for this process if need be."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "loadscope" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(folder) and os.access(folder, os.W_OK):
            return folder
    except OSError as error:
        logger.info("%s cannot be used: %s", folder, error)
    return Path(tempfile.mkdtemp(prefix="loadscope-kernels-"))


def _is_ours(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & _OTHERS_MAY_WRITE


def _key(compiler: str) -> str:
    """Changes with the sources, the flags, the compiler and the CPU, whose instructions the result may use."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    digest = hashlib.sha256("\0".join((compiler, version.stdout, *FLAGS, FOR_THIS_CPU, _cpu())).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def _cpu() -> str:
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        described = []
    kept = [line for line in described if line.partition("\t")[0] in {"model name", "flags", "Features", "CPU part"}]
    return "\n".join([platform.machine(), platform.processor(), *kept])


def _compile(compiler: str, path: Path) -> None:
    """Write the library to `path` whole or not at all; raises CalledProcessError with the compiler's words."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    sources = [str(source) for source in sorted(SOURCES.glob("*.c"))]
    try:
        try:
            _run([compiler, *FLAGS, FOR_THIS_CPU, "-o", name, *sources])
        except subprocess.CalledProcessError:  # not every compiler knows that flag for every CPU
            _run([compiler, *FLAGS, "-o", name, *sources])
        Path(name).chmod(0o700)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S)
