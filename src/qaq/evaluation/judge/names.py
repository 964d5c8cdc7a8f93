"""The judges that are known by name; what one is, `qaq.evaluation.judge.registry` says."""

from typing import Any

from qaq.host.plugins import Registry

JUDGES: Registry[Any] = Registry("judge", "qaq.evaluation.judge.sandboxed")
