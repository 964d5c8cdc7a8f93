"""How a stage's processes are started: one, several on this host, or several on each of many."""

import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from qaq.host import hardware
from qaq.host.errors import StageError
from qaq.host.plugins import conf_dir
from qaq.host.runtime import RuntimeConfig
from qaq.store.stages import StageKind

# Slurm sends SIGUSR2 to all processes of a job. Accelerate's launcher would die of it, and with it
# those that are to save.
UNDISTURBED = "trap '' USR2; exec"
# How long that launcher leaves those to save that it passed a signal on to: twice the time that
# hydra/launcher=slurm has a job signalled ahead. By itself it kills them after 30 s.
SAVING = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}


def launcher(kind: StageKind, runtime: RuntimeConfig) -> list[str]:
    """How to start the worker: through Accelerate where several processes share a stage."""
    if not kind.shared:
        return [sys.executable]
    config = runtime.accelerate_file if kind.accelerated else None
    total = processes(kind, runtime)
    if total == 1 and config is None:
        return [sys.executable]
    accelerate = Path(sys.executable).with_name("accelerate")
    command = str(accelerate) if accelerate.exists() else shutil.which("accelerate") or "accelerate"
    launch = [command, "launch", "--num_processes", str(total)]
    launch += ["--num_machines", str(runtime.hosts)]
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, hardware.cores() // runtime.processes)
    launch += ["--num_cpu_threads_per_process", str(threads)]  # else Accelerate leaves each one
    # Without a file Accelerate reads the user's default one, which may choose among the cards. In
    # ours, without GPUs, MULTI_GPU means processes that talk over gloo; "cpu" would mean one.
    launch += ["--config_file", str(config or conf_dir() / "accelerate" / "ddp.yaml")]
    if runtime.hosts > 1:
        return _on_hosts(launch, runtime.hosts)
    launch += ["--main_process_port", "0"]  # any free one, so that runs may stand side by side
    return ["sh", "-c", f'{UNDISTURBED} "$@"', "qaq", *launch]


def processes(kind: StageKind, runtime: RuntimeConfig) -> int:
    """How many processes share a stage of this kind."""
    return runtime.processes * runtime.hosts if kind.shared else 1


def _on_hosts(launch: list[str], hosts: int) -> list[str]:
    """The launcher started by `srun` once on each host of this Slurm job, the first one leading."""
    if shutil.which("srun") is None:
        raise StageError(
            f"runtime.hosts={hosts} needs Slurm's srun, which is not here; start qaq inside a "
            "Slurm job of so many nodes, or set runtime.hosts=1",
            2,
        )
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "0"))
    if nodes < hosts:
        raise StageError(
            f"runtime.hosts={hosts} needs a Slurm job of so many nodes; this one has {nodes}. Ask "
            f"for --nodes={hosts} --ntasks-per-node=1 (hydra.launcher.nodes={hosts})",
            2,
        )
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    meet = ["--main_process_ip", socket.gethostname(), "--main_process_port", port]
    # What is asked to stop ends with 0, or srun would kill the others while they save.
    ranked = (
        "trap '[ \"$asked\" ] || kill -TERM $run; asked=1' USR2 TERM; "
        f'( {UNDISTURBED} {shlex.join([*launch, *meet])} --machine_rank "$SLURM_NODEID" "$@" ) & '
        'run=$!; wait $run; code=$?; [ "$asked" ] || exit $code; wait $run; exit 0'
    )
    # the task on the node where qaq itself runs leads; Slurm gives that node the number 0. In a
    # job of a sweep qaq is a step itself, with which these have to share what the job holds.
    srun = ["srun", "--overlap", f"--nodes={hosts}", f"--ntasks={hosts}", "--ntasks-per-node=1"]
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):  # which it does not take over by itself
        srun.append(f"--cpus-per-task={cores}")
    return [*srun, "--kill-on-bad-exit=1", "sh", "-c", ranked, "qaq"]
