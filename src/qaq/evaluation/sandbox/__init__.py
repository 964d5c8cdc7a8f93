"""What stands between a model-written program and the machine: see `levels` and `ring`."""

from qaq.evaluation.sandbox.levels import (
    Level,
    Setting,
    View,
    choose,
    command,
    environment,
    interpreter_folders,
    scratch_folder,
)

__all__ = [
    "Level",
    "Setting",
    "View",
    "choose",
    "command",
    "environment",
    "interpreter_folders",
    "scratch_folder",
]
