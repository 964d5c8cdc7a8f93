"""The benchmark of fine-tuning runs, its GPU side on a tiny shape."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "performance" / "training.py"


@pytest.mark.slow
def test_both_sides_run_and_have_the_same_loss_curve(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    command = [sys.executable, SCRIPT, "--shape", "tiny", "--rows", "32", "--rounds", "2"]
    subprocess.run([*command, "--steps", "1", "--out", out], check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert result["loss_gaps"]["qaq float32 against plain float32"] < 1e-5
    assert result["loss_gaps"]["qaq bfloat16 against plain bfloat16"] < 0.05
    assert set(result["ceilings"]) == {"float32", "bfloat16"}
    assert "| qaq bfloat16 |" in out.with_suffix(".md").read_text()
