"""The notebook in experiments/ runs as it is, in a process of its own, and draws its figure."""

import json
import os
import subprocess
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_notebook_draws_the_figure_of_a_finished_experiment(tmp_path):
    notebook = json.loads((EXPERIMENTS / "reading_results.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])
    script = tmp_path / "notebook.py"
    check = (
        "assert plt.get_fignums() == [1]\n"
        "points = [line.get_xdata() for line in axes.get_lines() if line.get_marker() == 'o']\n"
        "assert len(points) == 2 and all(len(x) == len(kept) for x in points)\n"
        "assert sum(points[0]) != sum(points[1])\n"
        f"figure.savefig({str(tmp_path / 'figure.png')!r})\n"
    )
    script.write_text("\n\n".join([*cells, check]))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=EXPERIMENTS,
        env=os.environ | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").stat().st_size > 10_000
