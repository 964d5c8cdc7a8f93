"""One prompt layout: pieces that join to what the tokenizer's own template renders."""

import pytest
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.host.errors import ModelError
from qaq.host.plugins import options
from qaq.models.config import ModelConfig
from qaq.models.identity import template_text
from qaq.models.load import load_tokenizer
from qaq.models.template import chat_template, literal_ids, text_ids


@pytest.fixture(scope="module")
def config(tiny_model) -> ModelConfig:
    # the packaged templates' control texts are no tokens of the tiny model
    return ModelConfig(name="tiny", id=str(tiny_model), allow_split_markers=True)


@pytest.fixture
def tokenizer(config) -> PreTrainedTokenizerBase:
    return load_tokenizer(config)


@pytest.mark.parametrize("name", sorted(options("templates", ".jinja")))
@pytest.mark.parametrize("system", [None, "You write code."])
def test_the_pieces_join_to_the_rendered_conversation(tokenizer, config, name, system):
    tokenizer.chat_template = template_text(ModelConfig(name="x", id="x", chat_template=name))
    chat = chat_template(tokenizer, config, system)
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert chat.head + "Why?" + chat.turn + chat.lead + "Because." + chat.tail + chat.after == whole
    asked = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    assert chat.head + "Why?" + chat.turn == asked


def test_prompt_and_response_ids_are_the_tokens_of_the_pieces(tokenizer, config):
    chat = chat_template(tokenizer, config, None)
    q, a = text_ids(tokenizer, "Why?"), text_ids(tokenizer, "Because.")
    head, turn = literal_ids(tokenizer, chat.head), literal_ids(tokenizer, chat.turn)
    assert chat.prompt_ids(q) == head + q + turn
    assert chat.response_ids(a) == a + literal_ids(tokenizer, "<|im_end|>")


def test_deepseek_coder_s_layout_is_the_one_llamafactory_trains_with(tokenizer, config):
    tokenizer.chat_template = options("templates", ".jinja")["deepseek_coder"].read_text()
    chat = chat_template(tokenizer, config, "System.\n")
    assert chat.head == f"{tokenizer.bos_token}System.\n### Instruction:\n"
    assert chat.turn == "\n### Response:"
    assert chat.lead == "\n"
    assert (chat.tail + chat.after) == "\n<|EOT|>\n"


def test_two_layouts_have_two_hashes_and_the_same_layout_one(tokenizer, config):
    one = chat_template(tokenizer, config, None)
    assert one.sha == chat_template(tokenizer, config, None).sha
    assert one.sha != chat_template(tokenizer, config, "Other system prompt").sha


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] }}", "shows a message 0 times"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", "shows a message 2 times"),
        (
            "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}something else{% endif %}",
            "differently",
        ),
        ("{{ raise_exception('not this') }}", "not this"),
    ],
)
def test_a_template_that_cannot_be_cut_is_refused_with_what_it_rendered(
    tokenizer, config, template, message
):
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=message):
        chat_template(tokenizer, config, None)
