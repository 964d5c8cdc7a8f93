"""The selection rules and their parameters; one dataclass per family of rules.

`needs` names the score tables a rule reads; `seeded` says whether chance plays a part.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

FORBID = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Full:
    """Every row."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    method: Literal["full"] = "full"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Random:
    """Rows drawn uniformly without replacement."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = True
    method: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class IfdCherry:
    """Highest IFD (ratio of losses) below `ceiling`, as Cherry_LLM selects."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    method: Literal["ifd_cherry"] = "ifd_cherry"
    ceiling: float = 1.0
    share_of: Literal["all", "survivors"] = "all"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RmiBand:
    """A band of (stratified) RMI ranks: `center` ± ratio/2, or the fixed `low` to `high`."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    method: Literal["rmi_band"] = "rmi_band"
    center: Share = 0.625
    low: Share | None = None
    high: Share | None = None
    bins: int = Field(default=10, ge=1)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Disagreement:
    """Difference or sum of the strong and the weak model's ranks."""

    needs: ClassVar[tuple[str, ...]] = ("strong", "weak")
    seeded: ClassVar[bool] = False
    method: Literal["diff_high", "diff_low", "sum_high", "sum_low"]
    cut: Literal["share", "threshold"] = "share"
    threshold: float = 0.1
    ranks: Literal["stratified", "global"] = "stratified"
    bins: int = Field(default=10, ge=1)


SelectorConfig = Annotated[
    Full | Random | IfdCherry | RmiBand | Disagreement, Field(discriminator="method")
]
