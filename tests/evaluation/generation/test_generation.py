"""Batched decoding against a plain loop: one row, no cache, everything decoded at every step."""

import itertools
import json
import math
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, Gemma3TextConfig, LlamaConfig, MambaConfig, MistralConfig
from transformers import AutoModelForCausalLM as Auto

from qaq.evaluation.generation import hf as generation_hf
from qaq.evaluation.generation.cache import bytes_per_token
from qaq.evaluation.generation.generate import Completion, Decoding, Journal, Request, model_limits
from qaq.evaluation.generation.hf import HfGenerator, common_prefix, rows_that_fit
from qaq.evaluation.generation.lookup import LONGEST, Lookup
from qaq.evaluation.generation.sampling import greedy, sample
from qaq.evaluation.prompts import Stops
from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.forward.adapters import load_adapter
from qaq.models.forward.columns import Cached
from qaq.models.forward.lora import is_plain
from qaq.models.forward.swaps import Swaps
from qaq.models.load import load_model, load_tokenizer

NOTHING = Stops(())


@pytest.fixture(scope="module")
def config(tiny_model, tmp_path_factory):
    """The tiny model with weights so large, and a head so free, that it does not repeat itself."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("lively") / "model")
    shape = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=False, initializer_range=0.5)
    torch.manual_seed(1)
    Auto.from_config(shape).save_pretrained(folder)
    return ModelConfig(name="lively", id=str(folder), dtype="float32")


@pytest.fixture(scope="module")
def tokenizer(config):
    return load_tokenizer(config)


@pytest.fixture(scope="module")
def model(config):
    return load_model(config, "cpu")


def make_requests(count, vocabulary, longest=40, seed=0):
    chance = random.Random(seed)
    lengths = [chance.randint(1, longest) for _ in range(count)]
    return [
        Request(f"T/{i}", 0, tuple(chance.randrange(3, vocabulary) for _ in range(n)), f"sha{i}")
        for i, n in enumerate(lengths)
    ]


@torch.no_grad()
def plain(model, tokenizer, request, decoding):
    """What decoding means, written as plainly as possible."""
    ids, new = list(request.prompt), []
    budget = decoding.max_new_tokens
    if decoding.context is not None:
        budget = min(budget, decoding.context - len(ids))
    while len(new) < budget:
        logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1]
        new.append(int(logits.argmax()))
        if new[-1] in decoding.end_ids:
            text = tokenizer.decode(new[:-1], skip_special_tokens=True)
            cut = decoding.stops.cut(text)
            return text[:cut], len(new), "end" if cut is None else "stop"
        text = tokenizer.decode(new, skip_special_tokens=True)
        if (cut := decoding.stops.cut(text)) is not None:
            return text[:cut], len(new), "stop"
    return tokenizer.decode(new, skip_special_tokens=True), len(new), "length"


def as_plain(completions):
    return {c.task_id: (c.text, c.new_tokens, c.finish) for c in completions}


@pytest.fixture(scope="module")
def varied(model, tokenizer):
    """Requests whose answers end in every way, and after different numbers of tokens."""
    requests = make_requests(13, len(tokenizer))
    free = Decoding(24, NOTHING, frozenset())
    answers = [plain(model, tokenizer, r, free)[0] for r in requests]
    stops = Stops((answers[0][3:6], answers[1][9:12], "\nprint("))
    ids = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
    decoding = Decoding(24, stops, frozenset({ids[2][4], ids[3][8]}), context=50)
    expected = {r.task_id: plain(model, tokenizer, r, decoding) for r in requests}
    assert {e[2] for e in expected.values()} == {"end", "stop", "length"}
    assert len({e[1] for e in expected.values()}) > 4
    assert len(set(answers)) == len(answers) and all(len(set(a)) > 5 for a in answers)
    return requests, decoding, expected


@pytest.mark.parametrize("batch_size", [1, 2, 5, 13, 48])
def test_any_batch_size_gives_the_answers_of_a_plain_loop(model, tokenizer, varied, batch_size):
    requests, decoding, expected = varied
    found = as_plain(HfGenerator(model, tokenizer, decoding, batch_size)(requests))
    assert found == expected


def test_the_order_of_the_requests_changes_nothing(model, tokenizer, varied):
    requests, decoding, expected = varied
    shuffled = random.Random(1).sample(requests, len(requests))
    assert as_plain(HfGenerator(model, tokenizer, decoding, 6)(shuffled)) == expected


@pytest.mark.parametrize("tokens", [1, 60, 100])
def test_reading_prompts_in_groups_changes_nothing(model, tokenizer, varied, tokens, monkeypatch):
    requests, decoding, expected = varied
    monkeypatch.setattr(generation_hf, "READ_TOKENS", tokens)
    assert as_plain(HfGenerator(model, tokenizer, decoding, 13)(requests)) == expected


def test_what_all_prompts_begin_with_is_read_once_and_changes_nothing(
    model, tokenizer, varied, monkeypatch
):
    requests, decoding, _ = varied
    start = tuple(range(5, 29))
    longer = [replace(r, prompt=start + r.prompt) for r in requests]
    roomy = replace(decoding, context=90)
    expected = {r.task_id: plain(model, tokenizer, r, roomy) for r in longer}
    fed = []
    original = generation_hf.forward

    def watched(model, cache, feeds):
        fed.extend(feeds)
        return original(model, cache, feeds)

    monkeypatch.setattr(generation_hf, "forward", watched)
    assert as_plain(HfGenerator(model, tokenizer, roomy, 5)(longer)) == expected
    assert [f for f in fed if f.start == 0] == [fed[0]] and tuple(fed[0].tokens) == start


def test_a_prompt_that_is_the_beginning_of_another_keeps_a_token_of_its_own():
    assert common_prefix([(1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4, 5)]) == 2
    assert common_prefix([(1, 2), (3, 2)]) == common_prefix([(1, 2, 3)]) == 0


@pytest.fixture(scope="module")
def repetitive(tiny_model):
    """A model that falls into loops, which greedy decoding of small models does."""
    return load_model(ModelConfig(name="tiny", id=str(tiny_model), dtype="float32"), "cpu")


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_text_that_repeats_itself_is_the_same_and_takes_few_passes(
    repetitive, tokenizer, batch_size, monkeypatch
):
    requests = make_requests(9, len(tokenizer))
    decoding = Decoding(120, NOTHING, frozenset())
    expected = {r.task_id: plain(repetitive, tokenizer, r, decoding) for r in requests}
    passes = []
    original = generation_hf.forward
    monkeypatch.setattr(generation_hf, "forward", lambda *a: passes.append(1) or original(*a))
    found = as_plain(HfGenerator(repetitive, tokenizer, decoding, batch_size)(requests))
    assert found == expected
    assert len(passes) < 120 * math.ceil(9 / batch_size) / 2


def test_guesses_are_shortened_where_their_logits_would_take_too_much(
    repetitive, tokenizer, monkeypatch
):
    requests = make_requests(9, len(tokenizer))
    decoding = Decoding(60, NOTHING, frozenset())
    expected = as_plain(HfGenerator(repetitive, tokenizer, decoding, 9)(requests))
    monkeypatch.setattr(generation_hf, "GUESS_BYTES", 20 * 4 * repetitive.config.vocab_size)
    most = []
    original = generation_hf.forward

    def watched(model, cache, feeds):
        most.append(sum(feed.wanted - 1 for feed in feeds))
        return original(model, cache, feeds)

    monkeypatch.setattr(generation_hf, "forward", watched)
    assert as_plain(HfGenerator(repetitive, tokenizer, decoding, 9)(requests)) == expected
    assert 10 < max(most) <= 20


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 50))
def test_a_guess_is_what_followed_the_earlier_occurrence_it_agrees_with(tokens, most):
    draft = Lookup(tokens)
    guess = draft.guess(most)
    assert len(guess) <= min(most, LONGEST)
    if guess:
        period = len(tokens) - draft.source
        longer = tokens + guess
        held = range(len(tokens) - draft.match, len(longer))
        assert period >= 1 and all(longer[i] == longer[i - period] for i in held)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_layers_compute_what_the_layers_compute_and_leave_no_trace(config, dtype):
    model = load_model(config, "cpu", dtype)
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        swaps = Swaps(model, repack=True, rows=64)
        with swaps():
            inside = model(input_ids=ids).logits
        after = model(input_ids=ids).logits
    if not swaps.repacked:
        pytest.skip("PyTorch has no oneDNN layout for this processor and precision")
    assert torch.equal(before, after)
    gap = (before - inside).float().abs().mean() / before.float().std()
    assert gap < (1e-5 if dtype == "float32" else 0.02)


def test_as_many_rows_as_memory_allows_and_never_none(model, monkeypatch):
    assert bytes_per_token(model) == 2 * sum(
        layer.self_attn.k_proj.out_features * 4 for layer in model.model.layers
    )
    assert rows_that_fit(model, 100) == 192
    assert rows_that_fit(model, 10**12) == 1


def test_what_memory_held_before_has_no_influence(model, tokenizer, varied):
    requests, decoding, expected = varied
    torch.use_deterministic_algorithms(True)  # fills what is allocated without a value with NaN
    try:
        assert torch.empty(3).isnan().all()
        found = as_plain(HfGenerator(model, tokenizer, decoding, 13)(requests))
    finally:
        torch.use_deterministic_algorithms(False)
    assert found == expected


SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
SLIDING = {
    "every layer": MistralConfig(**SHAPE, num_hidden_layers=2, sliding_window=6),
    "some layers": Gemma3TextConfig(
        **SHAPE,
        num_hidden_layers=3,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}


@pytest.mark.parametrize("kind", SLIDING)
def test_a_sliding_window_is_kept(tokenizer, kind):
    torch.manual_seed(0)
    model = Auto.from_config(SLIDING[kind]).eval().float()
    requests = make_requests(7, 400, longest=20)
    decoding = Decoding(16, NOTHING, frozenset())
    expected = {r.task_id: plain(model, tokenizer, r, decoding) for r in requests}
    assert as_plain(HfGenerator(model, tokenizer, decoding, 4)(requests)) == expected


@pytest.mark.parametrize("kind", SLIDING)
@pytest.mark.parametrize(("off", "said"), [(1, "sees a key"), (-1, "does not see a key")])
def test_a_window_off_by_one_token_in_the_cache_is_refused(tokenizer, monkeypatch, kind, off, said):
    model = Auto.from_config(SLIDING[kind]).eval().bfloat16()  # its rounding would hide it
    attend = Cached.attend

    def wrong(segments, q, k, v, scores):
        window = None if scores.window is None else scores.window + off
        return attend(segments, q, k, v, replace(scores, window=window))

    assert HfGenerator(model, tokenizer, Decoding(4, NOTHING, frozenset()), 4).problem is None
    monkeypatch.setattr(Cached, "attend", wrong)
    found = HfGenerator(model, tokenizer, Decoding(4, NOTHING, frozenset()), 4)
    assert found.problem.startswith("attention ")


def test_a_model_that_keeps_more_than_keys_and_values_is_asked_row_by_row(tokenizer, capsys):
    torch.manual_seed(0)
    mamba = MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = Auto.from_config(mamba).eval().float()
    requests, decoding = make_requests(4, 400, longest=20), Decoding(9, NOTHING, frozenset({7}))
    expected = {r.task_id: plain(model, tokenizer, r, decoding) for r in requests}
    assert as_plain(HfGenerator(model, tokenizer, decoding, 4)(requests)) == expected
    assert "row by row: ModelError: MambaForCausalLM keeps" in capsys.readouterr().err


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_row_by_row_gives_the_answers_of_a_batch(
    model, tokenizer, varied, monkeypatch, temperature
):
    requests, decoding, _ = varied
    decoding = replace(decoding, temperature=temperature)
    expected = as_plain(HfGenerator(model, tokenizer, decoding, 5)(requests))
    monkeypatch.setattr(generation_hf, "verify", lambda *_: "it is said to be wrong")
    single = HfGenerator(model, tokenizer, decoding, 5)
    assert single.problem == "it is said to be wrong"
    assert as_plain(single(requests)) == expected


def test_row_by_row_no_token_of_a_prompt_is_taken_for_padding(model, tokenizer):
    requests = [Request("T/0", 0, (5, 0, 9, 0, 3), ""), Request("T/1", 0, (0, 0, 7), "")]
    decoding = Decoding(12, NOTHING, frozenset())
    generator = HfGenerator(model, tokenizer, decoding, 1)
    vars(generator)["problem"] = "it is said to be wrong"
    expected = {r.task_id: plain(model, tokenizer, r, decoding) for r in requests}
    assert as_plain(generator(requests)) == expected


def test_row_by_row_an_answer_does_not_depend_on_longer_prompts_before_it(tokenizer):
    """A `dynamic` rotary embedding remembers the longest row that it has seen."""
    dynamic = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 1e4}
    shape = {**SHAPE, "max_position_embeddings": 16, "rope_parameters": dynamic}

    def answers(*prompts):
        torch.manual_seed(0)
        own = LlamaConfig(**shape, num_hidden_layers=2, initializer_range=0.5)
        model, decoding = Auto.from_config(own).eval().float(), Decoding(16, NOTHING, frozenset())
        requests = [Request(str(len(p)), 0, p, "") for p in prompts]
        return {c.task_id: c.text for c in HfGenerator(model, tokenizer, decoding)(requests)}

    long, middle = tuple(range(3, 303)), tuple(range(9, 49))
    assert answers(long, middle)["40"] == answers(middle)["40"]


def test_a_check_that_memory_is_too_small_for_leads_to_answers_row_by_row(
    model, tokenizer, monkeypatch, capsys
):
    def small(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation_hf, "attention_problem", small)
    found = HfGenerator(model, tokenizer, Decoding(4, NOTHING, frozenset())).problem
    assert found == "OutOfMemoryError: CUDA out of memory"
    assert "own generate, row by row: OutOfMemoryError" in capsys.readouterr().err


def test_row_by_row_a_frozen_head_is_not_laid_out_again(config, tokenizer):
    frozen = load_model(config, "cpu").requires_grad_(False)
    generator = HfGenerator(frozen, tokenizer, Decoding(4, NOTHING, frozenset()), 1)
    vars(generator)["problem"] = "it is said to be wrong"
    vocabulary = frozen.config.vocab_size
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        list(generator(make_requests(1, vocabulary)))
    of_vocabulary = [e for e in seen.events() if any(vocabulary in s for s in e.input_shapes)]
    assert any(e.name == "aten::mm" for e in of_vocabulary)
    assert not any(e.name == "aten::bmm" for e in of_vocabulary)


@pytest.fixture(scope="module")
def adapter(model, config, tmp_path_factory):
    torch.manual_seed(5)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
    tuned = get_peft_model(load_model(config, "cpu"), lora)
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return folder, tuned.merge_and_unload()


def test_an_adapter_is_used_and_not_merged(config, model, tokenizer, adapter, varied):
    folder, merged = adapter
    requests, decoding, untuned = varied
    adapted = load_adapter(load_model(config, "cpu"), folder)
    names = [name for name, _ in adapted.named_parameters()]
    assert any("lora_A" in name for name in names) and any("base_layer" in n for n in names)
    found = as_plain(HfGenerator(adapted, tokenizer, decoding, 5)(requests))
    assert found == {r.task_id: plain(merged, tokenizer, r, decoding) for r in requests}
    assert found != untuned


@pytest.mark.parametrize("flat", [1e-6, 0.3, 3.0])
@pytest.mark.parametrize("top_p", [0.5, 0.99, 1.0])
def test_a_sample_is_the_one_that_sorting_the_whole_vocabulary_gives(flat, top_p):
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(0, flat, (40, 5000))).bfloat16()  # with many equal logits
    draws = torch.tensor(rng.random(40))
    found = sample(logits, 0.8, top_p, draws)
    for row, draw, token in zip(logits.double().numpy(), draws.numpy(), found, strict=True):
        weights = np.exp((row - row.max()) / 0.8)
        order = np.argsort(-row, kind="stable")
        likely = weights[order] / weights.sum()
        total = np.cumsum(likely)
        size = int(np.sum(total - likely < top_p))
        place = int(np.sum(total[:size] < draw * likely[:size].sum()))
        assert token == order[min(place, size - 1)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_the_lean_adapter_computes_what_peft_computes(config, adapter, dtype, tolerance):
    folder, _ = adapter
    lean = load_adapter(load_model(config, "cpu", dtype), folder)
    swaps = Swaps(lean, repack=True)
    peft = PeftModel.from_pretrained(load_model(config, "cpu", dtype), str(folder)).eval()
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode(), swaps():
        found = lean(input_ids=ids).logits
    with torch.inference_mode():
        expected = peft(input_ids=ids).logits
        plain = load_model(config, "cpu", dtype)(input_ids=ids).logits
    gap = (found - expected).float().abs().mean() / expected.float().std()
    assert gap < tolerance < (plain - expected).float().abs().mean() / expected.float().std()


def test_other_kinds_of_adapter_keep_the_forward_of_peft(config):
    dora = LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)
    layers = list(get_peft_model(load_model(config, "cpu"), dora).modules())
    assert [is_plain(m) for m in layers if isinstance(m, Linear)] == [False, False]


@given(st.lists(st.integers(3, 300), min_size=1, max_size=40), st.data())
@settings(max_examples=150, deadline=None)
def test_a_stop_text_shows_in_the_tail_when_it_is_completed(tokenizer, tokens, data):
    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=True)

    whole = decode(tokens).replace("\ufffd", "")
    if not whole:
        return
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = whole[start : start + data.draw(st.integers(1, 9))]
    tail = 1 + len(stop.encode())
    for end in range(1, len(tokens) + 1):
        if stop in decode(tokens[:end]) and stop not in decode(tokens[: end - 1]):
            assert stop in decode(tokens[max(0, end - tail) : end])


def test_the_likeliest_token_is_the_first_of_equals():
    logits = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0], [-5.0, -6.0, -4.0]])
    assert greedy(logits) == [1, 0, 2]
    assert greedy(logits.bfloat16()) == [1, 0, 2]
    torch.manual_seed(0)
    many = torch.randint(0, 40, (16, 50_000)).bfloat16()
    assert greedy(many) == [row.index(max(row)) for row in many.tolist()]


def sampled(model, tokenizer, requests, batch_size, seed=0):
    decoding = Decoding(12, NOTHING, frozenset({2}), temperature=1.5, seed=seed)
    return as_plain(HfGenerator(model, tokenizer, decoding, batch_size)(requests))


def test_a_sample_depends_on_its_seed_task_and_number_and_not_on_its_batch(model, tokenizer):
    requests = make_requests(6, len(tokenizer))
    first = sampled(model, tokenizer, requests, 6)
    for size in (1, 4):
        assert sampled(model, tokenizer, requests, size) == first
    assert sampled(model, tokenizer, requests[2:4], 2) == {
        r.task_id: first[r.task_id] for r in requests[2:4]
    }
    assert sampled(model, tokenizer, requests, 6, seed=1) != first
    again = [Request("T/0", i, requests[0].prompt, "s") for i in range(4)]
    decoding = Decoding(12, NOTHING, frozenset({2}), temperature=1.5)
    texts = [c.text for c in HfGenerator(model, tokenizer, decoding, 4)(again)]
    assert len(set(texts)) == 4


EIGHTHS = st.integers(-32, 32).map(lambda n: n / 8)  # equal, or apart by more than rounding


@given(st.lists(EIGHTHS, min_size=2, max_size=9), st.floats(0.1, 2), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_samples_come_from_the_nucleus_in_its_proportions(logits, temperature, top_p):
    draws = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    rows = torch.tensor([logits]).expand(4000, -1)
    counts = np.bincount(sample(rows, temperature, top_p, draws), minlength=len(logits)) / 4000
    scaled = np.float32(logits).astype(float) / temperature
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    order = sorted(range(len(logits)), key=lambda i: (-shares[i], i))
    before = np.cumsum([0, *shares[order]])[:-1]
    if np.abs(before - top_p).min() < 1e-6:
        return  # decided by rounding
    nucleus = [i for i, b in zip(order, before, strict=True) if b < top_p]
    expected = np.zeros(len(logits))
    expected[nucleus] = shares[nucleus] / shares[nucleus].sum()
    assert np.abs(counts - expected).max() <= 1.5 / 4000


class Starved:
    """A model whose device has memory for so many rows only."""

    def __init__(self, model, rows):
        self.model, self.rows = model, rows

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, past_key_values, **options):
        if past_key_values.blocks[0].slots - 1 > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(past_key_values=past_key_values, **options)


def starved(model, tokenizer, decoding, rows, size):
    """A generator that found nothing against the model before memory became so short."""
    generator = HfGenerator(model, tokenizer, decoding, size)
    assert generator.problem is None
    generator.model = Starved(model, rows)
    return generator


def test_out_of_memory_halves_the_batch_and_loses_and_repeats_nothing(model, tokenizer, varied):
    requests, decoding, expected = varied
    answers = list(starved(model, tokenizer, decoding, 3, 13)(requests))
    assert as_plain(answers) == expected
    assert len(answers) == len(requests)


def test_out_of_memory_for_a_single_row_is_an_error(model, tokenizer, varied):
    requests, decoding, _ = varied
    with pytest.raises(torch.OutOfMemoryError):
        list(starved(model, tokenizer, decoding, 0, 4)(requests))


def progress():
    return Progress("test", 0, "answers")


def test_a_killed_run_goes_on_and_generates_nothing_twice(model, tokenizer, varied, tmp_path):
    requests, decoding, expected = varied
    file = tmp_path / "samples.jsonl"
    generator = HfGenerator(model, tokenizer, decoding, 4)
    journal = Journal(file)
    journal.extend(itertools.islice(generator(requests), 5), progress())
    with file.open("a") as torn:
        torn.write('{"task_id": "T/9", "index": 0, "tex')  # killed in the middle of a line
    resumed = Journal(file)
    missing = resumed.missing(requests)
    assert len(missing) == len(requests) - 5
    resumed.extend(generator(missing), progress())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["task_id"] for line in lines) == sorted(r.task_id for r in requests)
    assert as_plain(Journal(file).done.values()) == expected
    assert Journal(file).missing(requests) == []


def test_an_answer_to_another_prompt_is_not_taken_over(tmp_path):
    journal = Journal(tmp_path / "samples.jsonl")
    old = Completion("T/1", 0, "sha-a", "text", 3, "end")
    journal.extend(iter([old]), progress())
    request = Request("T/1", 0, (5, 6), "sha-b")
    assert Journal(journal.path).missing([request]) == [request]


def test_the_seconds_of_all_answers_add_up_to_the_time_taken(tmp_path):
    journal = Journal(tmp_path / "samples.jsonl")
    answers = (Completion(f"T/{i}", 0, "s", "", 1, "end") for i in range(3))
    journal.extend(answers, progress())
    seconds = [c.seconds for c in journal.done.values()]
    assert all(s >= 0 for s in seconds) and math.isclose(sum(seconds), 0, abs_tol=0.5)


def test_context_and_end_tokens_are_read_from_the_model(config, tokenizer):
    assert model_limits(config) == (2048, frozenset({tokenizer.eos_token_id}))
