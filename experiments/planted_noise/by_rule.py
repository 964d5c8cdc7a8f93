"""The table of docs/which_rule.md from a run of planted_noise.

python experiments/planted_noise/by_rule.py results/planted_noise/tables.md
"""

import re
import sys
from pathlib import Path

KEPT, DIFFERENCES = "What each rule keeps", "Which kinds each rule leaves out"
COLUMNS = ("clean", "swapped answer", "echo")


def table(text: str, title: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the Markdown table under a bold title."""
    part = text.split(f"**{title}.**")[1]
    lines = [line for line in part.split("\n\n")[1].splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return head, rows


def main() -> None:
    """Print a line for each rule: what it keeps, and the kinds that it keeps less or more of."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    head, rows = table(text, KEPT)
    kinds, differences = table(text, DIFFERENCES)
    wanted = [head.index(f"kept (%) {name}") for name in COLUMNS]
    named = [re.sub(r".*\(points\) ", "", kind) for kind in kinds[1:]]
    found = {row[0]: row[1:] for row in differences}
    for row in rows:
        starred = [(k, c) for k, c in zip(named, found[row[0]], strict=True) if "*" in c]
        less = ", ".join(k for k, c in starred if c.startswith("−")) or "none"
        more = ", ".join(k for k, c in starred if not c.startswith("−")) or "none"
        cells = [row[n] for n in wanted]
        print("|", " | ".join([f"`{row[0]}`", *cells, less, more]), "|")


if __name__ == "__main__":
    main()
