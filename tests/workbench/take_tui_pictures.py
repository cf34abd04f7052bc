"""A tool, no test: takes PNG pictures of the terminal workbench on a session, to be looked at.

    python tests/workbench/take_tui_pictures.py SESSION OUT [--size 120x36] [--keys "f 1 enter"] [--name NAME] ...

Needs `rsvg-convert` or the package cairosvg, and the font JetBrains Mono or DejaVu Sans Mono.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

from workbench.tui.app import Workbench

CELL = 12.2  # the grid on which rich lays out its SVG
ADVANCES = {"JetBrains Mono": 0.6, "DejaVu Sans Mono": 0.602}


def fitted(svg: str, font: str) -> str:
    """The SVG with a local font sized to the grid, blanks kept, and every symbol from another font on its own cell."""
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", font)
    svg = svg.replace("font-size: 20px", f"font-size: {CELL / ADVANCES[font]:.3f}px").replace(
        "textLength", "data-length"
    )
    svg = re.sub(r'(<text class="[^"]*" x=")([\d.]+)("[^>]*>)([^<]*)</text>', _on_cells, svg)
    svg = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', _without_frame, svg)
    return svg.replace('stroke="rgba(255,255,255,0.35)"', 'stroke="none"')


def _on_cells(match: re.Match[str]) -> str:
    """Viewers drop leading blanks, and symbols of fallback fonts have another advance: place runs by their cell."""
    head, x, tail = match[1], float(match[2]), match[3]
    entities = re.findall(r"&#?\w+;|.", match[4])
    runs, at = [], 0
    while at < len(entities):
        if entities[at] in {"&#160;", " "}:
            at += 1
            continue
        end = at + 1
        if _is_plain(entities[at]):
            while end < len(entities) and _is_plain(entities[end]):
                end += 1
        runs.append(f"{head}{x + CELL * at:g}{tail}{''.join(entities[at:end])}</text>")
        at = end
    return "".join(runs)


def _without_frame(match: re.Match[str]) -> str:
    return f'viewBox="8 40 {float(match[1]) - 16:g} {float(match[2]) - 48:g}"'


def _is_plain(entity: str) -> bool:
    return entity not in {"&#160;", " "} and (len(entity) > 1 or ord(entity) < 0x2000)


def font_here() -> str:
    """The first of the known fonts that is installed."""
    listed = subprocess.run(["fc-list"], capture_output=True, text=True, check=False).stdout
    return next((font for font in ADVANCES if font in listed), "DejaVu Sans Mono")


async def picture(args: argparse.Namespace, keys: str) -> str:
    """The SVG after some keys."""
    width, height = (int(one) for one in args.size.split("x"))
    session = None if args.session == "-" else Path(args.session)
    app = Workbench(
        session,
        folder=Path(args.folder) if args.folder else None,
        colours=args.colours,
        is_ascii=args.ascii,
        scenarios=(("fp8-skip", "a fused name that matches nothing"),),
    )
    async with app.run_test(size=(width, height)) as pilot:
        for _ in range(100):
            await pilot.pause(0.05)
            if getattr(app.screen, "snapshot", True) is not None:
                break
        await pilot.pause(0.2)
        for key in keys.split():
            await pilot.press(key)
            await pilot.pause(0.15)
        return app.export_screenshot(title=" ")


def rendered(svg: Path, columns: int) -> None:
    """The PNG beside an SVG."""
    png = svg.with_suffix(".png")
    if shutil.which("rsvg-convert"):
        subprocess.run(["rsvg-convert", "-w", str(min(2200, columns * 11)), str(svg), "-o", str(png)], check=True)
    else:
        import cairosvg

        cairosvg.svg2png(url=str(svg), write_to=str(png), output_width=min(2200, columns * 11))
    print(png)


def main() -> None:
    """Take one picture for each --keys, named by --name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("session", help="a session folder, or - for the start screen")
    parser.add_argument("out")
    parser.add_argument("--folder", help="the sessions the start screen lists")
    parser.add_argument("--size", default="120x36")
    parser.add_argument("--colours", default="dark")
    parser.add_argument("--ascii", action="store_true")
    parser.add_argument("--keys", action="append", default=[])
    parser.add_argument("--name", action="append", default=[])
    args = parser.parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for number, keys in enumerate(args.keys or [""]):
        name = args.name[number] if number < len(args.name) else f"shot-{number + 1}"
        target = Path(args.out) / f"{name}.svg"
        target.write_text(fitted(asyncio.run(picture(args, keys)), font_here()), encoding="utf-8")
        rendered(target, int(args.size.split("x")[0]))


if __name__ == "__main__":
    sys.exit(main())
