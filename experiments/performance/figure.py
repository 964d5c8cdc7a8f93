"""The README's figure of speed, drawn from what the other scripts measured.

python experiments/performance/figure.py results/performance
"""

import json
import statistics
import sys
from pathlib import Path

from qaq.page.drawing import ACCENT, INK, canvas


def median(seconds: list[float]) -> float:
    """Of the rounds of one side."""
    return statistics.median(seconds)


def ratios(folder: Path) -> dict[str, float]:
    """How many times as fast qaq is, by what and against whom."""

    def read(name: str) -> dict:  # type: ignore[type-arg]
        found: dict = json.loads((folder / f"{name}.json").read_text())  # type: ignore[type-arg]
        return found

    found = {}
    for name, where in (("scoring", "Intel, AMX"), ("scoring_epyc", "AMD EPYC")):
        seconds = {side: median(all_) for side, all_ in read(name)["seconds"].items()}
        ours = seconds["qaq bfloat16"]
        found[f"scoring, {where}: Cherry_LLM's loop, bfloat16"] = seconds["loop bfloat16"] / ours
        found[f"scoring, {where}: the same in float32, its default"] = (
            seconds["loop float32"] / ours
        )
        found[f"scoring, {where}: padded batches of 16"] = seconds["padded bfloat16"] / ours
    training = read("training")["ratios"]
    found["fine-tuning: Trainer and PEFT, bfloat16"] = training["same dtype, bfloat16"]
    answering = read("generation")["measures"]["benchmark"]["speedup"]
    found["answering: EvalPlus's generator, bfloat16"] = answering[
        "qaq bfloat16 over evalplus bfloat16"
    ]
    for suite, sides in read("judging").items():
        theirs, ours = ([r["seconds"] for r in sides[side]] for side in ("evalplus", "qaq"))
        found[f"judging {suite}+: EvalPlus, which has no sandbox"] = median(theirs) / median(ours)
    return found


def main() -> None:
    """Draw `speed.png` into the folder."""
    folder = Path(sys.argv[1])
    found = ratios(folder)
    figure, (axes,) = canvas(7.6, 0.3 * len(found) + 0.7, 1)
    places = range(len(found))[::-1]
    axes.barh(places, list(found.values()), color=ACCENT, height=0.6)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(list(places), list(found))
    for place, value in zip(places, found.values(), strict=True):
        axes.text(value + 0.1, place, f"{value:.1f}", va="center", fontsize=8)
    axes.set_xlabel("times as fast (1 = equal); 2 CPU cores, SmolLM2-135M")
    figure.savefig(folder / "speed.png", dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
