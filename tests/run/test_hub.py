"""What comes from the Hub, against a Hub on this machine: one commit, whole files, plain errors."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from huggingface_hub import constants
from tests.hub import Fault, serving
from tests.hub_models import DEEPSEEK, MAGPIE, QWEN3, WARRIOR, fill, qwen

from qaq.data import identity as data
from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.identity import identity, pinned
from qaq.models.load import load_model, load_tokenizer
from qaq.run.compose import compose
from qaq.run.fetch import fetch
from qaq.run.pipeline import Run
from qaq.selection.rules import scar
from qaq.store import hub as store_hub

PAPER = [
    "scale=paper", "runtime.device=cpu", "runtime.token_budget=2048", "seeds=[1]",
    "train.cutoff_tokens=256", "train.epochs=1", "train.batch_size=16", "tracking=disabled",
    "benchmark.limit=4", "eval.max_new_tokens=8", "eval.sandbox=auto", "runtime.judge_workers=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with serving(folder / "served") as hub:
        fill(hub, folder / "work", rows=48)
        yield hub


@pytest.fixture
def cache(hub, monkeypatch, tmp_path):
    """This process as a client of that Hub; gives a function that empties its cache."""
    hub.fault, hub.asked = Fault(), []
    monkeypatch.setattr(store_hub, "WAITS", (0.05, 0.05))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    def use(name: str, offline: bool = False) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / name))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        store_hub.commit.cache_clear()

    use("own")
    yield use
    store_hub.commit.cache_clear()


def key_and_weights(name: str, template: str | None = None) -> tuple[str, float]:
    """What the key says of the model, and a sum over what is loaded; as a run and its stage do."""
    model = pinned(ModelConfig(id=name, dtype="float32", chat_template=template))
    key = identity(model)["weights"]
    return key, loaded(model)


def loaded(model: ModelConfig) -> float:
    store_hub.commit.cache_clear()  # a stage is a process of its own
    load_tokenizer(model)
    table = load_model(model, "cpu").get_input_embeddings().weight
    return table.double().sum().item()


def refused(name: str, template: str | None = None) -> str:
    with pytest.raises(ModelError) as found:
        key_and_weights(name, template)
    return str(found.value)


def test_the_paper_s_models_load_with_their_true_tokenizer_classes(cache):
    assert key_and_weights(DEEPSEEK, "deepseek_coder")[0] == f"{DEEPSEEK}@{'d' * 40}"
    assert key_and_weights(QWEN3)[0] == f"{QWEN3}@{'1' * 40}"


def test_the_weights_are_of_the_commit_that_the_key_names_though_main_moves(hub, cache, tmp_path):
    before = key_and_weights(QWEN3)
    cache("planned")
    model = pinned(ModelConfig(id=QWEN3, dtype="float32"))
    hub.put("models", QWEN3, "9" * 40, qwen(tmp_path / "moved", seed=77))
    try:
        assert (identity(model)["weights"], loaded(model)) == before
        assert key_and_weights(QWEN3) == before  # the cache goes on with what it began with
        cache("later")
        moved = key_and_weights(QWEN3)
        assert moved[0].endswith("9" * 40) and moved[1] != before[1]
    finally:
        (hub.root / "models" / QWEN3 / "main").write_text("1" * 40)


def test_a_pool_is_of_the_commit_that_its_key_names_though_main_moves(hub, cache, tmp_path):
    source = DataConfig(name="w", source="hub", hub_id=WARRIOR)
    planned = data.pinned(source)
    (tmp_path / "other").mkdir()
    hub.put("datasets", WARRIOR, "c" * 40, tmp_path / "other")
    try:
        store_hub.commit.cache_clear()
        assert data.identity(planned)["revision"] == data.hub_revision(planned) == "a" * 40
        assert data.identity(source)["revision"] == "c" * 40
    finally:
        (hub.root / "datasets" / WARRIOR / "main").write_text("a" * 40)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("401", ["is gated (401)", f"https://huggingface.co/{QWEN3}", "set HF_TOKEN"]),
        ("403", ["is gated (403)", f"https://huggingface.co/{QWEN3}", "HF_TOKEN must be"]),
        ("404", ["cannot be found on the Hub", "local folder", "HF_TOKEN"]),
        ("429", ["the Hub answered 429 on every try", "run the same command later"]),
        ("503", ["the Hub answered 503 on every try"]),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_with_a_cure(hub, cache, kind, words):
    hub.fault = Fault(kind, 10_000)
    said = refused(QWEN3)
    assert all(word in said for word in words), said
    assert "\n" not in said


@pytest.mark.parametrize(
    "fault",
    [
        Fault("429", 2, "/api/models"),
        Fault("503", 2, "/api/models"),
        Fault("503", 2, "model.safetensors"),
        Fault("cut", 1, "model.safetensors"),
        Fault("cut", 1, "tokenizer.json"),
        Fault("slow", 2, "", seconds=0.5),
    ],
    ids=lambda fault: f"{fault.kind} {fault.match}".strip(),
)
def test_a_busy_hub_is_asked_again_and_the_files_are_whole(hub, cache, fault):
    whole = key_and_weights(QWEN3)
    cache("under fire")
    hub.fault = replace(fault)
    assert key_and_weights(QWEN3) == whole
    assert hub.fault.times == 0


def test_offline_afterwards_gives_the_same_and_asks_nothing(hub, cache):
    before = key_and_weights(QWEN3)
    hub.asked.clear()
    assert key_and_weights(QWEN3) == before
    assert not hub.asked  # local files only, once they are here
    cache("own", offline=True)
    assert key_and_weights(QWEN3) == before
    assert "HF_HUB_OFFLINE is set" in refused(DEEPSEEK, "deepseek_coder")


def test_a_download_that_was_ended_in_the_middle_is_not_taken_for_the_model(hub, cache):
    whole = key_and_weights(DEEPSEEK, "deepseek_coder")
    cache("partial")
    hub.fault = Fault("404", 10_000, "model-00002")
    refused(DEEPSEEK, "deepseek_coder")
    hub.fault = Fault()
    cache("partial", offline=True)
    assert "not whole in the local cache" in refused(DEEPSEEK, "deepseek_coder")
    cache("partial")
    assert key_and_weights(DEEPSEEK, "deepseek_coder") == whole


def test_what_an_experiment_needs_is_listed_with_size_and_licence_before_it_is_fetched(
    hub, cache, monkeypatch, shared_data
):
    overrides = ["experiment=transfer_magpie", *PAPER, *benchmark(shared_data)]
    run = Run(compose(overrides))
    said = []
    monkeypatch.setattr(sources, "read", lambda data: [said.append(data.commit)])
    fetch(run, said.append, only_list=True)
    assert not any("safetensors" in path for path in hub.asked if path.startswith("GET"))
    page = "\n".join(said)
    size = sum(f.stat().st_size for f in (hub.root / "models" / QWEN3 / ("1" * 40)).iterdir())
    assert f"{size / 1e6:,.1f} MB" in page
    assert re.search(rf"data set {MAGPIE} +bbbbbbbb .*cc-by-nc-4\.0", page)
    assert re.search(rf"model {DEEPSEEK} +dddddddd .*not said", page)
    fetch(run, said.append, only_list=False)
    assert "b" * 40 in said
    cache("own", offline=True)
    assert key_and_weights(QWEN3)[0].endswith("1" * 40)
    key_and_weights(DEEPSEEK, "deepseek_coder")


def ranker(hub, folder, commit: str, said: bytes):
    """SCAR's ranker and its encoder as the Hub has them, without tensors."""
    for name, settings in (("ranker", {"encoder_name": "own/encoder"}), ("encoder", {})):
        place = folder / f"{name}-{commit}"
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(settings))
        (place / "pytorch_model.bin").write_bytes(said)
        (place / "model.safetensors").write_bytes(said)
        hub.put("models", f"own/{name}", commit * 40, place)


def test_scar_s_ranker_and_encoder_are_of_the_commits_that_the_key_names(hub, cache, tmp_path):
    def subset():
        run = Run(compose(["selector=scar", "selector.weights=own/ranker", "train=none"]))
        return run, next(stage for stage in run.stages if stage.kind == "subset")

    ranker(hub, tmp_path / "old", "3", b"old")
    run, planned = subset()
    assert planned.fingerprints == {
        f"scar/{part}": f"own/{part}@{'3' * 40}" for part in ("ranker", "encoder")
    }
    said = []
    fetch(run, said.append, only_list=False)
    assert {"fetching model own/ranker", "fetching model own/encoder"} <= set(said)
    ranker(hub, tmp_path / "new", "4", b"new")
    cache("another")  # as on a node that has seen only what came later
    again = scar.fetched(planned.config.selector)
    assert [(folder / "model.safetensors").read_bytes() for folder in again[1:]] == [b"old"]
    assert (again[0] / "pytorch_model.bin").read_bytes() == b"old"
    assert subset()[1].key != planned.key
    hub.asked.clear()
    cache("own", offline=True)
    assert subset()[1].key == planned.key and planned.changed() == []
    assert (scar.fetched(planned.config.selector)[0] / "pytorch_model.bin").read_bytes() == b"old"
    assert not hub.asked


@pytest.fixture
def client(hub, tmp_path):
    """The environment of a process that is a client with an empty cache."""
    hub.fault, hub.asked = Fault(), []
    return os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


READ = """
import sys
from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.store import hub
hub.WAITS = (0.05, 0.05)
pool = DataConfig(name="w", source="hub", hub_id=sys.argv[1], revision="a" * 40)
print(len(list(sources.read(pool))))
"""


@pytest.mark.parametrize(("kind", "times"), [("429", 2), ("503", 2), ("503", 10_000)])
def test_a_busy_hub_is_asked_again_for_a_data_set_too(hub, client, tmp_path, kind, times):
    hub.fault = Fault(kind, times, "/api/datasets")
    done = subprocess.run(
        [sys.executable, "-c", READ, WARRIOR], env=client, cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "the Hub is busy; asking again" in done.stderr
    if times > 2:
        assert "DataError: cannot load split 'train' of the data set" in done.stderr
    else:
        assert done.stdout.split() == ["48"], done.stderr


def qaq(client, folder, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "qaq.cli", *arguments], env=client, cwd=folder,
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def test_a_gpu_that_is_not_here_is_refused_before_anything_is_downloaded(hub, client, tmp_path):
    overrides = [o for o in PAPER if o != "runtime.device=cpu"]
    done = qaq(client, tmp_path, "run", "experiment=table1_main", *overrides)
    assert done.returncode == 2
    assert "runtime.device=cuda" in done.stderr and "runtime.device=cpu" in done.stderr
    assert not hub.asked


def benchmark(shared) -> list[str]:
    folder = shared / "evalplus"
    return [
        f"benchmark.files.humaneval={folder}/HumanEvalPlus.jsonl",
        f"benchmark.files.mbpp={folder}/MbppPlus.jsonl",
    ]


def run_to_the_report(hub, client, folder, shared, experiment: str, pool: str, commit: str):
    overrides = [f"experiment={experiment}", *PAPER, *benchmark(shared)]
    fetched = qaq(client, folder, "fetch", *overrides)
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    hub.asked.clear()
    command = ["run", *overrides]
    done = qaq(client | {"HF_HUB_OFFLINE": "1"}, folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    [report] = (folder / "artifacts" / "report").glob("*/results.json")
    tree = json.loads(report.read_text())
    [pairs] = (folder / "artifacts" / "pairs").glob("*/manifest.json")
    manifest = json.loads(pairs.read_text())
    assert manifest["outside"]["revision"] == commit * 40
    assert manifest["config"]["data"]["hub_id"] == pool
    scores = (folder / "artifacts" / "scores").glob("*/manifest.json")
    named = {json.loads(file.read_text())["outside"]["weights"] for file in scores}
    assert named <= {f"{DEEPSEEK}@{'d' * 40}", f"{QWEN3}@{'1' * 40}"}
    assert not hub.asked
    return tree


@pytest.mark.slow
def test_table1_runs_from_the_hub_to_the_report(hub, client, tmp_path, shared_data):
    tree = run_to_the_report(hub, client, tmp_path, shared_data, "table1_main", WARRIOR, "a")
    names = {arm["name"] for arm in tree["arms"]}
    assert names == {"untuned", "full", "random", "rmi_top50", "rmi_band_50_75", "ifd"}


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("experiment", "pool", "commit"),
    [("table2_disagreement", WARRIOR, "a"), ("transfer_magpie", MAGPIE, "b")],
)
def test_the_other_tables_run_from_the_hub_to_the_report(
    hub, client, tmp_path, shared_data, experiment, pool, commit
):
    tree = run_to_the_report(hub, client, tmp_path, shared_data, experiment, pool, commit)
    assert {"full", "random", "diff_high"} <= {arm["name"] for arm in tree["arms"]}
