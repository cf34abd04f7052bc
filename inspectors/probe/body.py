"""What every event body is, and the columns its fields are stored in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    SomeBody = TypeVar("SomeBody", bound="Body")

SCHEMA_VERSION = 1
NO_RANK = -1


@dataclass(frozen=True)
class Body:
    """The facts of one event. `kind` is `noun.participle`, `stage` an engine-neutral step or empty."""

    kind: ClassVar[str]
    stage: ClassVar[str] = ""

    def but(self: SomeBody, **facts: object) -> SomeBody:  # noqa: PYI019 - Self is not in Python 3.10
        """The same facts but for these, without running the constructor again; their names are not checked."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **facts)
        return copy


@dataclass(frozen=True)
class FieldSpec:
    """One column of a kind: its name and how it is stored ("int", "real", "bool", "text" or "json")."""

    name: str
    storage: str


_STORAGES = {"int": "int", "float": "real", "bool": "bool", "str": "text"}


_specs_by_class: dict[type[Body], tuple[FieldSpec, ...]] = {}


def field_specs(body_class: type[Body]) -> tuple[FieldSpec, ...]:
    """The columns of a kind in declaration order; tuples are stored as JSON text."""
    known = _specs_by_class.get(body_class)
    if known is None:
        known = tuple(FieldSpec(f.name, _STORAGES.get(str(f.type), "json")) for f in fields(body_class))
        _specs_by_class[body_class] = known
    return known


def quick_init(kind: type[Body]) -> Callable[..., None]:
    """The constructor of a frozen dataclass whose fields all have defaults, several times faster than its own."""
    defaults = {one.name: one.default for one in fields(kind)}
    names, size = tuple(defaults), len(defaults)

    def init(self: Body, *args: object, **kwargs: object) -> None:
        facts = self.__dict__
        facts.update(defaults)
        if args:
            facts.update(zip(names, args, strict=False))
        facts.update(kwargs)
        if len(facts) != size or len(args) > size:
            raise TypeError(f"{kind.__name__} has the fields {', '.join(names)}, not {sorted({*facts} - {*names})}")

    return init
