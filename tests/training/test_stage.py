"""The whole stage on a tiny model: what it writes, and that no machine shows in it."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconH1Config,
    Gemma3Config,
    GPT2Config,
    Trainer,
)
from transformers.pytorch_utils import Conv1D

from qaq.host.errors import DataError, ModelError, StageError
from qaq.models import licence
from qaq.models.config import ModelConfig
from qaq.models.identity import identity
from qaq.models.load import load_tokenizer
from qaq.models.template import chat_template
from qaq.store.jobs import Job
from qaq.store.tables import read_json, read_jsonl
from qaq.training import guards, stage, trainer

MakeJob = Callable[..., Job]
ADAPTER = "adapter_model.safetensors"


def losses(job: Job) -> list[float]:
    return [line["loss"] for line in read_jsonl(job.out / "training.jsonl")]


def test_the_adapter_holds_what_the_contract_says(make_job: MakeJob, tiny_model: Path) -> None:
    job = make_job(rows=20, kept=lambda i: i % 2 == 0, epochs=4)
    summary = stage.run(job)
    assert summary["rows"] == 10
    assert summary["steps"] == 8
    lines = list(read_jsonl(job.out / "training.jsonl"))
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert summary["tokens"] == sum(line["tokens"] for line in lines)
    wanted = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_mib"}
    assert all(wanted <= set(line) for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1
    record = list(read_jsonl(job.out / "record.jsonl"))
    assert [line["loss"] for line in record] == losses(job)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, job.out)
    assert sum(p.numel() for p in adapted.parameters()) == sum(
        summary[kind] for kind in ("trainable", "frozen")
    )


def test_the_prompt_is_the_one_that_evaluation_will_ask_with(make_job: MakeJob) -> None:
    job = make_job(rows=4)
    stage.run(job)
    prompt = read_json(job.out / "prompt.json")
    model = ModelConfig(**job.config["model"])
    template = chat_template(load_tokenizer(model), model, "You write Python.")
    assert prompt["template_sha"] == template.sha
    assert prompt["system_prompt"] == "You write Python."
    assert prompt["examples"][0]["prompt"].startswith("<|im_start|>system\nYou write Python.")
    assert prompt["examples"][0]["response"].endswith("<|im_end|>")


def test_the_card_names_the_base_model_by_its_hash_and_no_path_is_published(
    make_job: MakeJob, tiny_model: Path
) -> None:
    job = make_job(rows=4)
    job.config["model"]["name"] = "small-llama"
    stage.run(job)
    text = (job.out / "README.md").read_text()
    assert "small-llama" in text
    weights = identity(ModelConfig(name="tiny", id=str(tiny_model)))["weights"]
    assert f"| Base model, weights | `{weights}` |" in text
    assert not (job.out / "training_args.bin").exists()


def test_the_base_models_licence_travels_with_the_adapter(
    make_job: MakeJob, tiny_model: Path
) -> None:
    job = make_job(rows=4)
    own = job.out.parent / "base"
    shutil.copytree(tiny_model, own)
    (own / "LICENSE.md").write_text("Do as you like.")
    job.config["model"]["id"] = str(own)
    stage.run(job)
    assert (job.out / "LICENSE.md").read_text() == "Do as you like."
    assert "beside this card: LICENSE.md" in (job.out / "README.md").read_text()


@pytest.mark.parametrize(("kind", "named"), [("gemma3_text", True), ("gemma4", False)])
def test_an_adapter_of_gemma_carries_the_notice_that_its_terms_ask_for(
    tiny_model: Path, tmp_path: Path, kind: str, named: bool
) -> None:
    hub, text = licence.of_adapter(ModelConfig(id=str(tiny_model)), kind, tmp_path)
    assert (hub == "gemma") is named
    assert ("Gemma Terms of Use found at" in " ".join(text)) is named
    assert (tmp_path / "NOTICE").exists() is named


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_the_loss_curve_does_not_depend_on_the_micro_batch(
    make_job: MakeJob, micro_batch: int
) -> None:
    """20 rows in batches of 8: the last window of each epoch is partial."""
    whole = make_job("whole", rows=20, epochs=3, runtime={"micro_batch": 8})
    stage.run(whole)
    parts = make_job("parts", rows=20, epochs=3, runtime={"micro_batch": micro_batch})
    stage.run(parts)
    assert len(losses(whole)) == 9
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    one, two = load_file(whole.out / ADAPTER), load_file(parts.out / ADAPTER)
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-4)


def test_the_same_job_gives_the_same_bytes_and_another_seed_does_not(make_job: MakeJob) -> None:
    runs = [make_job(f"run{i}", rows=12, seed=seed) for i, seed in enumerate((1, 1, 2))]
    summaries = [stage.run(job) for job in runs]
    first, second, third = ((job.out / ADAPTER).read_bytes() for job in runs)
    assert first == second
    assert first != third
    assert summaries[0]["seed_order"] != summaries[2]["seed_order"]


def test_gradient_checkpointing_saves_activations_and_changes_nothing(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    passes = []
    own = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda *args: passes.append(None) or own(*args))
    plain = make_job("plain", rows=16)
    stage.run(plain)
    once = len(passes)
    thrifty = make_job("thrifty", rows=16, gradient_checkpointing=True)
    stage.run(thrifty)
    assert len(passes) - once == once + 4  # two layers, two steps: each layer's forward again
    assert losses(thrifty) == losses(plain)
    assert (thrifty.out / ADAPTER).read_bytes() == (plain.out / ADAPTER).read_bytes()


def test_bfloat16_weights_follow_the_float32_curve_and_the_adapter_stays_float32(
    make_job: MakeJob,
) -> None:
    exact = make_job("exact", rows=20, epochs=4)
    stage.run(exact)
    runs = [make_job(name, rows=20, epochs=4) for name in ("coarse", "again")]
    for job in runs:
        job.config["model"]["dtype"] = "bfloat16"
        stage.run(job)
    assert losses(runs[0]) != losses(exact)
    assert losses(runs[0]) == pytest.approx(losses(exact), abs=0.02)
    assert {t.dtype for t in load_file(runs[0].out / ADAPTER).values()} == {torch.float32}
    first, second = ((job.out / ADAPTER).read_bytes() for job in runs)
    assert first == second


def test_a_model_that_got_other_adapters_than_expected_is_refused(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = peft.LoraConfig

    def fewer(**settings: Any) -> Any:
        return real(**(settings | {"target_modules": ["q_proj"]}))

    monkeypatch.setattr(peft, "LoraConfig", fewer)
    with pytest.raises(StageError, match=r"the adapters have \{'trainable': \d+.*expected"):
        stage.run(make_job(rows=4))


def test_rows_are_found_by_id_and_not_by_position(make_job: MakeJob) -> None:
    import pyarrow.parquet as pq

    one, two = make_job("one", rows=12), make_job("two", rows=12)
    for role, file in (("pairs", "pairs.parquet"), ("subset", "rows.parquet")):
        path = two.inputs[role] / file
        table = pq.read_table(path)
        order = list(range(12))[::-1] if role == "pairs" else [*range(6, 12), *range(6)]
        pq.write_table(table.take(order), path)
    stage.run(one)
    stage.run(two)
    assert (one.out / ADAPTER).read_bytes() == (two.out / ADAPTER).read_bytes()


def test_long_rows_are_cut_and_counted(make_job: MakeJob) -> None:
    pairs = [("Short?", "yes\n"), ("Long?", "x = 1\n" * 200)]
    summary = stage.run(make_job(pairs=pairs, cutoff_tokens=64))
    assert summary["truncated"] == 1
    assert summary["rows"] == 2


def test_refused_rows_are_listed_with_their_reason(make_job: MakeJob) -> None:
    job = make_job(pairs=[("Q?", "a\n"), ("Q?", "")])
    summary = stage.run(job)
    assert summary["refused"] == 1
    (refused,) = read_jsonl(job.out / "refused.jsonl")
    assert refused == {"row_id": f"{1:016x}", "reason": "the answer has no tokens"}


def test_an_empty_subset_is_a_mistake_of_the_users(make_job: MakeJob) -> None:
    with pytest.raises(DataError, match="nothing to train on: 0 rows"):
        stage.run(make_job(rows=4, kept=lambda i: False))


def test_a_subset_of_other_pairs_is_refused(make_job: MakeJob) -> None:
    job, other = make_job("job", rows=4), make_job("other", rows=6)
    job.inputs["subset"] = other.inputs["subset"]
    with pytest.raises(DataError, match="2 rows that are not among the pairs"):
        stage.run(job)


def test_match_tokens_gives_a_quarter_the_tokens_of_the_whole(make_job: MakeJob) -> None:
    full = stage.run(make_job("full", rows=32, match="tokens"))
    quarter = make_job("quarter", rows=32, kept=lambda i: i < 8, share=0.25, match="tokens")
    summary = stage.run(quarter)
    biggest = max(line["tokens"] for line in read_jsonl(quarter.out / "training.jsonl"))
    assert full["tokens"] <= summary["tokens"] < full["tokens"] + biggest
    assert summary["rows"] == 8


def test_out_of_memory_halves_the_micro_batch_and_changes_nothing(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_job("plain", rows=16, epochs=2)
    stage.run(plain)
    real = trainer.pack
    sizes = []

    def limited(examples: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(examples))
        if len(examples) > 3 or len(sizes) == 4:  # also once in the middle of a window
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(examples, *args, **kwargs)

    monkeypatch.setattr(trainer, "pack", limited)
    short = make_job("short", rows=16, epochs=2)
    stage.run(short)
    assert sizes[:4] == [8, 4, 2, 2]
    assert max(sizes[4:]) <= 2
    assert losses(short) == pytest.approx(losses(plain), abs=1e-5)


def test_out_of_memory_on_a_single_row_says_what_to_do(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "pack", never)
    with pytest.raises(StageError, match=r"single row of \d+ tokens; lower train\.cutoff"):
        stage.run(make_job(rows=8))


def test_other_runtime_errors_are_not_taken_for_full_memory(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(trainer, "pack", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        stage.run(make_job(rows=8))


def test_a_loss_that_diverges_stops_the_stage_and_names_step_and_rows(make_job: MakeJob) -> None:
    job = make_job(rows=32, learning_rate=1e5, max_grad_norm=1e9, warmup_ratio=0, epochs=3)
    with pytest.raises(StageError, match=r"step \d+: the loss is .* nats per token") as error:
        stage.run(job)
    assert f"{0:016x}"[:14] in str(error.value)
    assert not (job.out / ADAPTER).exists()


def test_a_loss_that_is_no_number_stops_the_stage(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qaq.training import packed

    real, prepare = packed.target_nll, packed.prepare
    calls = []

    def poisoned(*args: Any) -> Any:
        calls.append(None)
        nll = real(*args)
        return nll * math.nan if len(calls) == 2 else nll

    def then_poisoned(model: Any) -> Any:
        found = prepare(model)
        monkeypatch.setattr(packed, "target_nll", poisoned)
        return found

    monkeypatch.setattr(packed, "prepare", then_poisoned)
    with pytest.raises(StageError, match="step 2: the loss is nan"):
        stage.run(make_job(rows=16))


def test_a_loss_that_rises_stops_the_stage_and_names_step_and_rows(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "STEPS", 2)
    job = make_job(rows=40, epochs=8, learning_rate=1e-9, loss_rise=1e-9)  # chance is enough
    with pytest.raises(StageError, match=r"step \d+: the loss rises: .* worst first: 0{14}"):
        stage.run(job)
    assert not (job.out / ADAPTER).exists()


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2}
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 28}
EYES |= {"num_attention_heads": 2, "patch_size": 14}
OTHERS: dict[str, Callable[[int], Any]] = {
    "gpt2": lambda words: GPT2Config(
        vocab_size=words, n_embd=32, n_layer=2, n_head=4, n_positions=100
    ),
    "falcon_h1": lambda words: FalconH1Config(
        **SMALL,
        vocab_size=words,
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        mamba_n_groups=1,
    ),
    "gemma3": lambda words: Gemma3Config(
        text_config={**SMALL, "vocab_size": words, "sliding_window": 16},
        vision_config=EYES,
        mm_tokens_per_image=1,
        image_token_index=3,
        boi_token_index=4,
        eoi_token_index=5,
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_learn_in_every_linear_layer_that_may_have_an_adapter(
    make_job: MakeJob,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path / kind)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(OTHERS[kind](len(tokenizer)))
    model.save_pretrained(tmp_path / kind)
    pairs = [("Add.", "a + b"), ("Count.", "len(x)" * 20)]
    job = make_job(pairs=pairs, epochs=3)
    job.config["model"]["id"] = str(tmp_path / kind)
    assert stage.run(job)["steps"] == 3
    learnt = {
        name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        for name, tensor in load_file(job.out / ADAPTER).items()
        if "lora_B" in name and tensor.any()
    }
    known = {"gpt2": (Conv1D,)}.get(kind, (torch.nn.Linear,))
    expected = {
        name
        for name, module in model.named_modules()
        if isinstance(module, known) and not name.endswith(("lm_head", "mamba.out_proj"))
        if "vision" not in name and "multi_modal" not in name
    }
    assert learnt == expected and len(expected) >= 8
    said = "has 100 positions, fewer than train.cutoff_tokens=2048: rows are cut there"
    assert (said in capsys.readouterr().err) == (kind == "gpt2")


def test_a_model_that_peft_puts_no_adapter_on_is_named(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise ValueError("Target module Odd() is not supported")

    monkeypatch.setattr(peft, "get_peft_model", refused)
    with pytest.raises(ModelError, match=r"tiny .* Linear layers \(down_proj, .* Odd\(\) is not"):
        stage.run(make_job(rows=4))


def test_a_model_without_a_chat_template_is_named(make_job: MakeJob, tmp_path: Path) -> None:
    import shutil

    job = make_job(rows=4)
    bare = shutil.copytree(job.config["model"]["id"], tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    job.config["model"]["id"] = str(bare)
    with pytest.raises(ModelError, match="no chat template"):
        stage.run(job)


def test_nothing_is_pushed_unless_asked_for(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(*_: Any, **__: Any) -> None:
        raise AssertionError("pushed")

    monkeypatch.setattr(Trainer, "push_to_hub", push)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", push)
    stage.run(make_job(rows=4))


@pytest.mark.parametrize("place", [True, False])
def test_rows_system_turns_are_in_their_prompts_and_counted_or_said_to_be_left_out(
    make_job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: bool
) -> None:
    job = make_job(rows=4, kept=lambda i: i < 3)
    file = job.inputs["pairs"] / "pairs.parquet"
    said = pa.array(["You write Fortran.", None, "You write Go.", "You write C."])
    pq.write_table(pq.read_table(file).append_column("system", said), file)
    if not place:
        template = load_tokenizer(ModelConfig(**job.config["model"])).chat_template
        refusing = "{% if messages[1:] and messages[0].content[:3] == 'QAQ' and messages[0].role "
        refusing += "== 'system' %}{{ raise_exception('none') }}{% endif %}"
        (tmp_path / "bare.jinja").write_text(refusing + str(template))
        job.config["model"]["chat_template"] = str(tmp_path / "bare.jinja")
    summary = stage.run(job)
    prompts = [e["prompt"] for e in read_json(job.out / "prompt.json")["examples"]]
    found = [next(x for x in ("Fortran", "Python", "Go") if x in prompt) for prompt in prompts]
    card, log = (job.out / "README.md").read_text(), capsys.readouterr().err
    if place:
        assert (found, summary["system_turns"]) == (["Fortran", "Python", "Go"], 2)
        assert "| Rows with a system turn of their own | 2 |" in card
    else:
        assert (found, summary["without_their_system_turn"]) == (["Python"] * 3, 2)
        assert "2, left out: the chat template has no place for one" in card
        assert "2 rows have a system turn of their own; the chat template has no place" in log
