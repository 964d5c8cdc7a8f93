"""What a device can do at most, for estimates; the figures are the makers', the prices a market's.

Peak rates are dense bfloat16 matrix products with float32 sums (NVIDIA's data sheets of the SXM
cards, of the L40S and of the RTX 4090). Prices are the middle of what specialised clouds asked per
card and hour on demand in May 2026; `--price` sets another. A CPU's rates are what this project
measured per core: 465 GFLOP/s in bfloat16 with AMX, 95 GFLOP/s in float32 with AVX-512;
bfloat16 with AVX-512 alone is taken as twice that.
"""

from dataclasses import dataclass
from typing import Literal

from qaq import hardware
from qaq.errors import UserError


@dataclass(frozen=True)
class Device:
    """Peak rates of one device.

    Attributes:
        flops: floating-point operations per second.
        memory: bytes.
        bandwidth: bytes per second from that memory.
        price: US dollars per hour, or None where there is no market price.
        scoring, training: share of the peak that this project's stages are assumed to reach.
        kind: cuda or cpu.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    price: float | None
    scoring: float = 0.5
    training: float = 0.4
    kind: Literal["cuda", "cpu"] = "cuda"


DEVICES = {
    "h200": Device("H200 SXM", 989e12, 141e9, 4.8e12, 4.0),
    "h100": Device("H100 SXM", 989e12, 80e9, 3.35e12, 3.0),
    "a100": Device("A100 80GB SXM", 312e12, 80e9, 2.04e12, 1.3),
    "l40s": Device("L40S", 362e12, 48e9, 0.864e12, None),
    "rtx4090": Device("RTX 4090", 165e12, 24e9, 1.01e12, None),
}
MARKS = {"h200": "H200", "h100": "H100", "a100": "A100", "l40s": "L40S", "rtx4090": "4090"}
CORE = {"amx_bf16": 465e9, "avx512_bf16": 190e9}
CORE_FLOAT32 = 95e9


def device_named(name: str | None, dtype: str) -> Device | None:
    """A device of the table, or the one of this machine; None where it is not in the table.

    Raises:
        UserError: the name is not in the table.
    """
    if name == "cpu":
        return _processor(dtype)
    if name is not None:
        if name.lower() not in DEVICES:
            raise UserError(f"--device {name}: not known; there are: cpu, {', '.join(DEVICES)}")
        return DEVICES[name.lower()]
    cards = hardware.cuda_devices()
    if not cards:
        return _processor(dtype)
    return next((DEVICES[key] for key, mark in MARKS.items() if mark in cards[0]), None)


def _processor(dtype: str) -> Device:
    cores = hardware.cores()
    native = next((r for flag, r in CORE.items() if flag in hardware.cpu_flags()), CORE_FLOAT32)
    return Device(
        name=f"{cores} CPU cores",
        flops=cores * (CORE_FLOAT32 if dtype == "float32" else native),
        memory=hardware.memory_bytes(),
        bandwidth=20e9,
        price=None,
        scoring=0.3,
        training=0.2,
        kind="cpu",
    )
