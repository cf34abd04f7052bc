"""The only file that names a colour: roles in three variants, the style sheet's variables, and the ASCII glyphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rich.style import Style
from rich.text import Span, Text
from textual.theme import Theme

HEAT_LEVELS = 7
HEAT_GLYPHS = " ·░▒▓██"
"""What is left of the heat ramp where there is no colour."""

ASCII = str.maketrans(
    {
        **dict(zip("■÷↓→◇+↻»▤▷✓", "#/v>?+@>=>+", strict=True)),
        **dict(zip("✗▲•◉○‖▾▸▌▎┃", "X!.*o=-+>>|", strict=True)),
        **dict(zip("━═╌┄─╸│└◆●≠·…–×µ←█▀", "=#.?-=|`*o!.~-xu<##", strict=True)),
        **dict(zip("▁▂▃▄▅▆▇▏▍░▒▓", "_.:-=+*||.:%", strict=True)),
        **{chr(code): "*" for code in range(0x2801, 0x2900)},
        "\u2800": " ",
    }
)
"""One cell for one cell, so that a column never moves."""


@dataclass(frozen=True)
class Palette:
    """The styles of one variant. `styles` maps a role (a short name, see `_styles`) to a rich style."""

    name: str
    styles: Mapping[str, Style]
    variables: Mapping[str, str]
    is_dark: bool
    is_ascii: bool = False

    def style(self, role: str) -> Style:
        """The style of a role; `a/b` is the colour of role `a` on that of `b`. KeyError if unknown."""
        if "/" not in role:
            return self.styles[role]
        front, _, back = role.partition("/")
        return self.styles[front] + Style(bgcolor=self.styles[back].color)

    def resolved(self, text: Text, ground: str = "") -> Text:
        """A copy with every role turned into its style, on the role `ground` if one is given."""
        plain = text.plain.translate(ASCII) if self.is_ascii else text.plain
        whole = self.styles["t"] + (self.styles[ground] if ground else Style())
        base = self.style(text.style) if isinstance(text.style, str) and text.style else Style()
        # A base style alone is not rendered: rich applies it only where there are spans.
        spans = [Span(0, len(plain), whole + base)]
        spans += [
            Span(s.start, s.end, self.style(s.style) if isinstance(s.style, str) else s.style) for s in text.spans
        ]
        if ground:
            spans.append(Span(0, len(plain), self.styles[ground]))
        return Text(plain, no_wrap=True, end="", spans=spans)

    def theme(self) -> Theme:
        """The same colours for the style sheet."""
        v = self.variables
        return Theme(
            name=self.name,
            primary=v["ls-accent"],
            accent=v["ls-accent"],
            error=v["ls-error"],
            warning=v["ls-warning"],
            foreground=v["ls-text"],
            background=v["ls-ground"],
            surface=v["ls-ground"],
            panel=v["ls-raised"],
            dark=self.is_dark,
            variables=dict(v),
        )


@dataclass(frozen=True)
class _Colours:
    ground: str
    raised: str
    selected: str
    step: str
    line: str
    guide: str
    later: str
    text: str
    second: str
    third: str
    accent: str
    error: str
    warning: str
    heat: tuple[str, ...]


_DARK = _Colours(
    *("#0e1116", "#171d25", "#222b36", "#1b2a3a", "#28313c", "#232b35", "#39434f"),
    *("#d4dae2", "#8b95a3", "#4d5866", "#62b4f5", "#f2763f", "#e9bd4a"),
    ("#1a212a", "#22384f", "#3c6184", "#8d8f86", "#c9a04e", "#e9bd4a", "#f2763f"),
)
_LIGHT = _Colours(
    *("#fbfbf9", "#f0f1ef", "#dfe6ee", "#d8e6f3", "#d5d9dd", "#e2e5e7", "#c3c9cf"),
    *("#1b2128", "#59636f", "#a3abb5", "#0b6bb8", "#b8430b", "#8a6200"),
    ("#eceeec", "#cfdbe6", "#9dbbd6", "#b9b6a6", "#cfa95a", "#b98512", "#b8430b"),
)


def _styles(c: _Colours) -> dict[str, Style]:
    return {
        "t": Style(color=c.text),
        "m": Style(color=c.second),
        "f": Style(color=c.third),
        "g": Style(color=c.guide),
        "d": Style(color=c.later),
        "a": Style(color=c.accent),
        "e": Style(color=c.error),
        "w": Style(color=c.warning),
        "b": Style(color=c.text, bold=True),
        "A": Style(color=c.accent, bold=True),
        "E": Style(color=c.error, bold=True),
        "W": Style(color=c.warning, bold=True),
        "k": Style(color=c.accent, bold=True),
        "u": Style(color=c.accent, underline=True),
        "T": Style(color=c.text, bgcolor=c.raised, bold=True),
        "P": Style(color=c.ground, bgcolor=c.accent),
        "X": Style(color=c.ground, bgcolor=c.error),
        "selected": Style(bgcolor=c.selected),
        **{f"h{level}": Style(color=colour) for level, colour in enumerate(c.heat)},
    }


def _grey_styles() -> dict[str, Style]:
    plain, dim, bold = Style(), Style(dim=True), Style(bold=True)
    return {
        **dict.fromkeys("tmw", plain),
        **dict.fromkeys("fgd", dim),
        **dict.fromkeys("aebAEWk", bold),
        "u": Style(underline=True, bold=True),
        "T": Style(bold=True, underline=True),
        "P": Style(reverse=True),
        "X": Style(reverse=True, bold=True),
        "selected": Style(reverse=True),
        **{f"h{level}": plain for level in range(HEAT_LEVELS)},
    }


def _variables(c: _Colours) -> dict[str, str]:
    return {
        "ls-ground": c.ground,
        "ls-raised": c.raised,
        "ls-selected": c.selected,
        "ls-step": c.step,
        "ls-line": c.line,
        "ls-text": c.text,
        "ls-second": c.second,
        "ls-accent": c.accent,
        "ls-error": c.error,
        "ls-warning": c.warning,
    }


def palette(name: str = "dark", *, is_ascii: bool = False) -> Palette:
    """The palette called "dark", "light" or "grey" (no colour). KeyError for another name."""
    colours = {"dark": _DARK, "light": _LIGHT, "grey": _DARK}[name]
    styles = _grey_styles() if name == "grey" else _styles(colours)
    return Palette(
        f"loadscope-{name}", MappingProxyType(styles), MappingProxyType(_variables(colours)), name != "light", is_ascii
    )
