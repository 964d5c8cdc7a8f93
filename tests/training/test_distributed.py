"""Two real processes give the loss curve of one, however they share the model."""

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import distributed, multiprocessing
from torch.distributed.launcher.api import LaunchConfig

from qaq.evaluation.config import OutcomesStage
from qaq.host.errors import ConfigError
from qaq.host.plugins import options
from qaq.host.runtime import RuntimeConfig
from qaq.run.compose import compose
from qaq.run.launch import SAVING, launcher
from qaq.scoring.config import ScoresStage
from qaq.store import jobs
from qaq.store.jobs import Job
from qaq.store.tables import read_json, read_jsonl
from qaq.training import stage
from qaq.training.checkpoints import last_checkpoint
from qaq.training.config import AdapterStage
from qaq.training.processes import average_gradients

MakeJob = Callable[..., Job]
ADAPTER = "adapter_model.safetensors"
WORKERS = str(Path(__file__).with_name("workers.py"))
TWO = {"processes": 2, "micro_batch": 2}


def start(job: Job, worker: tuple[str, ...] = ("-m", "qaq.run.worker")) -> subprocess.Popen[bytes]:
    """What the runner starts for this job, in a process group of its own."""
    path = job.out.parent / "job.json"
    jobs.save(job, path)
    launch = launcher(AdapterStage.STAGE, job.runtime)
    return subprocess.Popen(
        [*launch, *worker, str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.PIPE,
    )


def launch(job: Job, worker: tuple[str, ...] = ("-m", "qaq.run.worker")) -> None:
    """Run the job, and make sure that there were two processes."""
    process = start(job, worker)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()[-4000:]
    assert (job.out / "record-1.jsonl").exists(), "there was one process, not two"


def assert_same(job: Job, reference: Job) -> None:
    """The same loss curve within 1e-5, and the same adapter."""
    one, two = (list(read_jsonl(j.out / "training.jsonl")) for j in (reference, job))
    assert [line["tokens"] for line in two] == [line["tokens"] for line in one]
    for found, expected in zip(two, one, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    first, second = load_file(reference.out / ADAPTER), load_file(job.out / ADAPTER)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.allclose(tensor, second[key], atol=1e-4)


def averaged(rank: int, place: str, found: Any) -> None:
    """What one of two processes has after averaging: it alone, both and none had a gradient."""
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    trained = [torch.nn.Parameter(torch.zeros(2)) for _ in range(4)]
    for at, has in enumerate(((True, False), (False, True), (True, True), (False, False))):
        if has[rank]:
            trained[at].grad = torch.full((2,), 10.0**at * (1 + rank))
    frozen = torch.nn.Parameter(torch.zeros(3), requires_grad=False)
    average_gradients([frozen, *trained], 2)
    found[rank] = [None if p.grad is None else p.grad.tolist() for p in trained]
    distributed.destroy_process_group()


@pytest.mark.slow
def test_gradients_are_averaged_with_those_of_the_same_parameter(tmp_path: Path) -> None:
    with multiprocessing.Manager() as manager:
        found = manager.dict()
        multiprocessing.spawn(averaged, (str(tmp_path / "meet"), found), nprocs=2)
        assert found[0] == found[1] == [[0.5, 0.5], [10.0, 10.0], [150.0, 150.0], None]


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [4, 1])
def test_two_processes_give_the_loss_curve_of_one(make_job: MakeJob, micro_batch: int) -> None:
    """21 rows in batches of 8: the last window has 5 rows for two processes."""
    alone = make_job("alone", rows=21, epochs=3, runtime={"micro_batch": 8})
    assert stage.run(alone)["steps"] == 9
    shared = make_job("shared", rows=21, epochs=3, runtime=TWO | {"micro_batch": micro_batch})
    launch(shared)
    assert_same(shared, alone)


@pytest.mark.slow
def test_a_window_smaller_than_the_processes_is_no_obstacle(make_job: MakeJob) -> None:
    """9 rows in batches of 8: the second window has one row, and one process has none."""
    alone = make_job("alone", rows=9, epochs=2)
    stage.run(alone)
    shared = make_job("shared", rows=9, epochs=2, runtime=TWO)
    launch(shared, (WORKERS, "open"))
    assert_same(shared, alone)


@pytest.mark.slow
def test_out_of_memory_in_one_process_halves_the_micro_batch_of_both(make_job: MakeJob) -> None:
    alone = make_job("alone", rows=21, epochs=2)
    stage.run(alone)
    tight = make_job("tight", rows=21, epochs=2, runtime={"processes": 2})
    launch(tight, (WORKERS, "full"))
    assert_same(tight, alone)
    assert read_json(tight.scratch / "memory.json") == {"cuts": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerate", "worker"), [(None, ("-m", "qaq.run.worker")), ("fsdp", (WORKERS, "fsdp"))]
)
def test_two_killed_processes_continue_to_the_same_bytes(
    make_job: MakeJob, accelerate: str | None, worker: tuple[str, ...]
) -> None:
    shape = {"rows": 24, "epochs": 12, "checkpoint_steps": 2}
    whole, killed = (
        make_job(name, runtime=TWO | {"accelerate": accelerate}, **shape)
        for name in ("whole", "killed")
    )
    launch(whole, worker)
    process = start(killed, worker)
    deadline = time.monotonic() + 100
    folder = killed.scratch / ("checkpoints-fsdp" if accelerate else "checkpoints")
    while last_checkpoint(folder) is None:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed.out / ADAPTER).exists()
    launch(killed, worker)
    assert (killed.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()


@pytest.mark.slow
def test_one_process_told_to_stop_stops_both_and_they_go_on_to_the_same_bytes(
    make_job: MakeJob,
) -> None:
    shape = {"rows": 24, "epochs": 60, "checkpoint_steps": 1000, "runtime": TWO}
    whole, stopped = (make_job(name, **shape) for name in ("whole", "stopped"))
    launch(whole)
    process = start(stopped)
    deadline = time.monotonic() + 100
    record = stopped.out / "record-1.jsonl"
    while not record.exists() or len(record.read_text().splitlines()) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    [second] = [
        child for child in psutil.Process(process.pid).children(recursive=True)
        if child.environ().get("RANK") == "1"
    ]  # fmt: skip
    second.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode != 0
    assert not (stopped.out / ADAPTER).exists()
    checkpoint = last_checkpoint(stopped.scratch / "checkpoints")
    assert checkpoint is not None and checkpoint.name != "checkpoint-180"
    told = [read_json(f)["message"] for f in stopped.out.parent.glob("failure*.json")]
    assert told and all("stopped by" in message for message in told)
    launch(stopped)
    assert (stopped.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()


@pytest.mark.slow
def test_a_model_sharded_by_fsdp_learns_the_same(make_job: MakeJob) -> None:
    alone = make_job("alone", rows=21, epochs=2)
    stage.run(alone)
    sharded = make_job("sharded", rows=21, epochs=2, runtime=TWO | {"accelerate": "fsdp"})
    launch(sharded, (WORKERS, "fsdp"))
    assert_same(sharded, alone)
    done = read_json(sharded.out.parent / "done.json")
    assert done["summary"]["processes"] == "2 (FSDP)"


@pytest.mark.parametrize(
    ("name", "used"), [("ddp", "multi_gpu"), ("fsdp", "use_fsdp"), ("zero3", "use_deepspeed")]
)
def test_a_runtime_launches_what_its_name_says(name: str, used: str) -> None:
    """Through Accelerate's own parser, as it would be started on eight GPUs."""
    runtime = compose([f"runtime={name}"]).runtime
    command = launcher(AdapterStage.STAGE, runtime)
    at = command.index("launch")  # behind a shell that keeps a signal off it
    arguments = launch_command_parser().parse_args(
        [*command[at + 1 :], "-m", "qaq.run.worker", "job.json"]
    )
    arguments, _, _ = _validate_launch_command(arguments)
    flags = ("multi_gpu", "use_fsdp", "use_deepspeed")
    assert [flag for flag in flags if getattr(arguments, flag)] == [used]
    assert arguments.num_processes == 8
    assert arguments.training_script == "qaq.run.worker"
    assert arguments.main_process_port == 0  # tasks of an array may stand on one host
    if name == "fsdp":
        assert (arguments.fsdp_version, arguments.fsdp_state_dict_type) == (2, "FULL_STATE_DICT")
    if name == "zero3":
        assert arguments.zero_stage == 3


def test_deepspeed_on_several_hosts_is_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another launcher of DeepSpeed's each host would train by itself, in one work folder."""
    runtime = compose(["runtime=zero3", "runtime.hosts=2"]).runtime
    monkeypatch.setattr("qaq.run.launch.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "96")
    *srun, ranked, _ = launcher(AdapterStage.STAGE, runtime)
    assert "--cpus-per-task=96" in srun  # or its tasks would have one core
    inner = shlex.split(ranked.split(" exec ")[1].split(" --machine_rank")[0])
    given = [*inner[2:], "--machine_rank", "1", "-m", "qaq.run.worker", "job.json"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    arguments.deepspeed_fields_from_accelerate_config = ""
    assert prepare_deepspeed_cmd_env(arguments)[0] is None  # no command of DeepSpeed's own
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 1)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("distributed_type: DEEPSPEED", True),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: "
         "{deepspeed_multinode_launcher: pdsh}", True),
        ('{"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2}}', True),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: "
         "{deepspeed_multinode_launcher: standard}", False),
        ("distributed_type: FSDP", False),
        ("a: [", True),
    ],
)  # fmt: skip
def test_a_file_by_which_each_host_would_train_alone_is_refused(
    tmp_path: Path, text: str, refused: bool
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    overrides = [f"runtime.accelerate={file}", "runtime.processes=8"]
    assert compose(overrides).runtime.hosts == 1
    if not refused:
        assert compose([*overrides, "runtime.hosts=2"]).runtime.hosts == 2
        return
    with pytest.raises(ConfigError, match=r"deepspeed_multinode_launcher: standard|not be read"):
        compose([*overrides, "runtime.hosts=2"])


def test_only_training_is_launched_with_the_configured_file() -> None:
    runtime = RuntimeConfig(processes=2, accelerate="fsdp")
    files = [
        command[command.index("--config_file") + 1]
        for command in (launcher(kind.STAGE, runtime) for kind in (AdapterStage, ScoresStage))
    ]
    assert [Path(file).name for file in files] == ["fsdp.yaml", "ddp.yaml"]
    assert launcher(OutcomesStage.STAGE, runtime) == [sys.executable]
    assert launcher(AdapterStage.STAGE, RuntimeConfig()) == [sys.executable]


def test_a_launcher_leaves_its_processes_the_time_to_save_that_a_job_of_slurm_s_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in SAVING.items():
        monkeypatch.setenv(name, value)
    ahead = OmegaConf.load(options("hydra/launcher")["slurm"]).signal_delay_s
    assert LaunchConfig(1, 1, 2).shutdown_timeout >= ahead


def test_accelerate_s_default_file_of_the_user_chooses_no_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = tmp_path / "default_config.yaml"
    default.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\ngpu_ids: 0,1\n"
        "num_machines: 1\nnum_processes: 2\nmixed_precision: bf16\nuse_cpu: false\n"
    )
    for module in ("launch", "config.config_args"):
        monkeypatch.setattr(f"accelerate.commands.{module}.default_config_file", str(default))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")

    def seen(command: list[str]) -> tuple[str, str]:
        given = launch_command_parser().parse_args([*command, "-m", "qaq.run.worker", "job.json"])
        made = prepare_multi_gpu_env(_validate_launch_command(given)[0])
        return made["CUDA_VISIBLE_DEVICES"], made["ACCELERATE_MIXED_PRECISION"]

    command = launcher(ScoresStage.STAGE, RuntimeConfig(processes=2))
    ours = command[command.index("launch") + 1 :]
    at = ours.index("--config_file")
    assert seen([*ours[:at], *ours[at + 2 :]]) == ("0,1", "bf16")
    assert seen(ours) == ("6,7", "no")


@pytest.mark.parametrize(("told", "expected"), [(None, "8"), ("3", "3")])
def test_processes_share_the_cores_unless_the_user_says_how_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, expected: str
) -> None:
    """Accelerate by itself leaves one thread to each."""
    monkeypatch.setattr("qaq.host.hardware.cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    script = tmp_path / "say.py"
    script.write_text(
        "import os, pathlib\n"
        "here = pathlib.Path(__file__).with_name('rank' + os.environ['RANK'])\n"
        "here.write_text(os.environ['OMP_NUM_THREADS'])\n"
    )
    launch = launcher(ScoresStage.STAGE, RuntimeConfig(processes=2))
    subprocess.run([*launch, str(script)], check=True, capture_output=True)
    assert [(tmp_path / name).read_text() for name in ("rank0", "rank1")] == [expected] * 2


def test_an_unknown_launch_file_is_named_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"no such file: fsdq; a path or one of: ddp, fsdp, ze"):
        compose(["runtime.accelerate=fsdq"])


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the package deepspeed"
)
def test_a_model_sharded_by_deepspeed_learns_the_same(make_job: MakeJob) -> None:
    """Two processes without a card; the model is in no process whole, not even as it is read."""
    alone = make_job("alone", rows=21, epochs=2)
    stage.run(alone)
    sharded = make_job("sharded", rows=21, epochs=2, runtime=TWO | {"accelerate": "zero3"})
    launch(sharded, (WORKERS, "zero3"))
    assert_same(sharded, alone)
    done = read_json(sharded.out.parent / "done.json")
    assert done["summary"]["processes"] == "2 (DEEPSPEED)"
