"""What submitit leaves to whoever hands jobs to Slurm: from inside a job too, waiting for all."""

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence

from qaq.host.errors import UserError
from qaq.host.terminal import show

# The states in which a job has ended, of those that `sacct` and `squeue` name.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
RETURNING = {"PREEMPTED", "NODE_FAIL"}  # ended, unless the cluster queues it again
LOOKS = 5  # after which it has not


def refusals() -> tuple[type[Exception], ...]:
    """What submitit raises where sbatch does not take a job."""
    try:
        from submitit.core.utils import FailedJobError
    except ImportError:
        return ()
    return (FailedJobError,)


@contextlib.contextmanager
def submitting() -> Iterator[None]:
    """Hand jobs to Slurm as from a login node, also where this is a job of Slurm's itself.

    What `sbatch` finds of that one's variables it hands on: two ways to ask for memory, say, of
    which every new job dies.

    Raises:
        UserError: this is no machine that jobs can be handed to Slurm from.
    """
    if lacking := [name for name in ("sbatch", "srun") if shutil.which(name) is None]:
        raise UserError(
            f"{lacking[0]} is not here; start this on a login node of the cluster, or take "
            "hydra/launcher=submitit_local"
        )
    foreign = ("SLURM_", "SRUN_", "SUBMITIT_") if "SLURM_JOB_ID" in os.environ else ()
    names = [n for n in os.environ if n.startswith(foreign) and n != "SLURM_CONF"]
    taken = {name: os.environ.pop(name) for name in names}
    try:
        yield
    except KeyboardInterrupt:
        show(
            "\nJobs that were handed to Slurm go on (squeue --me). Once they have ended the same "
            "command finds what they made; before that it hands over again what is not there",
            error=True,
        )
        raise
    finally:
        os.environ.update(taken)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Wait for every job: submitit raises at the first that was lost, while others still run.

    It asks `sacct` how jobs are. Where a cluster keeps no accounts that fails, and a job that ended
    without a result would be waited for without end; then `squeue` is asked. And it takes a job for
    ended in every state that it does not know, such as CONFIGURING.
    """
    try:
        from submitit.core import core, utils
        from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob
    except ImportError:
        yield
        return
    original, accounts = core.Job.results, SlurmInfoWatcher._make_command
    ended, delay = SlurmInfoWatcher.is_done, SlurmJob.watcher._delay_s
    first_seen: dict[str, int] = {}  # at which look a job was about to be queued again

    def results(job: "core.Job[object]") -> Sequence[object]:
        try:
            return list(original(job))
        except (utils.UncompletedJobError, utils.FailedJobError) as error:
            show(f"job {job.job_id} was lost: {str(error).splitlines()[0]}; {job.paths.stderr}")
            return [error]

    def how_they_are(watcher: SlurmInfoWatcher) -> list[str] | None:
        command = accounts(watcher)
        if command is None:
            return None
        jobs = ",".join(command[command.index("-j") + 1 :: 2])
        queue = ["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%N", "-j", jobs]
        queued = f"{{ echo 'JobID|State|NodeList'; {shlex.join(queue)} 2>/dev/null; true; }}"
        return ["sh", "-c", f"{shlex.join(command)} 2>/dev/null || {queued}"]

    def is_done(watcher: SlurmInfoWatcher, job_id: str, mode: str = "standard") -> bool:
        state = watcher.get_state(job_id, mode=mode).upper().split()[0].rstrip("+")
        if state in RETURNING:
            now = int(watcher.num_calls)
            return now - first_seen.setdefault(job_id, now) >= LOOKS
        first_seen.pop(job_id, None)
        return state in ENDED

    core.Job.results = results
    SlurmInfoWatcher._make_command, SlurmInfoWatcher.is_done = how_they_are, is_done
    SlurmJob.watcher._delay_s = min(delay, 60)  # squeue forgets a job some minutes after its end
    try:
        yield
    finally:
        core.Job.results, SlurmInfoWatcher._make_command = original, accounts
        SlurmInfoWatcher.is_done, SlurmJob.watcher._delay_s = ended, delay
