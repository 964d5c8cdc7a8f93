import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BloomConfig, GPT2Config, LlamaConfig, OPTConfig

from qaq.host.errors import ModelError, UserError
from qaq.models.config import ModelConfig
from qaq.models.forward.batching import padded_batches
from qaq.models.load import Positions, load_positions
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import Layout, Rendering, Span, make_framer
from qaq.scoring.plan import Task, merge

from .conftest import PAIRS, Tiny

KINDS = ("chat", "plain")


def spans_of(framed):
    return {
        span.name: rendering.ids[span.start : span.end]
        for rendering in framed.renderings
        for span in rendering.spans
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_text_has_the_same_tokens_in_both_spans_and_they_decode_to_it(tiny: Tiny, kind, pair):
    question, answer = pair
    spans = spans_of(tiny.framer(kind)(question, answer))
    assert spans["q"] == spans["q_given_a"]
    assert spans["a"] == spans["a_given_q"]
    assert tiny.tokenizer.decode(spans["q"]) == question
    assert tiny.tokenizer.decode(spans["a"]) == answer


def test_the_chat_framing_renders_what_the_chat_template_renders(tiny: Tiny):
    question, answer = PAIRS[0]
    framed = tiny.framer("chat", system="Be brief.")(question, answer)
    texts = {r.spans[0].name: tiny.tokenizer.decode(r.ids) for r in framed.renderings}
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    reverse = FramingConfig(name="c", kind="chat").reverse_instruction.replace("{answer}", answer)
    assert texts["q"] == f"{system}<|im_start|>user\n{question}"
    assert texts["a_given_q"] == (
        f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}"
    )
    assert texts["a"] == f"{system}<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n{answer}"
    assert texts["q_given_a"] == (
        f"{system}<|im_start|>user\n{reverse}<|im_end|>\n<|im_start|>assistant\n{question}"
    )


def test_special_token_text_in_the_data_stays_ordinary_text(tiny: Tiny):
    end = tiny.tokenizer.convert_tokens_to_ids("<|im_end|>")
    spans = spans_of(tiny.framer("chat")("What does <|im_end|> mean?", "<|im_end|> ends a turn"))
    assert end not in spans["q"]
    assert end not in spans["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_cut_until_the_question_fits_whole(tiny: Tiny, kind):
    question, answer = PAIRS[4]
    whole = tiny.framer(kind)(question, answer)
    longest = max(len(r.ids) for r in whole.renderings)
    cut = tiny.framer(kind, max_tokens=longest - 5)(question, answer)
    assert not whole.truncated
    assert cut.truncated
    assert spans_of(cut)["q"] == spans_of(whole)["q"]
    assert spans_of(cut)["a"] == spans_of(whole)["a"][:-5]
    assert max(len(r.ids) for r in cut.renderings) == longest - 5
    assert cut.bytes["a"] < whole.bytes["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_that_leaves_no_room_gives_a_reason_and_no_rendering(tiny: Tiny, kind):
    framed = tiny.framer(kind, max_tokens=16)(PAIRS[4][0] * 3, "x = 1")
    assert framed.renderings == ()
    assert framed.reason == "the question leaves no room for the answer"


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_cut_where_the_model_s_positions_end(tiny: Tiny, kind, capsys):
    question, answer = PAIRS[4]
    longest = max(len(r.ids) for r in tiny.framer(kind)(question, answer).renderings)
    few = Positions(longest - 5, learned=False)
    cut = tiny.framer(kind, positions=few)(question, answer)
    assert cut == tiny.framer(kind, max_tokens=longest - 5)(question, answer)
    assert cut.truncated
    assert capsys.readouterr().err == (
        f"tiny has {longest - 5} positions, fewer than framing.max_tokens=2048: "
        "answers are cut there\n"
    )
    tiny.framer(kind, positions=Positions(2048, learned=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["authors", "cherry", "superfiltering"])
def test_published_framings_run_past_the_positions_unless_there_are_no_more(tiny: Tiny, kind):
    question, answer = PAIRS[4]
    whole = tiny.framer(kind)(question, answer)
    few = max(len(r.ids) for r in whole.renderings) - 1
    assert tiny.framer(kind, positions=Positions(few, learned=False))(question, answer) == whole
    learned = Positions(few, learned=True)
    refused = tiny.framer(kind, positions=learned)(question, answer)
    assert refused.renderings == ()
    assert refused.reason == f"longer than the model's {few} positions"
    assert tiny.framer(kind, positions=learned)("x", "y = 1").reason is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(n_positions=64), Positions(64, learned=True)),
        (OPTConfig(max_position_embeddings=64), Positions(64, learned=True)),
        (LlamaConfig(max_position_embeddings=64), Positions(64, learned=False)),
        (BloomConfig(), None),
    ],
)
def test_positions_are_read_from_the_model_s_config(tmp_path, config, expected):
    config.save_pretrained(tmp_path)
    assert load_positions(ModelConfig(name="m", id=str(tmp_path))) == expected


@pytest.mark.parametrize("pair", [("", "x"), ("x", "")])
def test_an_empty_side_gives_a_reason(tiny: Tiny, pair):
    framed = tiny.framer("chat")(*pair)
    assert framed.renderings == ()
    assert "has no tokens" in str(framed.reason)


def test_a_tokenizer_without_a_chat_template_is_refused_with_the_ways_out(tiny: Tiny, tmp_path):
    tiny.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    from qaq.models.load import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(tmp_path)
    bare.chat_template = None
    config = ModelConfig(name="bare", id=str(tmp_path))
    for kind in ("chat", "authors"):
        with pytest.raises(ModelError, match="chat_template"):
            make_framer(FramingConfig(name=kind, kind=kind), config, bare, None)
    make_framer(FramingConfig(name="plain", kind="plain"), config, bare, None)


def test_plain_needs_a_token_to_begin_with_and_says_so(tiny: Tiny):
    config, plain = ModelConfig(id="x"), FramingConfig(name="plain", kind="plain")
    endless = copy.deepcopy(tiny.tokenizer)
    endless.bos_token = None
    assert make_framer(plain, config, endless, None).layout.before_q == (endless.eos_token_id,)
    endless.eos_token = None
    with pytest.raises(ModelError, match=r"the tokenizer .* has neither a BOS nor an EOS"):
        make_framer(plain, config, endless, None)


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        ("before_q", (), "before_q is empty; .*start_ids"),
        ("before_a", (), "before_a is empty"),
        ("before_q", (None,), r"before_q is \(None,\); expected a tuple of token ids"),
        ("q_to_a", None, "q_to_a is None"),
        ("a_to_q", [5], r"a_to_q is \[5\]"),
    ],
)
def test_a_layout_has_a_token_before_every_scored_one(name, ids, message):
    parts = dict.fromkeys(("before_q", "q_to_a", "before_a", "before_answer", "a_to_q"), (5,))
    empty = dict.fromkeys(("q_to_a", "before_answer", "a_to_q"), ())
    pair = Layout(**parts | empty).renderings((1, 2), (3,))
    assert all(span.start >= 1 for one in pair for span in one.spans)
    with pytest.raises(UserError, match=message):
        Layout(**parts | {name: ids})


def test_plain_needs_two_passes_for_four_spans_and_chat_three(tiny: Tiny):
    question, answer = PAIRS[1]
    assert len(merge(tiny.framer("plain")(question, answer).renderings)) == 2
    assert len(merge(tiny.framer("chat")(question, answer).renderings)) == 3


@pytest.mark.parametrize(
    "spans, run",
    [
        ([Span("q", 1, 9)], 8),
        ([Span("q", 1, 4)], 3),  # what follows is not scored
        ([Span("a", 2, 3), Span("q", 4, 7)], 6),
        ([Span("q", 1, 1)], 1),  # an empty one, as the authors' script makes them
    ],
)
def test_no_token_is_run_that_predicts_nothing(spans, run):
    assert Task(0, Rendering(tuple(range(9)), tuple(spans))).ids == tuple(range(run))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 600))
def test_padded_batches_hold_every_sequence_once_within_the_budget(lengths, budget):
    found = list(padded_batches([tuple(range(n)) for n in lengths], budget))
    assert sorted(at for batch in found for at in batch) == list(range(len(lengths)))
    widths = [max(lengths[at] for at in batch) for batch in found]
    for batch, width in zip(found, widths, strict=True):
        assert len(batch) == 1 or len(batch) * width <= budget
    assert widths == sorted(widths, reverse=True)
