"""SCAR: what is said when a part is missing; and, where the package is, real scores."""

import importlib.util
import json

import pyarrow as pa
import pytest

from qaq.host.errors import ModelError
from qaq.selection.config import SubsetStage, fingerprint
from qaq.selection.rules.exclude import Exclude
from qaq.selection.rules.scar import Scar, fetched, scar_scores
from qaq.store.keys import keyed

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


def test_a_folder_without_weights_is_named(files):
    (files[0] / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"holds no pytorch_model\.bin"):
        fetched(Scar(weights=str(files[0])))


@pytest.fixture
def files(tmp_path):
    """What a key is made of: a ranker's folder and its encoder's, without tensors."""
    ranker, encoder = tmp_path / "ranker", tmp_path / "encoder"
    for folder, settings in ((ranker, {"encoder_name": str(encoder)}), (encoder, {"layers": 1})):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "pytorch_model.bin").write_bytes(b"weights")
        (folder / "code.py").write_text("layers = 1")
    return ranker, encoder


@pytest.mark.parametrize("which", [0, 1], ids=["ranker", "encoder"])
@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin", "code.py"])
def test_a_changed_file_of_ranker_or_encoder_is_another_subset(files, which, name):
    rule = Scar(weights=str(files[0]), trust_remote_code=True)
    within = Exclude(near_duplicates=True, rule=rule)
    before = fingerprint(within)
    assert before == fingerprint(rule) and {*before} == {"scar/ranker", "scar/encoder"}
    file = files[which] / name
    file.write_bytes(file.read_bytes() + b" ")
    after = fingerprint(within)
    assert [n for n in before if after[n] != before[n]] == [["scar/ranker", "scar/encoder"][which]]


def test_where_the_ranker_lies_is_no_part_of_the_key(files, tmp_path):
    one, two = (
        SubsetStage(selector=Scar(weights=str(place)), ratio=0.5, seed=None)
        for place in (files[0], files[0].rename(tmp_path / "moved"))
    )
    assert keyed(one) == keyed(two)


def test_an_encoder_with_its_own_code_needs_permission(files):
    (files[1] / "config.json").write_text('{"auto_map": {"AutoModel": "code.Encoder"}}')
    with pytest.raises(ModelError, match=r"encoder .*trust_remote_code=true"):
        fingerprint(Scar(weights=str(files[0])))
    assert fingerprint(Scar(weights=str(files[0]), trust_remote_code=True))


def test_code_of_a_further_repository_is_refused_since_no_key_names_it(files):
    (files[1] / "config.json").write_text('{"auto_map": {"AutoModel": "some/code--m.Encoder"}}')
    with pytest.raises(ModelError, match=r"encoder .*another repository \(some/code, see auto_map"):
        fingerprint(Scar(weights=str(files[0]), trust_remote_code=True))


def test_a_ranker_that_names_no_encoder_is_refused(files):
    (files[0] / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no encoder_name"):
        fingerprint(Scar(weights=str(files[0])))
