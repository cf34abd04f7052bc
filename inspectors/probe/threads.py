"""Takes what a loader call watches along into the threads that it hands its work to.

Torch's modes are a thread's own. While a load is watched, `Thread.start` and `ThreadPoolExecutor.submit` (functions of
the standard library written in Python) look whether their caller is inside a loader call; if so, the new thread, or the
submitted function, runs under the same watch. Everybody else's threads are started as ever.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

Around = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes of a function one that runs under the watch of the thread that asked for it."""


class Followed:
    """The doors of the standard library through which work leaves a thread, replaced while at least one load runs."""

    def __init__(self, around: Callable[[], Around | None]) -> None:
        self._around = around
        self._loads = 0
        self._lock = threading.Lock()
        self._replaced: list[tuple[type, str, Any, Any]] = []

    def begin(self) -> None:
        """A load begins in some thread."""
        with self._lock:
            self._loads += 1
            if self._loads == 1:
                self._replace(threading.Thread, "start", self._starting)
                futures = sys.modules.get("concurrent.futures.thread")
                if futures is not None:
                    self._replace(futures.ThreadPoolExecutor, "submit", self._submitting)

    def end(self) -> None:
        """A load is over; with the last one the doors are as they were, unless somebody else has replaced them too."""
        with self._lock:
            self._loads -= 1
            if self._loads:
                return
            for owner, name, original, ours in self._replaced:
                if vars(owner).get(name) is ours:
                    setattr(owner, name, original)
            self._replaced = []

    def _replace(self, owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = vars(owner)[name]
        ours = functools.wraps(original)(make(original))
        setattr(owner, name, ours)
        self._replaced.append((owner, name, original, ours))

    def _starting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def start(thread: threading.Thread) -> None:
            around = None if getattr(_paused, "is_set", False) else self._around()
            if around is not None and "run" not in vars(thread):
                run = thread.run

                def run_once(*args: Any, **kwargs: Any) -> Any:
                    vars(thread).pop("run", None)
                    return around(run)(*args, **kwargs)

                thread.run = run_once  # type: ignore[method-assign]
            original(thread)

        return start

    def _submitting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def submit(executor: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            around = self._around()
            if around is None:
                return original(executor, fn, *args, **kwargs)
            _paused.is_set = True  # the pool may start a thread for it, which outlives the call
            try:
                return original(executor, around(fn), *args, **kwargs)
            finally:
                _paused.is_set = False

        return submit


_paused = threading.local()
