"""Every key as data: bindings, key line, help page and palette are made from this one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from workbench.tui.marks import line

_SHOWN = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "asterisk": "*",
    "backslash": "\\",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "left_parenthesis": "(",
    "right_parenthesis": ")",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "exclamation_mark": "!",
    "dollar_sign": "$",
    "full_stop": ".",
    "comma": ",",
    "apostrophe": "'",
    "quotation_mark": '"',
    "enter": "Enter",
    "escape": "Esc",
    "tab": "Tab",
    "space": "Space",
    "down": "↓",
    "up": "↑",
    "left": "←",
    "right": "→",
    "home": "Home",
    "end": "End",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "delete": "Del",
}


@dataclass(frozen=True)
class Key:
    """One action: its id, the keys that start it, a word for the key line and a sentence for the help page."""

    id: str
    keys: str
    word: str
    help: str
    group: str = "everywhere"
    scope: str = "screen"

    @property
    def shown(self) -> str:
        """The keys as they are printed: `^d`, `[`, `Enter`."""
        return " ".join(_shown(one) for one in self.keys.split(","))


def _shown(key: str) -> str:
    if key.startswith("ctrl+"):
        return f"^{key[5:]}"
    return _SHOWN.get(key, key)


def _questions() -> list[Key]:
    names = (
        ("t", "timeline", "what happened"),
        ("p", "parameters", "where did it go"),
        ("d", "decisions", "why this method"),
        ("K", "Kernels", "what ran"),
        ("e", "precision", "is it right"),
        ("m", "memory·time", "what did it cost"),
        ("f", "findings", "what is wrong"),
        ("l", "log", "what the host printed"),
    )
    return [Key(f"look.{name.replace('·', '_')}", key, name, text, "questions") for key, name, text in names]


KEYS: tuple[Key, ...] = (
    *_questions(),
    Key("list.down", "j,down", "down", "next row", "moving", "list"),
    Key("list.up", "k,up", "up", "row before", "moving", "list"),
    Key("list.page_down", "ctrl+d,pagedown", "page down", "one page on", "moving", "list"),
    Key("list.page_up", "ctrl+u,pageup", "page up", "one page back", "moving", "list"),
    Key("list.first", "g,home", "first", "first row", "moving", "list"),
    Key("list.last", "G,end", "last", "last row; a live list follows from there", "moving", "list"),
    Key("unfold", "right", "unfold", "open the folded row", "moving"),
    Key("fold", "left", "fold", "close the row, or go to the row that holds it", "moving"),
    Key("focus.other", "tab", "other pane", "list or detail; in the detail j and k scroll", "moving"),
    Key("follow", "enter", "follow", "where the selected row leads", "places"),
    Key("back", "escape,q", "back", "the place before; on the first one leave", "places"),
    Key("finding.next", "right_square_bracket", "next finding", "next finding, on its screen", "places"),
    Key("finding.previous", "left_square_bracket", "finding before", "finding before, on its screen", "places"),
    *(Key(f"evidence.{n}", str(n), f"evidence {n}", f"go to evidence {n}", "places") for n in range(1, 10)),
    Key("bookmark", "apostrophe", "bookmark", "keep this place; pressed at the place again, drop it", "places"),
    Key("bookmark.go", "quotation_mark", "to bookmark", "go to the next bookmark", "places"),
    Key("step.next", "n", "next", "next loader call", "stepping"),
    Key("step.previous", "N", "previous", "loader call before", "stepping"),
    Key("step.into", "s", "into", "next event of any kind", "stepping"),
    Key("step.into_back", "S", "event before", "event before", "stepping"),
    Key("step.out", "r", "out", "end of the enclosing span", "stepping"),
    Key("step.out_back", "R", "back to call", "start of the enclosing span", "stepping"),
    Key("step.continue", "c", "continue", "next breakpoint hit", "stepping"),
    Key("step.continue_back", "C", "hit before", "breakpoint hit before", "stepping"),
    Key("step.parameter", "right_parenthesis", "parameter", "first call of the next parameter", "stepping"),
    Key(
        "step.parameter_back", "left_parenthesis", "parameter before", "first call of the parameter before", "stepping"
    ),
    Key("step.layer", "right_curly_bracket", "layer", "first call of the next layer", "stepping"),
    Key("step.layer_back", "left_curly_bracket", "layer before", "first call of the layer before", "stepping"),
    Key("step.start", "0", "start", "now at the first event", "stepping"),
    Key("step.end", "dollar_sign", "end", "now at the last event", "stepping"),
    Key("step.failure", "X", "failure", "now at the next exception", "stepping"),
    Key("play", "space", "play", "play the recording from now, or stop", "stepping"),
    Key("play.faster", "full_stop", "faster", "play more events a second", "stepping"),
    Key("play.slower", "comma", "slower", "play fewer events a second", "stepping"),
    Key("step.breakpoint", "b", "break", "breakpoint here, on or off", "stepping"),
    Key("step.breakpoints", "B", "breakpoints", "list and edit the breakpoints", "stepping"),
    Key("step.frame_up", "u", "frame up", "the span around this event", "stepping"),
    Key("step.pause", "P", "pause", "pause a running host at its next event", "stepping"),
    Key("release", "exclamation_mark", "release", "let a held host go, with no more pauses", "stepping"),
    Key("inspect", "i", "inspect", "everything recorded; on a paused host also its tensor"),
    Key("rank.next", "greater_than_sign", "next rank", "rank 0, 1, …, then all"),
    Key("rank.previous", "less_than_sign", "rank before", "rank before, or all"),
    Key("search", "slash", "search", "search in this list"),
    Key("search.next", "asterisk", "next hit", "next hit of the search"),
    Key("filter", "backslash", "filter", "show only rows that match a line of the filter language"),
    Key("trouble", "x", "only trouble", "show only what is doubtful or wrong"),
    Key("enlarge", "z", "fold", "fold or unfold; on the detail enlarge it"),
    Key("order", "o", "order", "another order of this list"),
    Key("variant", "v", "other view", "another view of the same list"),
    Key("wrote", "w", "who wrote", "the calls that wrote this parameter"),
    Key("address", "a", "address", "an element NAME[i,j] down to its bytes, or FILE:START-END back to elements"),
    Key("copy", "y", "copy", "copy the selected row and its detail"),
    Key("copy.command", "Y", "repro", "copy the command that was recorded"),
    Key("replay", "ctrl+r", "replay", "do this load again and compare"),
    Key("theme", "ctrl+t", "light or dark", "switch between the dark and the light colours"),
    Key("commands", "colon", "command", "every action with its key"),
    Key("help", "question_mark", "help", "the keys of this screen"),
    Key("redraw", "ctrl+l", "redraw", "paint everything anew"),
)

BY_ID: Mapping[str, Key] = {one.id: one for one in KEYS}

_LIST_ACTIONS = {
    "list.down": "move(1)",
    "list.up": "move(-1)",
    "list.page_down": "page(1)",
    "list.page_up": "page(-1)",
    "list.first": f"move({-(1 << 40)})",
    "list.last": f"move({1 << 40})",
}


def _binding(key: Key, action: str) -> dict[str, Any]:
    return {"key": key.keys, "action": action, "description": key.word, "show": False, "id": key.id}


LIST_BINDINGS = tuple(_binding(BY_ID[id_], action) for id_, action in _LIST_ACTIONS.items())
SCREEN_BINDINGS = tuple(_binding(one, f"do('{one.id}')") for one in KEYS if one.scope == "screen")


@dataclass(frozen=True)
class Hint:
    """One entry of a key line: the ids it stands for and, where the view has a better one, its own word."""

    ids: tuple[str, ...]
    word: str = ""


def hint(ids: str, word: str = "") -> Hint:
    """`hint("list.down list.up", "move")`."""
    return Hint(tuple(ids.split()), word)


RESTING = (
    hint("list.down list.up", "move"),
    hint("follow"),
    hint("search"),
    hint("finding.previous finding.next", "finding"),
    hint("rank.previous rank.next", "rank"),
    hint("commands"),
    hint("play"),
    hint("help"),
)


@dataclass(frozen=True)
class Keymap:
    """The table with the user's own keys, by id, in place of the built-in ones."""

    own: Mapping[str, str] = field(default_factory=dict)

    def key(self, id_: str) -> Key:
        """The entry with its keys as they are bound. KeyError for an unknown id."""
        key = BY_ID[id_]
        return Key(key.id, self.own.get(id_, key.keys), key.word, key.help, key.group, key.scope)

    def first(self, id_: str) -> str:
        """The key to print for an action."""
        return self.key(id_).shown.split(" ", 1)[0]

    def line(self, hints: Sequence[Hint], separator: str = "  ", role: str = "t") -> Text:
        """The key line: keys in the accent, words beside them."""
        text = line()
        for number, one in enumerate(hints):
            text.append(separator if number else "")
            text.append(" ".join(self.first(id_) for id_ in one.ids), "k")
            text.append(f" {one.word or BY_ID[one.ids[0]].word}", role)
        return text
