"""Keys that change how a list is looked at: question, rank, filter, search, order, folds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.tui.widgets.longlist import LongList
from workbench.tui.widgets.pane import Pane

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen


def look(name: str) -> Callable[[SessionScreen], None]:
    """Open a question; pressed again, go back to `now`."""

    def act(screen: SessionScreen) -> None:
        if screen.desk.look != name:
            screen.desk.stack.append(screen.desk.here)
            screen.turn_to(name)
        elif screen.snapshot is not None and screen.view is not None and screen.view.rows:
            screen.select(screen.view.row_at(screen.snapshot.now) if screen.view.is_in_time else screen.view.start())

    return act


def next_rank(by: int) -> Callable[[SessionScreen], None]:
    """All ranks, then one after the other, going round."""

    def act(screen: SessionScreen) -> None:
        if screen.snapshot is None:
            return
        total = screen.snapshot.loaded.tp or 1
        at = -1 if screen.desk.rank is None else screen.desk.rank
        rank = (at + 1 + by) % (total + 1) - 1
        screen.desk.set_rank(None if rank < 0 else rank)
        screen.draw()
        screen.notice("all ranks" if rank < 0 else f"rank {rank} of {total}", "a")

    return act


def fold_left(screen: SessionScreen) -> None:
    """Close the group, or go to the group around the row, or to the cell on the left."""
    chosen = screen.selected()
    if chosen is None:
        return
    view, row = chosen
    fold = view.fold(row)
    column = view.beside(row, -1)
    if column is not None:
        screen.set_lens(column=column)
    elif fold is None:
        screen.notice("nothing to fold here")
    elif view.identity(row) == fold:
        if not view.is_folded(row):
            screen.desk.lens = screen.desk.lens.toggled(fold)
            screen.draw()
    else:
        found = view.row_of(fold)
        if found is not None:
            screen.select(found)


def unfold_right(screen: SessionScreen) -> None:
    """Open a closed group, or go to the cell on the right."""
    chosen = screen.selected()
    column = chosen[0].beside(chosen[1], 1) if chosen is not None else None
    if column is not None:
        screen.set_lens(column=column)
    elif chosen is not None and chosen[0].is_folded(chosen[1]):
        screen.desk.lens = screen.desk.lens.toggled(chosen[0].fold(chosen[1]))
        screen.draw()


def enlarge(screen: SessionScreen) -> None:
    """Fold or unfold; with the focus on the detail, give it the whole width and back."""
    if screen.focused is not None and screen.focused.id == "detail":
        screen.toggle_class("-large")
        screen.call_after_refresh(screen.draw_detail)
        return
    chosen = screen.selected()
    fold = chosen[0].fold(chosen[1]) if chosen is not None else None
    if fold is None:
        screen.notice("nothing to fold here; Tab and z enlarge the detail")
        return
    screen.desk.rows[screen.desk.look] = fold
    screen.desk.lens = screen.desk.lens.toggled(fold)
    screen.draw()


def focus_other(screen: SessionScreen) -> None:
    """List or detail."""
    is_list = screen.focused is None or screen.focused.id == "list"
    if is_list and not screen.has_class("-empty"):
        screen.query_one("#detail", Pane).focus()
        screen.notice("detail: j k scroll, z enlarges, Tab goes back to the list", "a")
    else:
        screen.query_one("#list", LongList).focus()


def search(screen: SessionScreen) -> None:
    """Ask what to search for and go to the next hit."""

    def then(text: str) -> None:
        screen.set_lens(search=text)
        if text:
            search_next(screen)

    screen.prompt.ask("/", screen.desk.lens.search, then)


def search_next(screen: SessionScreen) -> None:
    """The next hit, going round; a search without a hit says so."""
    needle, view = screen.desk.lens.search, screen.view
    if not needle:
        screen.notice("nothing to search for yet: press /")
    elif view is not None and view.rows:
        at = screen.query_one("#list", LongList).cursor
        found = view.found(needle, at)
        if found is None:
            screen.notice(f"0 of {len(view.rows):,} rows hold {needle!r}")
        else:
            screen.select(found)


def filter_rows(screen: SessionScreen) -> None:
    """Ask for a line of the filter language; an empty line shows everything."""
    screen.prompt.ask("filter", screen.desk.lens.filter, lambda text: screen.set_lens(filter=text.strip()))


def only_trouble(screen: SessionScreen) -> None:
    """Only what is doubtful or wrong, or everything again."""
    screen.set_lens(is_only_trouble=not screen.desk.lens.is_only_trouble)


def order(screen: SessionScreen) -> None:
    """The next order of this list."""
    view = screen.view
    if view is None or not view.orders:
        screen.notice(f"{screen.desk.look} has one order")
        return
    number = (screen.desk.lens.order + 1) % len(view.orders)
    screen.set_lens(order=number)
    screen.notice(f"order: {view.orders[number]}", "a")


def variant(screen: SessionScreen) -> None:
    """The next view of the same list."""
    view = screen.view
    if view is None or not view.variants:
        screen.notice(f"{screen.desk.look} has one view")
        return
    number = (screen.desk.lens.variant + 1) % len(view.variants)
    screen.desk.rows.pop(screen.desk.look, None)
    screen.set_lens(variant=number, column=None)
    screen.notice(f"view: {view.variants[number]}", "a")
