"""qaq: choose code-instruction data by how well the answer predicts the question.

    scores = qaq.score(pairs, strong="OWNER/NAME", metrics=["rmi", "ifd"])
    best = qaq.select(scores, "rmi_band", keep=0.25)
    report = qaq.compare("a.json", "b.json")
    result = qaq.run(["experiment=quickstart"])

Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qaq.api.functions import Selection, compare, score, select
    from qaq.run.call import Finished, run

__version__ = "0.1.0"
__all__ = ["Finished", "Selection", "compare", "run", "score", "select"]
_PLACES = dict.fromkeys(("Finished", "run"), "qaq.run.call")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'qaq' has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "qaq.api.functions")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
