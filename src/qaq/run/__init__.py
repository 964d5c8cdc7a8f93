"""From overrides to finished artifacts. The package can be called: `qaq.run([...])` (`call`)."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A module whose call is that of the function of its name, which it would hide else."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from qaq.run.call import run

        return run(*arguments, **named)


sys.modules[__name__].__class__ = _Room
