"""A tokenizer keeps code as it is and fits its model; a template is steady, ends, and fits both."""

import datetime
import json
import shutil

import pytest
import transformers.utils.chat_template_utils as templates
from tests.hub_models import deepseek
from tokenizers import Regex, Tokenizer, normalizers
from transformers import AutoTokenizer, LlamaTokenizer

from qaq.host.errors import ModelError
from qaq.models import rendering
from qaq.models.config import ModelConfig
from qaq.models.identity import identity
from qaq.models.load import load_tokenizer
from qaq.models.template import chat_template
from qaq.models.tokens import CODE, refuse_lossy


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def config(folder, **options) -> ModelConfig:
    return ModelConfig(id=str(folder), dtype="float32", **options)


LOSSES = {
    "indentation": normalizers.Replace(Regex(" {2,}"), " "),
    "tabs": normalizers.Replace("\t", " "),
    "line breaks": normalizers.Replace("\n", " "),
    "case": normalizers.Lowercase(),
    "the end": normalizers.Strip(),
    "a sign": normalizers.Replace("{", ""),
}


@pytest.mark.parametrize("lost", LOSSES)
def test_a_tokenizer_that_loses_something_of_code_is_refused(folder, lost):
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.normalizer = LOSSES[lost]
    tokenizer.save(file)
    with pytest.raises(ModelError, match="does not give code back as it was"):
        load_tokenizer(config(folder))


def test_the_class_that_deepseek_coder_names_is_refused_where_it_drops_white_space(tmp_path):
    """Releases of Transformers build it so from vocabulary and merges, SentencePiece's spaces and
    all, though its files hold a byte-level BPE."""
    model = json.loads((deepseek(tmp_path / "model") / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    misread = LlamaTokenizer(vocab=model["vocab"], merges=merges)
    assert "    " not in misread.decode(misread("if a:\n    b\n").input_ids)
    with pytest.raises(ModelError, match="does not give code back as it was"):
        refuse_lossy(misread, "deepseek")
    read = load_tokenizer(config(tmp_path / "model", chat_template="deepseek_coder"))
    for text in CODE:
        ids = read(text, add_special_tokens=False).input_ids
        assert read.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_tokenizer_that_composes_accents_or_begins_with_a_space_is_not(folder):
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    tokenizer.save(file)
    load_tokenizer(config(folder))


def test_tokens_without_a_row_of_the_embedding_are_named(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|turn|>", "<|end|>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"2 tokens .*'<\|turn\|>', '<\|end\|>'"):
        load_tokenizer(config(folder))


def layout(folder, **options):
    model = config(folder, **options)
    return chat_template(load_tokenizer(model), model, None)


def test_a_template_for_another_tokenizer_is_refused_unless_it_is_meant(folder):
    with pytest.raises(ModelError, match=r"<start_of_turn> \(read as \d+ tokens\)"):
        layout(folder, chat_template="gemma")
    assert layout(folder, chat_template="gemma", allow_split_markers=True).tail


DATED = "{{ '<|im_start|>system\\nToday: ' + DATE + '<|im_end|>\\n' }}"


def dated(folder, date="strftime_now('%d %b %Y %H:%M:%S')"):
    file = folder / "chat_template.jinja"
    own = file.read_text()
    file.write_text(DATED.replace("DATE", date) + own)
    return folder


def test_a_template_that_writes_the_date_is_the_same_every_day(folder, capsys):
    before = identity(config(folder))
    today = f"{datetime.datetime.now():%d %b %Y}"
    chat = layout(dated(folder))
    assert "Today: 26 Jul 2024 00:00:00" in chat.head
    assert today not in chat.head
    assert "writes the date" in capsys.readouterr().err
    found = identity(config(folder))
    assert found["template_date"] == "2024-07-26"
    assert "template_date" not in before
    said = [{"role": "user", "content": "Hello"}]
    tokenizer = load_tokenizer(config(folder))  # whoever renders, not only our layout
    assert "26 Jul 2024" in tokenizer.apply_chat_template(said, tokenize=False)


def test_a_date_that_is_given_is_the_one_that_is_written(folder, capsys):
    date = "(date_string if date_string is defined else strftime_now('%d %b %Y'))"
    given = {"template_kwargs": {"date_string": "1 Jan 2020"}}
    assert "Today: 1 Jan 2020" in layout(dated(folder, date), **given).head
    assert "template_date" not in identity(config(folder, **given))
    assert "template_date" in identity(config(folder))
    assert "writes the date" not in capsys.readouterr().err


def test_a_template_of_another_file_is_pinned_too(folder, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text((dated(folder) / "chat_template.jinja").read_text())
    assert "template_date" in identity(config(folder, chat_template=str(file)))


def test_transformers_gives_templates_the_clock_that_is_pinned():
    rendering.pin()
    text = templates.render_jinja_template([[]], chat_template="{{ strftime_now('%Y') }}")
    assert str(rendering.PINNED.year) in json.dumps(text)


def test_a_template_that_does_not_end_is_stopped(folder, monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    file = folder / "chat_template.jinja"
    file.write_text(loop + file.read_text())
    with pytest.raises(ModelError, match="did not end within"):
        load_tokenizer(config(folder))
