"""Embeddings against a plain forward pass per row, and a resumed run against an unbroken one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, OPTConfig

from qaq.embedding import stage
from qaq.evaluation import benchmarks
from qaq.host.errors import DataError
from qaq.host.runtime import RuntimeConfig
from qaq.store.jobs import Job
from qaq.store.tables import EMBEDDED, PAIRS, read_table, write_rows

TEXTS = [
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b\n"),
    ("Reverse a list.", "def reverse(values):\n    return values[::-1]\n"),
    ("x", "y"),
    ("Count the words of a text that has many of them.", "n = len(text.split())\n" * 9),
    ("Say whether a text is a palindrome.", "text == text[::-1]"),
]


@pytest.fixture
def order(tmp_path, tiny_model):
    """A job that embeds the pool, or (with queries) the target queries."""

    def prepare(queries=None, name="run", **config):
        folder = tmp_path / name
        for part in ("pairs", "out", "scratch"):
            (folder / part).mkdir(parents=True)
        rows = [
            {"row_id": f"{i:016x}", "question": q, "answer": a, "source": "t", "defect": None}
            for i, (q, a) in enumerate(TEXTS)
        ]
        write_rows(folder / "pairs" / "pairs.parquet", rows, PAIRS)
        model = {"name": "tiny", "id": str(tiny_model), "dtype": "float32"}
        settings = {"model": model, "system_prompt": None, "max_tokens": 2048, **config}
        return Job(
            kind="embeddings",
            name="test",
            key="0" * 64,
            config=settings | ({"queries": str(queries)} if queries else {}),
            inputs={} if queries else {"pairs": folder / "pairs"},
            out=folder / "out",
            scratch=folder / "scratch",
            runtime=RuntimeConfig(device="cpu", shard_rows=2, token_budget=90),
        )

    return prepare


def vectors(job):
    return np.load(job.out / "rows.npy")


def by_hand(folder, question, answer, limit=None):
    """One row at a time: ChatML written out, last hidden layer, weights 1 to n, length 1."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pieces = ["<|im_start|>user\n", question, "<|im_end|>\n<|im_start|>assistant\n"]
    pieces += [answer, "<|im_end|>"] if answer else []
    ids = [i for piece in pieces for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    ids = ids[:limit]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    mean = sum((i + 1) * state.double() for i, state in enumerate(states))
    return (mean / mean.norm()).numpy()


def test_a_vector_is_the_position_weighted_mean_of_the_last_hidden_layer(order, tiny_model):
    job = order()
    summary = stage.run(job)
    found = vectors(job)
    expected = np.stack([by_hand(tiny_model, *texts) for texts in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert summary == {"rows": 5, "width": found.shape[1], "not_finite": 0}
    names = read_table(job.out / "row_ids.parquet", EMBEDDED)["row_id"].to_pylist()
    assert names == [f"{i:016x}" for i in range(5)]


def test_a_long_pair_is_cut_on_the_right(order, tiny_model):
    job = order(max_tokens=40)
    stage.run(job)
    expected = np.stack([by_hand(tiny_model, *texts, limit=40) for texts in TEXTS])
    np.testing.assert_allclose(vectors(job), expected, atol=1e-5)


def of_kind(folder, tiny_model, config):
    """A random model of this configuration with the tiny model's tokenizer."""
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return {"name": "other", "id": str(folder), "dtype": "float32"}


def test_a_long_pair_is_cut_where_learned_positions_end(order, tiny_model, tmp_path, capsys):
    words = len(AutoTokenizer.from_pretrained(tiny_model))
    shape = {"vocab_size": words, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
    job = order(model=of_kind(tmp_path / "gpt2", tiny_model, GPT2Config(**shape)))
    stage.run(job)
    expected = np.stack([by_hand(tmp_path / "gpt2", *texts, limit=40) for texts in TEXTS])
    np.testing.assert_allclose(vectors(job), expected, atol=1e-5)
    assert "has 40 positions, fewer than selector.max_tokens=2048" in capsys.readouterr().err


def test_a_vector_is_as_wide_as_the_states_are(order, tiny_model, tmp_path):
    """OPT-350m gives narrower ones than its layers have among themselves."""
    words = len(AutoTokenizer.from_pretrained(tiny_model))
    shape = {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    own = OPTConfig(vocab_size=words, word_embed_proj_dim=16, **shape)
    job = order(model=of_kind(tmp_path / "opt", tiny_model, own))
    assert stage.run(job)["width"] == 16 == vectors(job).shape[1]


def test_batches_and_shards_change_nothing(order):
    whole, one = order(name="whole"), order(name="one")
    stage.run(replace(whole, runtime=RuntimeConfig(device="cpu", shard_rows=512)))
    stage.run(replace(one, runtime=RuntimeConfig(device="cpu", shard_rows=1, token_budget=1)))
    np.testing.assert_allclose(vectors(whole), vectors(one), atol=1e-6)


def test_a_resumed_run_makes_only_the_missing_shard(order):
    job = order()
    stage.run(job)
    before = vectors(job)
    (job.out / "rows.npy").unlink()
    middle = stage.shard_path(job.scratch / "shards", 1)
    kept = stage.shard_path(job.scratch / "shards", 0)
    middle.unlink()
    stamp = kept.stat().st_mtime_ns
    stage.run(job)
    assert kept.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(vectors(job), before)


@pytest.mark.parametrize("fault", ["torn", "other rows"])
def test_a_damaged_shard_is_named_and_made_again(order, capsys, fault):
    job = order()
    stage.run(job)
    before = vectors(job)
    shards = job.scratch / "shards"
    bad = stage.shard_path(shards, 1)
    if fault == "torn":
        bad.write_bytes(bad.read_bytes()[:100])
    else:
        bad.write_bytes(stage.shard_path(shards, 0).read_bytes())
    stage.run(job)
    assert str(bad) in capsys.readouterr().err
    np.testing.assert_array_equal(vectors(job), before)


def test_missing_rows_stop_the_stage(order):
    job = order()
    (job.scratch / "shards").mkdir()
    stage.save_shard(job.scratch / "shards", 0, ["a", "b"], np.ones((2, 4), np.float32))
    with pytest.raises(DataError, match="3 of 5 rows have no vector"):
        stage.join(job, job.scratch / "shards", [f"{i:016x}" for i in range(5)])


def test_queries_are_embedded_like_pairs_with_or_without_an_answer(order, tiny_model, tmp_path):
    file = tmp_path / "wanted.jsonl"
    lines = [{"question": "Sort a list."}, {"question": "Add.", "answer": "a + b"}]
    file.write_text("\n".join(json.dumps(line) for line in lines))  # no line break at the end
    job = order(queries=file)
    assert stage.run(job)["rows"] == 2
    expected = [by_hand(tiny_model, "Sort a list.", ""), by_hand(tiny_model, "Add.", "a + b")]
    np.testing.assert_allclose(vectors(job), expected, atol=1e-5)
    names = read_table(job.out / "row_ids.parquet", EMBEDDED)["row_id"].to_pylist()
    assert names == ["wanted/1", "wanted/2"]


def test_a_query_that_is_an_evaluated_problem_stops_the_stage(order, tmp_path):
    file = tmp_path / "leak.jsonl"
    prompt = max((p.prompt for p in benchmarks.load("mini").problems), key=len)
    file.write_text(json.dumps({"question": f"Please: {prompt}"}) + "\n")
    with pytest.raises(DataError, match="1 of 1 queries repeat an evaluated problem"):
        stage.run(order(queries=file, suites=["mini"]))


def test_a_copy_of_mbpp_gives_only_what_nothing_evaluates(order, shared_data, monkeypatch):
    from qaq.embedding.queries import target_queries

    found = target_queries(shared_data / "mbpp" / "mbpp.jsonl", ())
    assert len(found) == 320


def test_mbpp_that_cannot_be_fetched_is_asked_for_in_one_sentence(monkeypatch, tmp_path):
    from qaq.embedding import queries

    monkeypatch.setenv("QAQ_CACHE", str(tmp_path))
    monkeypatch.setattr(queries, "MBPP_URL", (tmp_path / "nothing").as_uri())
    with pytest.raises(DataError, match=r"set selector\.queries=FILE"):
        queries.mbpp_file()


def test_another_file_in_place_of_mbpp_is_refused(monkeypatch, tmp_path):
    from qaq.embedding import queries

    monkeypatch.setenv("QAQ_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mbpp.jsonl"
    file.write_text("{}")
    monkeypatch.setattr(queries, "MBPP_URL", file.as_uri())
    with pytest.raises(DataError, match="expected ccf64ce"):
        queries.mbpp_file()
    assert not list((tmp_path / "cache").glob("*mbpp*"))
