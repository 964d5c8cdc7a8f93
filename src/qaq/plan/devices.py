"""What a device can do at most, and how much of that is reached, for estimates.

Peak rates of cards are dense bfloat16 matrix products with float32 sums (NVIDIA's data sheets of
the SXM cards, of the L40S and of the RTX 4090). Prices are the middle of what specialised clouds
asked per card and hour on demand in May 2026; `--price` sets another.

A processor's rates are what this project measured with two cores at work (`results/performance`):
the faster of the two matmul ceilings of `scoring.md` for AMX and of `scoring_epyc.md` for AVX-512
with bfloat16. What has neither was not measured; a core of it is taken as 95 GFLOP/s.

Shares of the peak are by the operations that `qaq.plan.estimate` counts: tokens after merging, and
the output head where something is scored. Measured:

    scoring      card        H100 63% with the 6.7B shape, 18% with 0.6B (`scoring_h100.md`)
                 processor   AMX 64% in bfloat16, 72% in float32; AVX-512 76% and 84% (SmolLM2-135M)
    training     processor   AVX-512 37% in bfloat16, 30% in float32 (`training.md`)
    generating   processor   AVX-512 12% in bfloat16, 18% in float32, 48 rows (`generation.md`)

Nothing else was. Training and generating on a card are assumed; other cards are taken to be like
the H100, AMX like AVX-512 where it has no figure, larger models on a processor like that one.
"""

from dataclasses import dataclass
from typing import Literal

from qaq.host import hardware
from qaq.host.errors import UserError


@dataclass(frozen=True)
class Device:
    """Peak rates of one device.

    Attributes:
        flops: floating-point operations per second.
        memory: bytes.
        bandwidth: bytes per second from that memory.
        price: US dollars per hour, or None where there is no market price.
        scoring, training, generating: share of the peak that these reach with a model of `LARGE`.
        kind: cuda or cpu.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    price: float | None
    scoring: float = 0.63
    training: float = 0.4
    generating: float = 0.5
    kind: Literal["cuda", "cpu"] = "cuda"

    def share(self, large: float, parameters: float) -> float:
        """Share of the peak that is reached with so many parameters; `large` with many.

        On a card small models leave more of the time to everything but products. A power of the
        size goes through both measured points; it is assumed for all that runs there.
        """
        return large if self.kind == "cpu" else large * min(1.0, (parameters / LARGE) ** FALL)


DEVICES = {
    "h200": Device("H200 SXM", 989e12, 141e9, 4.8e12, 4.0),
    "h100": Device("H100 SXM", 989e12, 80e9, 3.35e12, 3.0),
    "a100": Device("A100 80GB SXM", 312e12, 80e9, 2.04e12, 1.3),
    "l40s": Device("L40S", 362e12, 48e9, 0.864e12, None),
    "rtx4090": Device("RTX 4090", 165e12, 24e9, 1.01e12, None),
}
MARKS = {"h200": "H200", "h100": "H100", "a100": "A100", "l40s": "L40S", "rtx4090": "4090"}
CORES = {"amx_bf16": (440e9, 144e9), "avx512_bf16": (532e9, 262e9)}  # bfloat16, float32
OTHER_CORE = (95e9, 95e9)
LARGE, SMALL = 6.9e9, 0.6e9  # parameters of the two shapes that were measured on a card
FALL = 0.52  # log(63% / 17.7%) / log(LARGE / SMALL)


def device_named(name: str | None, dtype: str) -> Device | None:
    """A device of the table, or the one of this machine; None where it is not in the table.

    Raises:
        UserError: the name is not in the table.
    """
    if name == "cpu":
        return _processor(dtype)
    if name == "2cores":
        return _processor(dtype, 2, CORES["avx512_bf16"])
    if name is not None:
        if name.lower() not in DEVICES:
            raise UserError(
                f"--device {name}: not known; there are: cpu, 2cores, {', '.join(DEVICES)}"
            )
        return DEVICES[name.lower()]
    cards = hardware.cuda_devices()
    if not cards:
        return _processor(dtype)
    return next((DEVICES[key] for key, mark in MARKS.items() if mark in cards[0]), None)


def _processor(
    dtype: str, cores: int | None = None, rates: tuple[float, float] | None = None
) -> Device:
    """This machine's processor, or one of so many cores at these rates."""
    cores = cores or hardware.cores()
    flags = hardware.cpu_flags()
    rates = rates or next((r for flag, r in CORES.items() if flag in flags), OTHER_CORE)
    return Device(
        name=f"{cores} CPU cores",
        flops=cores * rates[dtype == "float32"],
        memory=hardware.memory_bytes(),
        bandwidth=20e9,
        price=None,
        scoring=0.7,
        training=0.33,
        generating=0.15,
        kind="cpu",
    )
