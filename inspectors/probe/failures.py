"""What is recorded of a host exception that passes through a tracepoint."""

from __future__ import annotations

import os
from types import CodeType, TracebackType

from inspectors.probe.call import Call
from inspectors.probe.events import StageFailed

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120
_MAX_FRAMES = 40


def stage_failed(call: Call, error: BaseException) -> StageFailed:
    """The facts of `error` at `call`, without touching the exception or keeping its frames."""
    frames = _frames(error.__traceback__)
    return StageFailed(
        error=error_name(error),
        message=_text(error),
        where=frames[0].partition(" ")[0] if frames else "",
        frames=frames,
        module=call.facts.get("module", ""),
        parameter=call.facts.get("parameter", ""),
        checkpoint_name=call.facts.get("checkpoint_name", ""),
        call=call.probe.recorder.current_span(),
        failed_stage=call.tracepoint.stage,
    )


def error_name(error: BaseException) -> str:
    """`ValueError`, `package.module.OwnError`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _frames(trace: TracebackType | None) -> tuple[str, ...]:
    """`file:line function` of the host's frames, innermost first: those under the tracepoint, then its callers."""
    frames: list[str] = []
    caller = trace.tb_frame.f_back if trace is not None else None
    while trace is not None:
        frames.insert(0, _frame(trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    while caller is not None and len(frames) < _MAX_FRAMES:
        frames.append(_frame(caller.f_code, caller.f_lineno))
        caller = caller.f_back
    return tuple(frame for frame in frames if frame)[:_MAX_FRAMES]


def _frame(code: CodeType, line: int) -> str:
    if code.co_filename.startswith(_OWN_FOLDER):
        return ""
    return f"{code.co_filename}:{line} {getattr(code, 'co_qualname', code.co_name)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:
        return f"(its text raised {type(fault).__name__})"
