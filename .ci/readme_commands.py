"""Print the commands of the README's first fenced block, one a line; exit 1 when they are not the two expected."""

import sys
from pathlib import Path

EXPECTED = 2


def commands(text: str) -> list[str]:
    """The non-empty lines of the first fenced block."""
    _, _, rest = text.partition("\n```sh\n")
    block, _, _ = rest.partition("\n```")
    return [line.strip() for line in block.splitlines() if line.strip()]


if __name__ == "__main__":
    found = commands(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if len(found) != EXPECTED:
        sys.exit(f"{sys.argv[1]}: expected {EXPECTED} commands in the first fenced block, found {len(found)}: {found}")
    print("\n".join(found))
