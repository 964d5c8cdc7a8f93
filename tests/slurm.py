"""A real Slurm on this one host, with made-up processors and cards; started and stopped by tests.

Needs root and the packages slurm-wlm and munge, which are installed where apt-get can.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CONF = """\
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={at}/munge.sock
CredType=cred/munge
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool-%n
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd-%n.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
SwitchType=switch/none
MpiDefault=none
MinJobAge=300
KillWait=15
MailProg=/bin/true
"""
NODE = (
    "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=96 Boards=1 Sockets=1 "
    "CoresPerSocket=96 ThreadsPerCore=1 RealMemory=1100000 Gres=gpu:8 State=UNKNOWN\n"
)


@dataclass
class Slurm:
    """A running cluster: the environment of its clients and the processes that were started."""

    folder: Path
    environment: dict[str, str]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A daemon; it is ended with the cluster."""
        log = (self.folder / f"{Path(command[0]).name}-{len(self.daemons)}.out").open("wb")
        self.daemons.append(
            subprocess.Popen(
                command, env=os.environ | self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )
        )  # fmt: skip
        return self.daemons[-1]

    def call(self, *command: str) -> str:
        """The output of a command of Slurm's."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=30,
            check=True,
        )  # fmt: skip
        return done.stdout


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def needed() -> None:
    """Skip where Slurm can be neither found nor installed."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root")
    if not shutil.which("slurmctld") and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]
        subprocess.run(install, capture_output=True, timeout=300, check=False)
    missing = [p for p in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(p)]
    if missing:
        pytest.skip(f"Slurm is not here and could not be installed: no {', '.join(missing)}")


@contextlib.contextmanager
def running(folder: Path, nodes: int = 2) -> Iterator[Slurm]:
    """A cluster of so many nodes, all of them this host."""
    needed()
    host = socket.gethostname().split(".")[0]
    for name in ("state", "munge", "dev", *(f"spool-n{n}" for n in range(1, nodes + 1))):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for card in range(8):
        os.mknod(folder / "dev" / f"gpu{card}", 0o20666, os.makedev(1, 3))
    text = CONF.format(host=host, at=folder, port=free_port())
    for n in range(1, nodes + 1):
        text += NODE.format(n=n, host=host, port=free_port())
    text += f"PartitionName=gpu Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP\n"
    (folder / "slurm.conf").write_text(text)
    cards = f"NodeName=n[1-{nodes}] Name=gpu File={folder}/dev/gpu[0-7]\n"
    (folder / "gres.conf").write_text(cards)
    slurm = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
    try:
        slurm.start(
            "munged", f"--key-file={key}", f"--socket={folder}/munge.sock", "--force", "-F",
            f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge/seed", "--num-threads=2",
        )  # fmt: skip
        wait_until((folder / "munge.sock").exists, 20)
        slurm.start("slurmctld", "-D", "-c", "-f", str(folder / "slurm.conf"))
        time.sleep(1)
        for n in range(1, nodes + 1):
            slurm.start("slurmd", "-D", "-N", f"n{n}", "-f", str(folder / "slurm.conf"))
        wait_until(lambda: states(slurm) == {"idle"}, 40)
        yield slurm
    finally:
        for daemon in reversed(slurm.daemons):
            daemon.terminate()
        for daemon in slurm.daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=10)
            daemon.kill()


def states(slurm: Slurm) -> set[str]:
    """In which state the nodes are."""
    try:
        return set(slurm.call("sinfo", "-h", "-o", "%t").split())
    except (subprocess.SubprocessError, OSError):
        return set()


def wait_until(true, seconds: float) -> None:
    """Wait for something; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
