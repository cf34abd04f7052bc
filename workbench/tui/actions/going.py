"""Keys that lead somewhere: follow, back, findings, evidence, bookmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.coverage.asking import is_bytes
from workbench.coverage.bytesview import bytes_report, bytes_text
from workbench.coverage.elementview import element_report, element_text
from workbench.errors import UserError
from workbench.tui.lens import Place
from workbench.tui.paint import said
from workbench.tui.views.findings import Findings
from workbench.tui.views.parameters import Parameters
from workbench.tui.views.view import Leads, Page

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen


def lead(screen: SessionScreen, to: Leads, otherwise: str) -> None:
    """Go where something leads, or say that it leads nowhere."""
    if isinstance(to, Page):
        screen.show_page(to)
    elif to is not None:
        screen.go(to)
    else:
        screen.notice(otherwise)


def follow(screen: SessionScreen) -> None:
    """Where the selected row leads; a group opens or closes."""
    chosen = screen.selected()
    if chosen is None:
        screen.notice("nothing is selected")
        return
    view, row = chosen
    to = view.follow(row)
    fold = view.fold(row)
    if to is None and fold is not None and view.identity(row) == fold:
        screen.desk.lens = screen.desk.lens.toggled(fold)
        screen.draw()
    else:
        lead(screen, to, "this row leads nowhere; i shows everything recorded about it")


def back(screen: SessionScreen) -> None:
    """What is being typed, then the filter, then the place before, then the way out."""
    lens = screen.desk.lens
    if screen.prompt.is_asking:
        screen.prompt.close()
    elif screen.has_class("-large"):
        screen.remove_class("-large")
        screen.call_after_refresh(screen.draw)
    elif lens.filter or lens.is_only_trouble:
        screen.set_lens(filter="", is_only_trouble=False)
    elif not screen.back():
        screen.leave()


def finding(by: int) -> Callable[[SessionScreen], None]:
    """The next or previous finding, on the findings screen."""

    def act(screen: SessionScreen) -> None:
        found = screen.snapshot.findings if screen.snapshot is not None else ()
        if not found:
            screen.notice("no findings in this session")
            return
        ids = [one.id for one in found]
        is_here = screen.desk.look == "findings"
        at = screen.desk.rows.get("findings")
        before_first = -1 if by > 0 else 0
        index = ((ids.index(str(at)) if at in ids else before_first) + by) % len(ids)
        if is_here:
            screen.turn_to("findings", ids[index])
        else:
            screen.go(Place("findings", row=ids[index], now=screen.desk.now))

    return act


def evidence(number: int) -> Callable[[SessionScreen], None]:
    """Evidence of the selected finding, by its number."""

    def act(screen: SessionScreen) -> None:
        chosen = screen.selected()
        if chosen is None or not isinstance(chosen[0], (Findings, Parameters)):
            screen.notice("numbers lead to the evidence of a finding: f shows the findings")
            return
        what = "finding has no evidence" if isinstance(chosen[0], Findings) else "parameter has no call at fault"
        lead(screen, chosen[0].evidence(chosen[1], number), f"this {what} {number}")  # type: ignore[arg-type]

    return act


def bookmark(screen: SessionScreen) -> None:
    """Keep this place, or drop it."""
    is_kept = screen.desk.turn_bookmark()
    screen.notice("bookmark kept" if is_kept else "bookmark dropped", "a")


def to_bookmark(screen: SessionScreen) -> None:
    """The next bookmark after this place, going round."""
    kept = screen.desk.bookmarks
    if not kept:
        screen.notice("no bookmarks yet: ' keeps a place")
        return
    at = kept.index(screen.desk.here) if screen.desk.here in kept else -1
    screen.go(kept[(at + 1) % len(kept)])


def who_wrote(screen: SessionScreen) -> None:
    """The first call that wrote the selected parameter, in the timeline."""
    chosen = screen.selected()
    if chosen is None or not isinstance(chosen[0], Parameters):
        screen.notice("w works on a parameter: p shows them")
        return
    lead(screen, chosen[0].call(chosen[1]), "no loader call wrote this row")  # type: ignore[arg-type]


def address(screen: SessionScreen) -> None:
    """Ask for an element or for bytes, and show where the one came from or the others went."""
    chosen = screen.selected()
    name = chosen[0].parameter(chosen[1]) if chosen is not None and isinstance(chosen[0], Parameters) else ""  # type: ignore[arg-type]
    given = "" if name.endswith("*") or not name else f"{name}[{','.join('0' * len(_shape(screen, name)))}]"

    def then(text: str) -> None:
        if text.strip():
            _show_address(screen, text.strip())

    screen.prompt.ask("element NAME[i,j] or bytes FILE:START-END", given, then)


def _shape(screen: SessionScreen, name: str) -> tuple[int, ...]:
    views = screen.snapshot.parameters if screen.snapshot is not None else ()
    return next((view.shape for view in views if view.name == name), ())


def _show_address(screen: SessionScreen, text: str) -> None:
    session = screen.session
    if session is None:
        screen.notice("the session is not open yet")
        return
    try:
        if is_bytes(text):
            lines = list(bytes_text(bytes_report(session, text)))
        else:
            lines = list(element_text(element_report(session, text, screen.desk.rank)))
    except UserError as error:
        screen.notice(f"{error.what}: {error.try_}")
        return
    first, *rest = lines
    screen.show_page(Page("address", [said(first, "b"), *(said(line) for line in rest)]))
