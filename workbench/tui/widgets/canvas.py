"""A widget made of painted lines: roles become styles here, and nowhere else."""

from __future__ import annotations

from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from workbench.tui.paint import Lines, cut
from workbench.tui.palette import Palette, palette

_FALLBACK = palette("dark")


def palette_of(widget: Widget) -> Palette:
    """The palette of the app a widget lives in."""
    chosen = getattr(widget.app, "palette", None)
    return chosen if isinstance(chosen, Palette) else _FALLBACK


def strip_of(widget: Widget, text: Text, width: int, ground: str = "") -> Strip:
    """One painted line as wide as `width` cells, on the widget's own ground or on the role `ground`."""
    text = cut(text, width)
    if ground:
        text = Text.assemble(text, " " * max(0, width - text.cell_len), no_wrap=True, end="")
    painted = palette_of(widget).resolved(text, ground)
    strip = Strip(painted.render(widget.app.console)).adjust_cell_length(width)
    return strip.apply_style(widget.rich_style)


class Canvas(Widget):
    """Lines from `paint_lines(width)`, cut to the widget's size; nothing wraps and nothing is markup."""

    def paint_lines(self, width: int) -> Lines:
        """What to show in `width` cells; a subclass answers."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        """Line `y` of the widget."""
        width = self.content_size.width
        if y == 0 or not hasattr(self, "_painted"):
            self._painted: Lines = self.paint_lines(width)
        line = self._painted[y] if y < len(self._painted) else Text()
        return strip_of(self, line, width)
