"""A page of lines over the screen: source, everything recorded, help; Esc or q goes back."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen

from workbench.tui.keymap import KEYS, Keymap
from workbench.tui.paint import Lines, paint, said
from workbench.tui.views.view import Page, blank
from workbench.tui.widgets.ends import Ends
from workbench.tui.widgets.pane import Pane

GROUPS = ("questions", "moving", "places", "stepping", "everywhere")
KEY_CELLS = 14
BELOW = 4


class PageScreen(Screen[None]):
    """One pane with a title and its own key line."""

    BINDINGS = [
        Binding("escape,q,enter", "close", id="page.close"),
        Binding("j,down", "scroll(1)", id="page.down"),
        Binding("k,up", "scroll(-1)", id="page.up"),
        Binding("ctrl+d,pagedown,space", "scroll(20)", id="page.page_down"),
        Binding("ctrl+u,pageup", "scroll(-20)", id="page.page_up"),
        Binding("g,home", f"scroll({-(1 << 30)})", id="page.first"),
        Binding("G,end", f"scroll({1 << 30})", id="page.last"),
        Binding("y", "copy", id="page.copy"),
    ]

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def compose(self) -> ComposeResult:
        """Title, pane, keys."""
        yield Ends(id="page-top")
        yield Pane(id="page")
        yield Ends(id="page-keys")

    def on_mount(self) -> None:
        """Show the page at its first line."""
        self.query_one("#page-top", Ends).put(paint("{A|◆} {b|$}", self.page.title))
        keys = paint("{k|Esc} back  {k|j k} scroll  {k|^d ^u} page  {k|y} copy")
        self.query_one("#page-keys", Ends).put(keys, said(f"{len(self.page.lines)} lines", "f"))
        pane = self.query_one("#page", Pane)
        pane.put(self.page.lines)
        pane.focus()
        self.call_after_refresh(self._reveal)

    def _reveal(self) -> None:
        pane = self.query_one("#page", Pane)
        pane.scroll_rows(max(0, self.page.line - pane.size.height + BELOW))

    def action_close(self) -> None:
        """Back to the screen below."""
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        """Move the page."""
        self.query_one("#page", Pane).scroll_rows(by)

    def action_copy(self) -> None:
        """The whole page as text."""
        self.app.copy_to_clipboard("\n".join(line.plain.rstrip() for line in self.page.lines) + "\n")


def help_page(keymap: Keymap, look: str) -> Page:
    """Every key, by group, from the table they are bound by."""
    lines: Lines = [paint("{m|the keys of} {b|$}{m|, and everywhere else}", look)]
    for group in GROUPS:
        lines += [blank(), said(group, "f")]
        for one in KEYS:
            if one.group == group and not (one.id.startswith("evidence.") and one.id != "evidence.1"):
                shown = keymap.key(one.id).shown if one.id != "evidence.1" else "1 – 9"
                told = one.help if one.id != "evidence.1" else "go to evidence of the selected finding"
                lines.append(paint("{k|$}{t|$}{m|$}", shown.ljust(KEY_CELLS), one.word.ljust(18), told))
    lines += [blank(), said("breakpoints and filters", "f")]
    for example in ('parameter ~ "*in_proj*" and shard_id is tuple', "exception", "decision", "kind = loader.called"):
        lines.append(paint("  $", example))
    return Page("help", lines)
