"""The compiled loops in processes of their own: compiled just now, or read from the cache."""

import os
import subprocess
import sys

import pytest

LOOPS = """
import hashlib
import torch
from qaq.models.forward import passes

def random(*shape, dtype=torch.float32):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)

def shown(name, x):
    print(name, hashlib.sha256(x.float().numpy().tobytes()).hexdigest())

if passes._loops() is None:
    print("no OpenMP")
    raise SystemExit
last = torch.arange(8 * 5).view(8, 5) + 30
order = torch.arange(0, 600, 7)
for dtype in (torch.float32, torch.bfloat16):
    shown("norm", passes.normalised(random(300, 97, dtype=dtype), random(97), 1e-5))
    shown("heads", passes.gathered(random(300, 4, 16, dtype=dtype), order, 2))
    shown("weights", passes.masked_softmax(random(16, 10, 90), last, None, 2, dtype))
    shown("nll", passes.token_nll(random(100, 501, dtype=dtype), torch.arange(100)))
"""


def test_loops_from_the_cache_give_the_bits_of_the_process_that_compiled_them(tmp_path):
    environment = os.environ | {"QAQ_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", LOOPS]

    def run():
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    just_compiled = run()
    if just_compiled == "no OpenMP\n":
        pytest.skip("numba finds no OpenMP here, so the loops are left out")
    kept = {path.name.split("-")[0] for path in tmp_path.rglob("*.nbc")}
    assert kept == {"loops.normalise", "loops.gather", "loops.masked_softmax", "loops.token_nll"}
    assert run() == just_compiled
