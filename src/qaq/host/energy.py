"""Energy that a stage took, where the device tells: NVIDIA's counters and the processor's RAPL.

Both count all that happens on the device, so a figure is the stage's own only while nothing else
runs there. A machine without counters (most virtual ones) gives None, never 0.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
Counters = Mapping[str, tuple[float, float]]


def counters(powercap: Path = POWERCAP) -> dict[str, tuple[float, float]]:
    """Every energy counter that can be read: name to (joules so far, joules at which it wraps)."""
    return _processors(powercap) | _gpus()


def joules(before: Counters, after: Counters) -> float | None:
    """What the counters that both readings have went up by; None if they have none in common.

    A counter that wrapped is taken to have wrapped once: RAPL does so after about an hour at full
    load, so of a long stage the processor's part is a lower bound.
    """
    common = before.keys() & after.keys()
    if not common:
        return None
    used = 0.0
    for name in common:
        grown = after[name][0] - before[name][0]
        used += grown if grown >= 0 else grown + after[name][1]
    return round(used, 3)


def _processors(powercap: Path) -> dict[str, tuple[float, float]]:
    """RAPL's packages (not the domains inside them, which would count twice). Mostly root's."""
    found = {}
    for zone in powercap.glob("intel-rapl:*"):
        if zone.name.count(":") == 1:
            with suppress(OSError, ValueError):
                now = int((zone / "energy_uj").read_text())
                span = int((zone / "max_energy_range_uj").read_text())
                found[zone.name] = (now / 1e6, span / 1e6)
    return found


def _gpus() -> dict[str, tuple[float, float]]:
    """NVIDIA cards from Volta on that this process may use."""
    import pynvml

    found = {}
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for number in range(pynvml.nvmlDeviceGetCount()):
                card = pynvml.nvmlDeviceGetHandleByIndex(number)
                name = pynvml.nvmlDeviceGetUUID(card)
                if _visible(number, name):
                    used = pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
                    found[name] = (used / 1e3, 2**64 / 1e3)
        finally:
            pynvml.nvmlShutdown()
    return found


def _visible(number: int, name: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES, by number or by the start of an identifier, lets a card in."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return True
    parts = [part.strip() for part in allowed.split(",") if part.strip()]
    return any(part == str(number) or name.startswith(part) for part in parts)
