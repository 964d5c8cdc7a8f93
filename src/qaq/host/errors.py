"""The errors a caller can act on, one class per action.

Every message says what was found, what was expected and what to do. `exit_code` is what the
command line returns: 2 for the user's mistakes, 1 for everything else.
"""


class QaqError(Exception):
    """Base of all errors that qaq raises on purpose; shown without a traceback."""

    exit_code = 1


class UserError(QaqError):
    """A mistake of the user's: correct the input and run the same command again."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration is impossible; `problems` lists every fault found, not only the first."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        head = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"the configuration has {head}:\n" + "\n".join(f"  - {p}" for p in problems)
        )


class DataError(UserError):
    """A data file is missing, unreadable or not of the expected form."""


class ModelError(UserError):
    """A model, its tokenizer or its chat template is missing or does not fit."""


class SandboxError(UserError):
    """No sandbox of the required strength is available on this machine."""


class StoreError(QaqError):
    """The artifact store cannot be read or written (disk full, corrupted file)."""


class StageError(QaqError):
    """A stage could not finish; the message names the stage and where its traceback lies."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class Preempted(BaseException):
    """The machine is being taken away; what was done is on disk. 75 is the shell's "try later".

    No `Exception`, as KeyboardInterrupt is none: it may come anywhere, and what tries one way and
    then another (ours, a library's) must not take it for a way that failed.
    """

    exit_code = 75

    def __init__(self, signal: str):
        super().__init__(f"stopped by {signal}; run the same command again to continue")


class OutputClosed(QaqError):
    """The reader of our output went away (`qaq list | head`); the exit code is SIGPIPE's."""

    exit_code = 141
