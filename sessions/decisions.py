"""Why each module got its method: the decision, the list it was compared with, and what the checkpoint holds for it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sessions.checkpoint import header
from sessions.dtypes import is_plain, spelled
from sessions.kernels import ChosenKernel, chosen_kernels
from sessions.ledger import ledger, names_in
from sessions.modules import FUSED, HeaderTensor, Names
from sessions.parameters import parameters
from sessions.session import Row, Session
from sessions.stored import stored_shape

AS_IS = "as is"
PACKED = ("uint8", "int32")
"""Types whose elements hold several numbers of a format that they do not tell."""

_METHOD_CLASS = re.compile(r"(Linear|MoE|Embedding)?(Method)?$")


@dataclass(frozen=True)
class DecisionView:
    """The method of one module on one rank. Positions are -1, texts empty and claims None where nothing tells.

    `built` is "as is", the dtype of the quantized weight (its method where that is packed), or "quantized"; `header`
    are the module's tensors in the checkpoint; `is_contradiction`: built quantized over plain tensors without a scale,
    or the reverse. `where` is the rule's place in the code, `method_where` that of its method; `is_dequantized`:
    means built as is, of quantized tensors whose scales went into the same parameters.
    """

    module: str
    rank: int
    position: int
    method_position: int
    layer_class: str
    config_class: str
    method: str
    is_skipped: bool | None
    matched_entry: int
    ignored: tuple[str, ...]
    tried: tuple[str, ...]
    expansion_source: str
    rule: str
    where: str
    header: tuple[HeaderTensor, ...]
    built: str
    is_built_quantized: bool | None
    is_stored_quantized: bool | None
    is_contradiction: bool
    method_where: str = ""
    kernels: tuple[ChosenKernel, ...] = ()
    is_dequantized: bool = False

    @property
    def matched(self) -> str:
        """The list entry that matched, empty for none."""
        return self.ignored[self.matched_entry] if 0 <= self.matched_entry < len(self.ignored) else ""

    @property
    def header_dtype(self) -> str:
        """The dtype of the module's weights on disk; "mixed" when they differ, "" when there are none."""
        dtypes = {tensor.dtype for tensor in self.header}
        return dtypes.pop() if len(dtypes) == 1 else "mixed" if dtypes else ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a fused module by their full names; empty for a module that is not fused."""
        prefix, _, name = self.module.rpartition(".")
        return tuple(f"{prefix}.{part}" if prefix else part for part in FUSED.get(name, ()))

    @property
    def name_on_disk(self) -> str:
        """What the checkpoint calls this very module, where it is another name than the model's; else ""."""
        found = next((tensor.name.rpartition(".")[0] for tensor in self.header), "")
        is_same_leaf = found.rpartition(".")[2] == self.module.rpartition(".")[2]  # not one of its parts
        return found if is_same_leaf and found != self.module else ""

    @property
    def hidden_entry(self) -> int:
        """The list entry that names this module, or the first of all its parts, yet was not compared; -1 for none.

        A module can be named as the checkpoint calls it, where the model has another name for it.

        Only for a module that was not skipped although the checkpoint does not hold it quantized.
        """
        if self.is_skipped is not False or self.is_stored_quantized:
            return -1
        if self.module in self.ignored and self.module not in self.tried:
            return self.ignored.index(self.module)
        if self.name_on_disk in self.ignored and self.name_on_disk not in self.tried:
            return self.ignored.index(self.name_on_disk)
        parts = self.parts if set(self.tried) <= {self.module} else ()
        if parts and all(part in self.ignored for part in parts):
            return min(self.ignored.index(part) for part in parts)
        return -1

    @property
    def is_expanded(self) -> bool:
        """True for a fused name that was compared by its parts."""
        return any(name != self.module for name in self.tried)

    @property
    def kernel(self) -> str:
        """The kernels in a few words, "" when none was recorded."""
        return ", ".join(str(one) for one in self.kernels)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why the other kernels were not taken, each reason once."""
        return tuple(dict.fromkeys(reason for one in self.kernels for reason in one.refused))

    @property
    def at(self) -> int:
        """The position to go to: the skip decision, else the choice of the method."""
        return self.position if self.position >= 0 else self.method_position


def decisions(session: Session) -> tuple[DecisionView, ...]:
    """One view for each (module, rank), in order of decision."""
    return session.kept("decisions", lambda: _decisions(session))


def by_ranks(views: Iterable[DecisionView]) -> tuple[tuple[DecisionView, tuple[int, ...]], ...]:
    """One view for all ranks that decided alike, with these ranks, in order of decision."""
    groups: dict[tuple[object, ...], list[DecisionView]] = {}
    for one in views:
        chosen = tuple((kernel.op, kernel.kernel) for kernel in one.kernels)
        groups.setdefault((one.module, one.built, one.matched_entry, one.tried, one.method, chosen), []).append(one)
    return tuple((group[0], tuple(one.rank for one in group)) for group in groups.values())


_SKIP = ("module", "is_skipped", "matched_entry", "ignored", "tried", "expansion_source", "rule", "where")
_METHOD = ("module", "layer_class", "config_class", "method", "where")


def _decisions(session: Session) -> tuple[DecisionView, ...]:
    skips, methods = _last(session, "skip.decided", _SKIP), _last(session, "method.selected", _METHOD)
    keys = sorted({*skips, *methods}, key=lambda k: min(r[0] for r in (skips.get(k), methods.get(k)) if r is not None))
    plain = {row[9] for key, row in methods.items() if key in skips and skips[key][7]}
    context = _Context(session, plain)
    return tuple(_view(key, skips.get(key), methods.get(key), context) for key in keys)


def _last(session: Session, kind: str, fields: tuple[str, ...]) -> dict[tuple[str, int], Row]:
    return {(row[6] or "", row[5]): row for row in session.rows(kind, fields)}


class _Context:
    """What every view of a session needs: names on disk by module, dtypes as built, what the checkpoint declares."""

    def __init__(self, session: Session, plain_methods: set[str]) -> None:
        self._listed = header(session)
        self._used = _used_by_module(session)
        self._unpacked = {
            parameter.rpartition(".")[0]
            for (_, parameter), calls in ledger(session).calls.items()
            if any(call.loader.rpartition(".")[0].endswith("Dequantize") for call in calls)
        }
        self.names = Names(self._listed, self._used)
        self.plain_methods = plain_methods
        self.dtypes: Mapping[tuple[str, int], set[str]] = _built_dtypes(session)
        opened = [row[6] for row in session.rows("checkpoint.opened", ("quant_method",))]
        self.declares_quantization = any(opened)
        self.stored = self.names.stored_dtype()
        self.kernels = chosen_kernels(session)

    def has_used_scales(self, module: str, tensors: tuple[HeaderTensor, ...]) -> bool:
        """True when what is stored beside a module's weights went into its parameters."""
        beside = {f"{t.name.rpartition('.')[0]}.{companion}" for t in tensors for companion in t.companions}
        return bool(beside & self._used.get(module, set()))

    def has_unpacked(self, module: str, tensors: tuple[HeaderTensor, ...]) -> bool:
        """True for tensors of blocks, which hold their own scales, that an operation for that has unpacked."""
        listed = (self._listed[t.name] for t in tensors)
        return module in self._unpacked and any(stored_shape(one) != one.shape for one in listed)

    def is_built_quantized(self, key: tuple[str, int], is_skipped: bool | None, method: str) -> bool | None:
        """From the dtypes of the parameters where there are any, else from the decision, else from the method."""
        dtypes = self.dtypes.get(key)
        if dtypes:
            return any(not is_plain(d) for d in dtypes)
        is_plain_method = method in self.plain_methods or method.lower().startswith("unquant")
        if is_skipped is not None:
            return not is_skipped and not is_plain_method
        return False if is_plain_method else None

    def built(self, key: tuple[str, int], is_quantized: bool | None, method: str) -> str:
        """The word for what was built; bytes and words that hold several numbers are called by their method."""
        if is_quantized is None:
            return ""
        if not is_quantized:
            return AS_IS
        dtypes = sorted(spelled(d) for d in self.dtypes.get(key, ()) if not is_plain(d))
        named = _METHOD_CLASS.sub("", method).lower()
        if named and dtypes and dtypes[0] in PACKED:
            return named
        return dtypes[0] if dtypes else self.stored or "quantized"


def built_names(session: Session) -> Mapping[str, str]:
    """The name under which a module was built and decided on, by the model's name for it, where they differ."""
    rows = session.rows("parameter.registered", ("parameter", "built_as"))
    return {(row[6] or "").rpartition(".")[0]: row[7] for row in rows if row[7]}


def _used_by_module(session: Session) -> Mapping[str, set[str]]:
    out: dict[str, set[str]] = defaultdict(set)
    names = built_names(session)
    for (_, parameter), calls in ledger(session).calls.items():
        module = parameter.rpartition(".")[0]
        out[names.get(module, module)].update(n for call in calls for n in names_in(call.checkpoint_name))
    return out


def _built_dtypes(session: Session) -> Mapping[tuple[str, int], set[str]]:
    out: dict[tuple[str, int], set[str]] = defaultdict(set)
    names = built_names(session)
    for view in parameters(session):
        leaf = view.name.rpartition(".")[2]
        is_weight = "weight" in leaf or leaf.endswith("_proj")  # experts that are one parameter have no `.weight`
        if is_weight and not any(word in leaf for word in ("scale", "zero", "offset", "shape", "bias")):
            out[names.get(view.module, view.module), view.rank].add(view.dtype)
    return out


def _view(key: tuple[str, int], skip: Row | None, method: Row | None, context: _Context) -> DecisionView:
    module, rank = key
    is_skipped = bool(skip[7]) if skip is not None else None
    tried: tuple[str, ...] = (skip[10] or ()) if skip is not None else ()
    layer_class, config_class, name, where = method[7:11] if method is not None else ("", "", "", "")
    tensors = context.names.of_module(module, tried)
    is_built = context.is_built_quantized(key, is_skipped, name or "")
    is_stored = any(t.is_quantized for t in tensors) if tensors else None
    is_dequantized = is_built is False and (
        context.has_used_scales(module, tensors) or context.has_unpacked(module, tensors)
    )
    wrong = _is_contradiction(is_built, tensors, context) and not is_dequantized
    return DecisionView(
        module, rank,
        skip[0] if skip is not None else -1, method[0] if method is not None else -1,
        layer_class or "", config_class or "", name or "",
        is_skipped,
        skip[8] if skip is not None and skip[8] is not None else -1,
        (skip[9] or ()) if skip is not None else (), tried,
        (skip[11] or "") if skip is not None else "", (skip[12] or "") if skip is not None else "",
        ((skip[13] if skip is not None else where) or ""),
        tensors, context.built(key, is_built, name or ""), is_built, is_stored, wrong,
        where or "", context.kernels.get(key, ()), is_dequantized,
    )  # fmt: skip


def _is_contradiction(is_built: bool | None, tensors: tuple[HeaderTensor, ...], context: _Context) -> bool:
    if is_built is None or not tensors or not context.declares_quantization:
        return False
    if is_built:
        return not any(t.is_quantized for t in tensors)
    return any(t.is_quantized for t in tensors)
