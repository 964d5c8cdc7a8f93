"""SCAR: what is said when a part is missing; and, where the package is, real scores."""

import importlib.util
import json

import pyarrow as pa
import pytest

from qaq.host.errors import ModelError
from qaq.selection.rules.scar import Scar, scar_scores

INSTALLED = importlib.util.find_spec("style_ranker") is not None
TEXTS = pa.table(
    {
        "question": ["sort a list", "add two numbers", "reverse a text"] * 11,
        "answer": ["sorted(x)", "a + b", "text[::-1]"] * 11,
    }
)


@pytest.mark.skipif(INSTALLED, reason="the message is for machines without scar-tool")
def test_a_missing_package_is_one_sentence_with_the_command():
    with pytest.raises(ModelError, match=r"scar-tool .*: pip install scar-tool"):
        scar_scores(Scar(), TEXTS)


needs_package = pytest.mark.skipif(not INSTALLED, reason="needs the extra scar")


@pytest.fixture
def ranker(tmp_path):
    """A ranker with a tiny random encoder, saved as the published one is."""
    import torch
    from style_ranker.ranker.config import StyleRankerConfig
    from style_ranker.ranker.model import StyleRanker
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = sorted({w for column in TEXTS.columns for t in column.to_pylist() for w in t.split()})
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder, folder = tmp_path / "encoder", tmp_path / "ranker"
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=8, **small)).save_pretrained(
        encoder
    )
    settings = StyleRankerConfig(encoder_name=str(encoder), hidden_dim=8, linear_dim=8)
    model = StyleRanker(settings)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings.to_dict()))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


@needs_package
def test_every_row_is_scored_even_the_one_alone_in_its_batch(ranker):
    # 33 rows in batches of 32: the package's own loop fails on the last.
    scores = scar_scores(Scar(weights=str(ranker)), TEXTS)
    assert len(scores) == 33
    assert scores.tolist() == pytest.approx(scores[:3].tolist() * 11, abs=1e-6)
    assert len(set(scores[:3].round(6))) == 3


@needs_package
def test_weights_that_lack_a_part_are_refused(ranker):
    import torch

    weights = torch.load(ranker / "pytorch_model.bin")
    del weights["output_layer.0.weight"]
    torch.save(weights, ranker / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot load .*output_layer\.0\.weight"):
        scar_scores(Scar(weights=str(ranker)), TEXTS)


@needs_package
def test_a_folder_without_weights_is_named(ranker):
    (ranker / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"holds no pytorch_model\.bin"):
        scar_scores(Scar(weights=str(ranker)), TEXTS)


@needs_package
def test_an_encoder_with_its_own_code_needs_permission(ranker):
    path = ranker / "config.json"
    path.write_text(path.read_text().replace(str(ranker.parent / "encoder"), "some/encoder"))
    with pytest.raises(ModelError, match="trust_remote_code=true"):
        scar_scores(Scar(weights=str(ranker)), TEXTS)


@needs_package
def test_weights_that_cannot_be_fetched_say_how_to_get_them(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="hf download nobody/nothing"):
        scar_scores(Scar(weights="nobody/nothing"), TEXTS)
