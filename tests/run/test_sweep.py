"""Sweeps on the tiny model: what is shared, what fails, what is compared; real launchers."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from huggingface_hub import constants
from omegaconf import OmegaConf

from qaq.host.errors import ConfigError, UserError
from qaq.run import slurm
from qaq.run import sweep as sweep_module
from qaq.run.pipeline import plan
from qaq.run.stage import in_order
from qaq.run.sweep import jobs_of
from qaq.run.validation import validate
from qaq.store.store import Store

QAQ = [sys.executable, "-m", "qaq.cli"]


def overrides(model: Path, folder: Path) -> list[str]:
    rows = [
        {"instruction": f"Write function {i} for a list of {i * i} numbers.",
         "output": f"def f{i}(x):\n    return x[{i}] + {i * 7}\n"}
        for i in range(24)
    ]  # fmt: skip
    pool = folder / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    roles = [f"models.{role}.{field}" for role in ("strong", "weak", "target")
             for field in (f"id={model}", "chat_template=null", "dtype=float32")]  # fmt: skip
    return [
        *roles, "data=jsonl", f"data.path={pool}", "benchmark.limit=2", "eval.max_new_tokens=4",
        "eval.sandbox=auto", "runtime.device=cpu", "runtime.store=store", "tracking=disabled",
        "ratio=0.5",
    ]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


def qaq(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*QAQ, *arguments], cwd=folder, env=environment(), capture_output=True, text=True,
        check=False, timeout=500,
    )  # fmt: skip


def kinds(store: Path) -> dict[str, int]:
    names = ("pairs", "scores", "subset", "adapter", "outcomes", "report")
    return {name: len(list((store / name).glob("*/manifest.json"))) for name in names}


@pytest.fixture(scope="module")
def swept(tiny_model, tmp_path_factory):
    """Two jobs, one of which cannot succeed: an oracle where nothing is planted."""
    folder = tmp_path_factory.mktemp("sweep")
    command = ["-m", "selector=random,undamaged", "seed=1", *overrides(tiny_model, folder)]
    return folder, command, qaq(folder, "run", *command)


def test_one_bad_job_leaves_the_others_their_comparison_and_is_told_with_its_command(swept):
    folder, _, result = swept
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 of 2 jobs are complete; these are not:" in result.stdout
    told = result.stdout.split("these are not:")[1]
    assert "qaq run selector=undamaged seed=1" in told
    assert "subset undamaged" in told
    assert "To continue, with only what is missing: qaq run -m selector=random,undamaged" in told
    assert "selector=random" not in told.split("To continue")[0]
    [report] = (folder / "store" / "report").glob("*/results.json")
    arms = {arm["name"]: arm["seeds"] for arm in json.loads(report.read_text())["arms"]}
    assert arms["random"] == [1]


def test_the_failure_stands_in_the_status(swept):
    folder, _, _ = swept
    status = qaq(folder, "status", "--store", "store", "--verify")
    assert re.search(r"^subset-\w+: failed at 20", status.stdout, re.M)
    assert "DAMAGED" not in status.stdout


def test_the_same_sweep_again_with_another_seed_runs_only_what_is_new(swept, tiny_model):
    folder, command, _ = swept
    more = ["selector=random" if c.startswith("selector") else c for c in command]
    more = ["seed=1,2" if c == "seed=1" else c for c in more]
    result = qaq(folder, "run", *more)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "sweep of 2 jobs, 1 to run" in result.stdout
    assert kinds(folder / "store") == {
        "pairs": 1, "scores": 0, "subset": 2, "adapter": 2, "outcomes": 3, "report": 2,
    }  # fmt: skip
    newest = max((folder / "store" / "report").glob("*/results.json"), key=os.path.getmtime)
    arms = {arm["name"]: arm["seeds"] for arm in json.loads(newest.read_text())["arms"]}
    assert arms["random"] == [1, 2]  # one arm, its seeds one result
    assert not (folder / "multirun.yaml").exists()
    assert not list(folder.glob("*.log"))


def test_on_failure_stop_ends_the_sweep_at_the_first_failure(swept, tiny_model):
    folder, command, _ = swept
    rest = [c for c in command if not c.startswith(("selector", "seed"))]
    result = qaq(
        folder, "run", *rest, "selector=undamaged,random", "seed=9", "runtime.on_failure=stop"
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 of 2 jobs are complete" in result.stdout
    assert "was not reached" in result.stdout
    assert not list((folder / "store" / "subset").glob("random-*-seed9-*"))


@pytest.mark.slow
def test_two_sweeps_at_once_on_one_store_share_every_stage(tiny_model, tmp_path):
    command = ["run", "-m", "selector=diff_high,random", *overrides(tiny_model, tmp_path)]
    both = [
        subprocess.Popen(
            [*QAQ, *command], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=500)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    built = re.findall(r"^(\w+ +\S+) +ran ", "\n".join(said), re.M)
    assert len(built) == len(set(built))  # nothing was made by both
    assert kinds(tmp_path / "store") == {
        "pairs": 1, "scores": 1, "subset": 2, "adapter": 2, "outcomes": 3, "report": 1,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_training_that_is_told_to_stop_saves_and_ends_with_the_same_adapter(
    tiny_model, tmp_path, processes
):
    runs = {}
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        command = ["run", "selector=full", "train.epochs=60", "train.checkpoint_steps=1000",
                   f"runtime.processes={processes}", *overrides(tiny_model, folder)]  # fmt: skip
        if name == "stopped":
            process = subprocess.Popen([*QAQ, *command], cwd=folder, env=environment())
            record = wait_for(
                lambda at=folder: next(at.glob("store/.work/adapter-*/out/record.jsonl"), None)
            )
            wait_for(lambda at=record: len(at.read_text().splitlines()) > 5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 75
            assert list(
                folder.glob("store/.work/adapter-*/scratch/checkpoints/checkpoint-*/complete")
            )
        result = qaq(folder, *command)
        assert result.returncode == 0, result.stdout + result.stderr
        [adapter] = folder.glob("store/adapter/*/adapter_model.safetensors")
        runs[name] = adapter.read_bytes()
    assert runs["whole"] == runs["stopped"]


@pytest.mark.slow
def test_submitit_s_local_mode_runs_the_sweep_and_queues_a_job_again_after_sigusr2(
    tiny_model, tmp_path
):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    command = ["run", "-m", "hydra/launcher=submitit_local", "selector=random", "seed=1,2",
               *overrides(tiny_model, tmp_path)]  # fmt: skip
    process = subprocess.Popen(
        [*QAQ, *command], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    job = wait_for(lambda: submitit_job(process.pid), seconds=60)
    wait_for(lambda: list(tmp_path.glob("store/.work/*/job.json")), seconds=60)
    job.send_signal(signal.SIGUSR2)
    out, _ = process.communicate(timeout=500)
    logs = "".join(f.read_text() for f in tmp_path.glob("store/.sweep/.submitit/*/*_log.err"))
    logs += "".join(f.read_text() for f in tmp_path.glob("store/.sweep/.submitit/*/*_log.out"))
    assert process.returncode == 0, out + logs
    # a job for what both share, one for each of the sweep; one of them twice
    assert logs.count("Starting with JobEnvironment") == 4
    assert kinds(tmp_path / "store") == {
        "pairs": 1, "scores": 0, "subset": 2, "adapter": 2, "outcomes": 3, "report": 1,
    }  # fmt: skip


def submitit_job(parent: int) -> psutil.Process | None:
    """The process of a job that a local submitit executor runs."""
    for child in psutil.Process(parent).children(recursive=True):
        try:
            if "submitit.core._submit" in child.cmdline():
                return child
        except psutil.Error:
            continue
    return None


def test_slurm_gets_an_array_that_is_signalled_in_time_and_queued_again(tiny_model, tmp_path):
    """With an `sbatch` that keeps the script and submits nothing."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    tools = tmp_path / "bin"
    tools.mkdir()
    keep = f'for f; do :; done; env > {tmp_path}/env; cp "$f" {tmp_path}/script'
    keep += "; echo Submitted batch job 7"
    for name, text in {
        "sbatch": f"#!/bin/sh\n{keep}\n",
        "srun": "#!/bin/sh\n",
        "sacct": "#!/bin/sh\n",
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod((tools / name).stat().st_mode | stat.S_IEXEC)
    command = ["run", "-m", "hydra/launcher=slurm", "hydra.launcher.partition=gpu",
               "hydra.launcher.array_parallelism=2", "selector=random,full", "seed=1,2",
               "untuned=false", *overrides(tiny_model, tmp_path)]  # fmt: skip
    inside = {"SLURM_JOB_ID": "5", "SLURM_MEM_PER_CPU": "4000", "SRUN_DEBUG": "3",
              "SUBMITIT_EXECUTOR": "slurm", "SLURM_CONF": "/etc/slurm.conf"}  # fmt: skip
    inside["PATH"] = f"{tools}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [*QAQ, *command], cwd=tmp_path, env=environment(**inside), stdout=subprocess.DEVNULL
    )
    try:
        script = wait_for(lambda: (tmp_path / "script").exists() and (tmp_path / "script"), 60)
        time.sleep(0.2)
        lines = script.read_text().splitlines()
    finally:
        process.kill()
        process.wait()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"array=0-3%2", "partition=gpu", "signal=USR2@300", "requeue", "open-mode=append",
            "gpus-per-node=1", "time=720", "mem=128GB", "job-name=qaq"} <= asked  # fmt: skip
    started = [line.startswith("srun ") and "submitit.core._submit" in line for line in lines]
    cores = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'
    assert lines.index(cores) < started.index(True)
    handed = (tmp_path / "env").read_text().splitlines()
    ours = ("SLURM_", "SRUN_", "SUBMITIT_")  # of the job in which the sweep itself was started
    assert [line for line in handed if line.startswith(ours)] == ["SLURM_CONF=/etc/slurm.conf"]


@pytest.mark.parametrize("job", [None, "5"])
def test_a_job_s_own_variables_are_there_again_when_the_others_have_ended(
    monkeypatch, tmp_path, job
):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "4000")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    before = dict(os.environ)
    with slurm.submitting():
        assert ("SLURM_MEM_PER_CPU" in os.environ) == (job is None)
    assert dict(os.environ) == before


def test_where_no_job_can_be_handed_to_slurm_that_is_one_sentence(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    more = ["hydra/launcher=slurm", "selector=random", "seed=1,2", f"runtime.store={tmp_path}"]
    with pytest.raises(UserError, match=r"sbatch is not here; start this on a login node"):
        sweep_module.sweep(more, lambda _: None, lambda _: "5 stages")


def test_an_interrupted_wait_says_that_what_was_submitted_goes_on(monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(KeyboardInterrupt), slurm.submitting():
        raise KeyboardInterrupt
    assert "Jobs that were handed to Slurm go on" in capsys.readouterr().err


# Every state of squeue(1) and sacct(1)
ENDED = ["BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED",
         "TIMEOUT", "CANCELLED by 1000", "CANCELLED+"]  # fmt: skip
GOING_ON = ["COMPLETING", "CONFIGURING", "LAUNCH_FAILED", "PENDING", "POWER_UP_NODE",
            "RECONFIG_FAIL", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD",
            "RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED",
            "UPDATE_DB", "UNKNOWN", ""]  # fmt: skip


@pytest.mark.parametrize(
    ("states", "done"),
    [
        *(([state], True) for state in ENDED),
        *(([state] * 20, False) for state in GOING_ON),
        (["PREEMPTED"], False),
        (["PREEMPTED"] * 6, True),  # by a cluster that cancels what it preempts
        (["PREEMPTED"] * 5 + ["PENDING", "PREEMPTED"], False),  # and by one that queues it again
        (["NODE_FAIL"] * 2 + ["RUNNING"] * 9, False),
        (["NODE_FAIL"] * 6, True),
    ],
)
def test_a_job_is_waited_for_in_every_state_in_which_it_has_not_ended(states, done):
    watching = pytest.importorskip("submitit.slurm.slurm", reason="needs the extra slurm")
    before = watching.SlurmInfoWatcher.is_done
    with slurm.patient():
        watcher = watching.SlurmInfoWatcher()
        watcher.register_job("7_0")
        for state in states:
            said = f"JobID|State|NodeList\n7_0|{state}|n1\n"
            watcher._make_command = lambda said=said: ["printf", "%s", said]
            watcher.update()
            ended = watcher.is_done("7_0", mode="cache")
        assert ended == done
    assert watching.SlurmInfoWatcher.is_done is before


@pytest.mark.parametrize("swept", ["seed=range(3,3)", "selector=random seed=range(2,2)"])
def test_a_sweep_over_no_value_is_refused(swept):
    with pytest.raises(ConfigError, match=r"seed=range\(\d,\d\): it is swept, over no value"):
        jobs_of(swept.split())


def test_a_launcher_that_is_not_installed_is_named_with_its_command(monkeypatch):
    from qaq.host.errors import ConfigError
    from qaq.run.sweep import check_launcher

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install hydra-submitit-launcher"):
        check_launcher(["hydra/launcher=slurm", "seed=1,2"])
    check_launcher(["hydra/launcher=basic"])


def wait_for(found, seconds: float = 120):
    """The first true value of `found()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_what_several_jobs_need_is_known_before_they_start(tiny_model, other_tiny_model, tmp_path):
    more = overrides(tiny_model, tmp_path)
    more += [f"models.weak.id={other_tiny_model}", f"runtime.store={tmp_path}/store"]
    jobs = jobs_of(["selector=rmi_band,random,diff_high", *more])
    first = sweep_module.shared_first(jobs)
    shared = {key: stage for job in jobs for stage in job.stages for key in (stage.key,)}
    assert sorted(shared[key].kind for key in first) == ["outcomes", "scores"]
    assert all("models.strong.dtype=float32" in overrides for overrides in first.values())
    assert not sweep_module.shared_first(jobs[:1])


@pytest.mark.parametrize("fails", [None, "synthesis", "scores"])
def test_what_several_jobs_need_is_made_from_the_bottom_up(
    monkeypatch, tiny_model, other_tiny_model, tmp_path, fails
):
    """A pool that models write lies under two score tables: one job makes it, none waits for it.

    What rests on a stage that failed is not handed over.
    """
    models = {"strong": tiny_model, "weak": other_tiny_model, "target": tiny_model}
    writers = {"questioner": tiny_model, "answerers.strong.model": tiny_model,
               "answerers.weak.model": other_tiny_model}  # fmt: skip
    places = {f"models.{role}": model for role, model in models.items()}
    places |= {f"data.synthesis.{role}": model for role, model in writers.items()}
    more = [f"{place}.{text}" for place, model in places.items()
            for text in (f"id={model}", "chat_template=null", "dtype=float32")]  # fmt: skip
    made, waves = set(), []
    left = lambda job: [s for s in job.stages[:-1] if s.key not in made]  # noqa: E731

    def launch(handed, launcher):
        only = re.findall(r"runtime\.only=\['(\w+)'\]", " ".join(map(" ".join, handed)))
        kinds = {s.key: s.kind for job in jobs for s in job.stages}
        waves.append(sorted(kinds[key] for key in only) if only else len(handed))
        for job in jobs:
            for top in job.stages[:-1]:
                below = [] if top.key not in only else in_order([top])
                made.update(s.key for s in below if kinds[top.key] != fails)

    monkeypatch.setattr(sweep_module, "missing", left)
    monkeypatch.setattr(sweep_module, "_launch", launch)
    command = ["hydra/launcher=slurm", "data=synthetic", "selector=diff_high,ifd_cherry,random",
               "untuned=false", f"runtime.store={tmp_path}", *more]  # fmt: skip
    jobs = jobs_of(command)
    monkeypatch.setattr(sweep_module, "jobs_of", lambda _: jobs)
    monkeypatch.setattr(sweep_module, "combine", lambda _: [])
    monkeypatch.setattr(sweep_module, "_what_is_missing", lambda _: "")
    sweep_module.sweep(command, lambda _: None, lambda _: "")
    assert waves == {None: [["synthesis"], ["scores"], 3], "synthesis": [["synthesis"]],
                     "scores": [["synthesis"], ["scores"], 1]}[fails]  # fmt: skip


def as_launched(job):
    """The configuration of a job as a launcher composes it."""
    composed = {}

    def one_job(tree):
        composed.update(OmegaConf.to_container(tree, resolve=True))

    sweep_module.one_job, before = one_job, sweep_module.one_job
    try:
        sweep_module._launch([sweep_module._handed(job)], [])
    finally:
        sweep_module.one_job = before
    return validate(sweep_module.tree_of(composed))


def test_a_model_that_is_used_in_two_precisions_has_each_in_its_place(tiny_model, tmp_path):
    """The float32 twin of the weak scorer, which is of the same name and id."""
    more = [text for text in overrides(tiny_model, tmp_path) if "dtype" not in text]
    more += [f"models.{role}.dtype=bfloat16" for role in ("strong", "weak", "target")]
    [job] = jobs_of(["experiment=planted_noise", "study.twins=[weak]", *more])
    assert [stage.key for stage in plan(as_launched(job))] == [stage.key for stage in job.stages]


def test_two_revisions_of_one_model_stay_two(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    scorer = "{{id: some/model, revision: {0}, dtype: bfloat16}}"
    arms = [
        f"+arms.{arm}={{selector: {{method: rmi_band, low: 0.5, high: 0.75}}, "
        f"strong: {scorer.format(revision * 40)}}}"
        for arm, revision in (("one", "a"), ("two", "b"))
    ]
    [job] = jobs_of([*arms, *overrides(tiny_model, tmp_path)])
    assert sum(stage.kind == "scores" for stage in job.stages) == 2
    assert [s.key for s in plan(as_launched(job))[:-1]] == [s.key for s in job.stages[:-1]]


def test_a_launcher_composes_the_job_that_was_planned(tiny_model, tmp_path):
    """Also where a model's id is another than its preset's, of which nothing may stay then."""
    pool = overrides(tiny_model, tmp_path)
    bare = [text for text in pool if "chat_template" not in text and "dtype" not in text]
    [job] = jobs_of(["selector=random", "model@models.strong=gemma3_270m", *bare])
    assert job.config.models.strong.chat_template is None
    there = as_launched(job)
    made, planned = (plan(config)[:-1] for config in (there, job.config))  # a job makes no report
    assert [stage.key for stage in made] == [stage.key for stage in planned]
    assert there.models.target.name == job.config.models.target.name


def test_a_job_that_another_command_is_making_is_left_for_later(tiny_model, tmp_path):
    more = [*overrides(tiny_model, tmp_path), f"runtime.store={tmp_path}/store"]
    [job] = jobs_of(["selector=random", *more])
    assert not sweep_module.in_work(job)
    first = job.stages[0]
    with Store(tmp_path / "store").lock(first.kind, first.key):
        assert sweep_module.in_work(job)


@pytest.mark.parametrize(("swept", "fixed"), [("seed=1,2", "seeds"), ("ratio=0.1,0.2", "ratios")])
def test_a_swept_field_that_the_experiment_overrules_is_refused(swept, fixed):
    with pytest.raises(ConfigError, match=f"add {fixed}=null"):
        jobs_of(["experiment=ratio_sweep", swept])
    assert len(jobs_of(["experiment=ratio_sweep", swept, f"{fixed}=null"])) == 2


def test_what_a_sweep_has_made_and_will_read_is_leased_between_its_jobs(monkeypatch, tmp_path):
    sweeping = ["selector=random", "seed=1,2", f"runtime.store={tmp_path}"]
    found = []

    def launch(jobs, overrides):
        found.append(Store(tmp_path).leased())

    monkeypatch.setattr("qaq.run.sweep._launch", launch)
    assert sweep_module.sweep(sweeping, lambda _: None, lambda configs: "5 stages") == 1
    needed = {stage.key for job in jobs_of(sweeping) for stage in job.stages}
    assert len(found) == 2 and all(needed <= leased for leased in found)
    assert Store(tmp_path).leased() == set()


def test_each_job_of_a_sweep_is_planned_once(monkeypatch, tmp_path):
    counted = []

    def counting(config):
        counted.append(config.seed)
        return plan(config)

    monkeypatch.setattr("qaq.run.pipeline.plan", counting)
    monkeypatch.setattr("qaq.run.sweep._launch", lambda jobs, overrides: None)
    lines = []
    overrides = ["selector=random", "seed=1,2", f"runtime.store={tmp_path}"]
    assert sweep_module.sweep(overrides, lines.append, lambda configs: "5 stages") == 1
    assert "sweep of 2 jobs, 2 to run" in lines[0]
    assert counted == [1, 2]
