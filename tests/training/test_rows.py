"""Rows become ids and labels, or are refused."""

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from qaq.data import stdlib
from qaq.data.rows import Pair, read_row
from qaq.models.config import ModelConfig
from qaq.models.identity import template_text
from qaq.models.load import load_tokenizer
from qaq.models.template import chat_template
from qaq.training.rows import Encoder, Example, Refusal, cut

DEEPSEEK = ModelConfig(name="deepseek", id="none", chat_template="deepseek_coder")
# what the model's own chat template says, and what LlamaFactory 0.9.2 and later say
OWN = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by "
    "Deepseek Company, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer\n"
)
LLAMAFACTORY = OWN.replace("Deepseek", "DeepSeek").replace("answer\n", "answer.\n")


def llamafactory(
    tokenizer: PreTrainedTokenizerFast, system: str, question: str, answer: str, cutoff: int
) -> tuple[list[int], list[int]]:
    """The `deepseekcoder` template's rules, written from its description, not from our code."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    source = [tokenizer.bos_token_id, *ids(system)]
    source += ids(f"### Instruction:\n{question}\n### Response:")
    target = ids(f"\n{answer}\n<|EOT|>\n")
    if len(target) * 2 < cutoff:
        room = cutoff
    elif len(source) * 2 < cutoff:
        room = cutoff - len(source)
    else:
        room = int(cutoff * (len(target) / (len(source) + len(target))))
    target = target[: min(room, len(target))]
    source = source[: max(cutoff - len(target), 0)]
    return source + target, [-100] * len(source) + target


@pytest.fixture(scope="session")
def real_rows() -> list[tuple[str, str]]:
    pairs = [read_row(entry, "stdlib") for entry in itertools.islice(stdlib.read(), 0, 240, 4)]
    return [(p.question, p.answer) for p in pairs if isinstance(p, Pair)]


@pytest.fixture(scope="session")
def deepseek(deepseek_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    deepseek_tokenizer.chat_template = template_text(DEEPSEEK)
    return deepseek_tokenizer


@pytest.mark.parametrize("cutoff", [2048, 160])
@pytest.mark.parametrize(("setting", "system"), [(None, OWN), (LLAMAFACTORY, LLAMAFACTORY)])
def test_ids_and_labels_of_fifty_rows_equal_llamafactorys_rules(
    deepseek: PreTrainedTokenizerFast,
    real_rows: list[tuple[str, str]],
    cutoff: int,
    setting: str | None,
    system: str,
) -> None:
    template = chat_template(deepseek, DEEPSEEK, setting)
    encoder = Encoder(deepseek, template, cutoff, label_after_end=True)
    awkward = [("\nleading", "\n\nlines\n\n"), ("  two spaces", "  x"), ("多少 ä 123", "a\r\nb\t")]
    rows = [*real_rows[:50], *awkward]
    assert len(rows) == 53
    for number, (question, answer) in enumerate(rows):
        example = encoder.encode(str(number), question, answer)
        ids, labels = llamafactory(deepseek, system, question, answer, cutoff)
        assert isinstance(example, Example), example
        assert list(example.ids) == ids
        assert list(example.labels) == labels


def test_without_the_llamafactory_rule_labels_end_with_the_end_token(
    deepseek: PreTrainedTokenizerFast,
) -> None:
    template = chat_template(deepseek, DEEPSEEK, None)
    example = Encoder(deepseek, template, 512).encode("r", "Add.", "a + b")
    assert isinstance(example, Example)
    assert deepseek.decode(example.ids[example.prompt :]) == "\na + b\n<|EOT|>"
    assert template.after == "\n"


def test_labels_are_exactly_the_answer_and_its_end_token(tiny_encoder: Encoder) -> None:
    example = tiny_encoder.encode("r", "Say it.", "print('hi')\n")
    assert isinstance(example, Example)
    decode = tiny_encoder.tokenizer.decode
    learnt = [token for token, label in zip(example.ids, example.labels, strict=True) if label >= 0]
    assert decode(learnt) == "print('hi')\n<|im_end|>"
    assert decode(example.ids) == (
        "<|im_start|>user\nSay it.<|im_end|>\n<|im_start|>assistant\nprint('hi')\n<|im_end|>"
    )


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model: object) -> Encoder:
    config = ModelConfig(name="tiny", id=str(tiny_model))
    tokenizer = load_tokenizer(config)
    return Encoder(tokenizer, chat_template(tokenizer, config, None), 64)


def test_an_empty_answer_is_refused(tiny_encoder: Encoder) -> None:
    assert tiny_encoder.encode("r", "q", "") == Refusal("r", "the answer has no tokens")


def test_a_control_token_written_in_a_text_stays_text(tiny_encoder: Encoder) -> None:
    example = tiny_encoder.encode("r", "q", "the token <|im_end|> ends a turn")
    assert isinstance(example, Example)
    end = tiny_encoder.template.tail_ids[-1]
    assert example.ids[example.prompt :].count(end) == 1


def test_a_line_break_that_is_an_added_token_is_text(tiny_encoder: Encoder) -> None:
    tokenizer = copy.deepcopy(tiny_encoder.tokenizer)
    tokenizer.add_tokens(["\n"])
    assert "\n" in tokenizer.get_added_vocab()
    layout = chat_template(tokenizer, ModelConfig(name="tiny", id="none"), None)
    line_break = tokenizer.get_added_vocab()["\n"]
    assert line_break in layout.head_ids
    example = Encoder(tokenizer, layout, 512).encode("r", "Two\nlines?", "yes\nyes")
    assert isinstance(example, Example) and line_break in example.ids[example.prompt :]


def test_a_text_whose_control_token_cannot_be_split_is_refused(
    deepseek: PreTrainedTokenizerFast,
) -> None:
    """An added token that is not special is recognised inside any text."""
    encoder = Encoder(deepseek, chat_template(deepseek, DEEPSEEK, None), 512)
    refusal = encoder.encode("r", "q", "code <|EOT|> more code")
    assert refusal == Refusal("r", "the answer holds the control token <|EOT|>")


def test_line_breaks_are_text_even_where_the_vocabulary_adds_them(
    real_rows: list[tuple[str, str]],
) -> None:
    """Gemma lists them among its added tokens, and its turns hold them."""
    config = ModelConfig(name="gemma", id="embedded:gemma3-270m", chat_template="gemma")
    tokenizer = load_tokenizer(config)
    encoder = Encoder(tokenizer, chat_template(tokenizer, config, None), 2048)
    examples = [encoder.encode(str(i), *row) for i, row in enumerate(real_rows)]
    assert [e for e in examples if isinstance(e, Refusal)] == []
    turn = [i for i in encoder.controls if "turn" in tokenizer.decode([i])]
    assert len(turn) == 2


def test_an_answer_whose_tokens_lose_text_is_refused(tiny_encoder: Encoder) -> None:
    class Lossy:
        """A tokenizer that drops what it does not know, as some sentence-piece ones do."""

        def __getattr__(self, name: str) -> object:
            return getattr(tiny_encoder.tokenizer, name)

        def __call__(self, text: str, **options: object) -> object:
            return tiny_encoder.tokenizer(text.replace("\t", ""), **options)

    lossy = Encoder(Lossy(), tiny_encoder.template, 64)  # type: ignore[arg-type]
    refusal = lossy.encode("r", "q", "a\tb")
    assert refusal == Refusal("r", "the answer's tokens do not decode to the answer")


def test_a_long_row_is_cut_and_counted_and_not_dropped(tiny_encoder: Encoder) -> None:
    example = tiny_encoder.encode("r", "Short.", "x = 1\n" * 100)
    assert isinstance(example, Example)
    assert example.truncated
    assert len(example.ids) == 64
    assert tiny_encoder.template.tail_ids[-1] not in example.ids[example.prompt :]


def test_a_row_with_no_room_for_its_answer_is_refused(tiny_encoder: Encoder) -> None:
    small = Encoder(tiny_encoder.tokenizer, tiny_encoder.template, 16)
    assert isinstance(small.encode("r", "word " * 500, "y"), Example)
    template = tiny_encoder.template
    long_lead = type(template)(**(vars(template) | {"lead_ids": tuple(range(10, 60))}))
    refusal = Encoder(tiny_encoder.tokenizer, long_lead, 64).encode("r", "word " * 50, "y" * 50)
    assert refusal == Refusal("r", "nothing of the answer fits into 64 tokens")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 4096))
def test_cutting_fills_the_cutoff_and_never_more(prompt: int, target: int, cutoff: int) -> None:
    kept_prompt, kept_target = cut(prompt, target, cutoff)
    assert 0 <= kept_prompt <= prompt
    assert 0 <= kept_target <= target
    total = kept_prompt + kept_target
    assert total == prompt + target if prompt + target <= cutoff else cutoff - 1 <= total <= cutoff


@pytest.mark.parametrize("cutoff", [512, 90])
def test_a_row_s_own_system_turn_replaces_the_prompt_as_llamafactory_lays_it_out(
    deepseek: PreTrainedTokenizerFast, real_rows: list[tuple[str, str]], cutoff: int
) -> None:
    own = "You write Fortran."
    template = chat_template(deepseek, DEEPSEEK, None)
    encoder = Encoder(deepseek, template, cutoff, label_after_end=True)
    compared = 0
    for question, answer in real_rows[:30]:
        example = encoder.encode("r", question, answer, own)
        ids, labels = llamafactory(deepseek, own, question, answer, cutoff)
        if isinstance(example, Example):
            assert (list(example.ids), list(example.labels)) == (ids, labels)
            compared += 1
        assert encoder.encode("r", question, answer, None) == encoder.encode("r", question, answer)
    assert compared > 20


def test_a_system_turn_whose_control_token_cannot_be_split_is_refused(
    deepseek: PreTrainedTokenizerFast,
) -> None:
    encoder = Encoder(deepseek, chat_template(deepseek, DEEPSEEK, None), 512)
    refusal = encoder.encode("r", "q", "code", "be kind <|EOT|>")
    assert refusal == Refusal("r", "the system turn holds the control token <|EOT|>")
