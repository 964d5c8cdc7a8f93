"""A model is used only if all of it came from its files; what is wrong is named."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.identity import identity
from qaq.models.load import load_model, load_tokenizer
from qaq.store.cache import remembered_sha256
from qaq.store.keys import content_key

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
Q = "self_attn.q_proj"


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def config(folder, **options) -> ModelConfig:
    return ModelConfig(id=str(folder), dtype="float32", **options)


def rewrite(folder, change, file="model.safetensors"):
    tensors = change(load_file(folder / file))
    save_file({k: v.clone() for k, v in tensors.items()}, folder / file, {"format": "pt"})


def configure(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def lora(tensors):
    layers = [f"model.layers.{i}.{Q}.lora_{x}.default.weight" for i in (0, 1) for x in "AB"]
    return dict.fromkeys(layers, torch.zeros(4, 32)) | tensors


BROKEN = {
    "a wrapper's prefix": (
        lambda t: {f"module.{k}": v for k, v in t.items()},
        r"21 of its parameters are not in the files.*begin with 'module\.'",
    ),
    "a compiled model's prefix": (
        lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
        r"begin with '_orig_mod\.'",
    ),
    "a missing layer": (
        lambda t: {k: v for k, v in t.items() if "layers.1." not in k},
        r"9 of its parameters.*model\.layers\.1\.input_layernorm\.weight.*and 5 more",
    ),
    "an adapter that was not merged": (
        lambda t: lora({k.replace("q_proj.w", "q_proj.base_layer.w"): v for k, v in t.items()}),
        r"2 of its parameters.*q_proj.*merge_and_unload",
    ),
    "an adapter beside whole weights": (lora, r"4 tensors .* no place.*merge_and_unload"),
    "a bias that the architecture lacks": (
        lambda t: t | {f"model.layers.0.{Q}.bias": torch.ones(32)},
        rf"1 tensors .* no place in it.*{Q}\.bias",
    ),
    "a norm that the architecture lacks": (
        lambda t: t | {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)},
        r"q_norm\.weight",
    ),
    "a layer more than config.json says": (
        lambda t: t | {"model.layers.2.input_layernorm.weight": torch.ones(32)},
        r"no place in it.*model\.layers\.2\.",
    ),
    "another shape": (
        lambda t: t | {"model.layers.0.mlp.up_proj.weight": torch.ones(48, 32)},
        r"up_proj\.weight \(\[48, 32\] in the files, \[64, 32\]",
    ),
    "NaN": (
        lambda t: t | {"model.norm.weight": t["model.norm.weight"] * float("nan")},
        r"NaN or infinite values: model\.norm\.weight",
    ),
    "infinity": (
        lambda t: t | {"model.norm.weight": t["model.norm.weight"] / 0},
        r"NaN or infinite values: model\.norm\.weight",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_of_which_a_part_would_be_random_or_left_out_is_refused(folder, kind):
    change, message = BROKEN[kind]
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(config(folder), "cpu")


def test_a_head_of_its_own_must_be_in_the_files(folder):
    configure(folder, tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"1 of its parameters.*lm_head\.weight"):
        load_model(config(folder), "cpu")
    rewrite(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"] * 2})
    model = load_model(config(folder), "cpu")
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight * 2)


def test_what_an_architecture_does_not_use_is_named_and_changes_nothing(folder, capsys):
    ids = torch.arange(9)[None]
    before = load_model(config(folder), "cpu")(ids).logits
    names = ["model.layers.0.self_attn.rotary_emb.inv_freq", "mtp.fc.weight", "v_head.weight"]
    rewrite(folder, lambda t: t | dict.fromkeys(names, torch.ones(4)))
    assert torch.equal(load_model(config(folder), "cpu")(ids).logits, before)
    logged = capsys.readouterr().err
    assert "3 tensors of the files are not used" in logged
    assert all(name in logged for name in names)


def test_a_tensor_s_name_does_not_steer_the_terminal(folder, capsys):
    rewrite(folder, lambda t: t | {"mtp.\x1b]0;own\x07.weight": torch.ones(4)})
    load_model(config(folder), "cpu")
    logged = capsys.readouterr().err
    assert r"mtp.\u001b]0;own\u0007.weight" in logged
    assert "\x1b" not in logged


def test_a_float16_model_that_overflows_is_refused(folder):
    rewrite(folder, lambda t: t | {"model.norm.weight": t["model.norm.weight"] * 1e6})
    load_model(config(folder), "cpu")
    with pytest.raises(ModelError, match=r"model\.norm\.weight \(float16\).*dtype=float32"):
        load_model(config(folder), "cpu", "float16")


def shards(folder):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="30KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return sorted(folder.glob("model-*.safetensors"))


FILES = {
    "missing": (lambda f: f.unlink(), r"1 of \d shards are not in .*: model-00002"),
    "truncated": (lambda f: f.write_bytes(f.read_bytes()[:-9]), r"model-00002.*truncated"),
    "a pointer": (lambda f: f.write_text(POINTER), r"model-00002.*git lfs pull"),
    "a web page": (lambda f: f.write_text("<html>404</html>"), r"model-00002.*no safetensors file"),
    "empty": (lambda f: f.write_bytes(b""), r"model-00002.*no safetensors file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_shard_that_is_not_what_it_should_be_is_named_before_anything_runs(folder, kind):
    change, message = FILES[kind]
    change(shards(folder)[1])
    with pytest.raises(ModelError, match=message):
        identity(config(folder))


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_a_file_of_the_model_nested_without_end_is_one_sentence(folder, name):
    shards(folder)
    (folder / name).write_text("[" * 200_000)
    with pytest.raises(ModelError, match=r"is no index of shards|cannot load"):
        identity(config(folder)) and load_model(config(folder), "cpu")


def test_whole_shards_are_the_model_that_one_file_is(folder):
    ids = torch.arange(9)[None]
    before = load_model(config(folder), "cpu")(ids).logits
    assert len(shards(folder)) > 1
    assert torch.equal(load_model(config(folder), "cpu")(ids).logits, before)


def test_pickled_weights_are_refused_with_the_form_to_give(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin only.*give safetensors"):
        identity(config(folder))


def test_a_path_that_is_not_there_is_one_sentence():
    with pytest.raises(ModelError, match=r"there is no folder out/ckpt/final here"):
        identity(ModelConfig(id="out/ckpt/final"))


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_quantised_model_without_its_package_is_named(folder, method):
    configure(folder, quantization_config={"quant_method": method, "bits": 4, "group_size": 128})
    with pytest.raises(ModelError, match=rf"package is missing .*quantised with {method}"):
        load_model(config(folder), "cpu")


@pytest.fixture
def code_of_its_own(folder):
    names = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForCausalLM": "modeling_my.My"}
    configure(folder, model_type="my_arch", architectures=["My"], auto_map=names)
    (folder / "configuration_my.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass MyConfig(LlamaConfig):\n"
        "    model_type = 'my_arch'\n"
    )
    (folder / "modeling_my.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .configuration_my import MyConfig\n\n\n"
        "class My(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    return folder


def test_code_of_a_folder_runs_only_where_it_is_trusted(code_of_its_own, tiny_model, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked at the terminal"))
    with pytest.raises(ModelError, match="trust_remote_code=true"):
        load_model(config(code_of_its_own), "cpu")
    ids = torch.arange(9)[None]
    trusted = config(code_of_its_own, trust_remote_code=True)
    own = load_model(trusted, "cpu")(ids).logits
    assert torch.equal(own, load_model(config(tiny_model), "cpu")(ids).logits)
    before = identity(trusted)
    with (code_of_its_own / "modeling_my.py").open("a") as file:
        file.write("# changed\n")
    assert identity(trusted) != before


@pytest.fixture
def adapter(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_s_folder_is_its_base_with_the_adapter_merged(adapter, tiny_model):
    ids = torch.arange(9)[None]
    own = load_model(config(adapter), "cpu")
    beside = load_model(config(tiny_model), "cpu", adapter=adapter)
    assert torch.allclose(own(ids).logits, beside(ids).logits, atol=1e-5)
    assert not torch.allclose(
        own(ids).logits, load_model(config(tiny_model), "cpu")(ids).logits, atol=1e-3
    )
    assert load_tokenizer(config(adapter)).chat_template  # the base's, where it has none


TIED = [["q_proj", "lm_head"], ["q_proj", "embed_tokens"], ["embed_tokens", "lm_head"]]


@pytest.mark.parametrize("layers", TIED)
def test_what_is_merged_into_the_head_is_not_added_to_an_embedding_tied_to_it(
    tiny_model, tmp_path, layers
):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    settings = LoraConfig(r=4, target_modules=layers, init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(tmp_path, save_embedding_layers=False)
    ids = torch.arange(9)[None]
    own = load_model(config(tmp_path), "cpu")(ids).logits
    beside = load_model(config(tiny_model), "cpu", adapter=tmp_path)(ids).logits
    assert torch.allclose(own, beside, atol=1e-4 * beside.std())


def test_an_adapter_s_key_says_how_it_is_merged_only_where_a_weight_may_be_tied(
    adapter, tiny_model
):
    def key(**more):
        files = {f.name: remembered_sha256(f) for f in adapter.iterdir() if f.suffix != ".md"}
        base = identity(config(tiny_model))["weights"]
        return content_key({"base": base, "adapter": files, **more})

    assert identity(config(adapter))["weights"] == key()
    head = {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)}
    rewrite(adapter, lambda t: t | head, "adapter_model.safetensors")
    assert identity(config(adapter))["weights"] == key(merge="2")


def test_an_adapter_is_another_model_than_its_base_and_follows_it(adapter, folder):
    moved = config(adapter, base=str(folder))
    before = identity(moved)
    assert before != identity(config(folder))
    rewrite(folder, lambda t: t | {"model.norm.weight": t["model.norm.weight"] * 2})
    assert identity(moved) != before


def test_a_base_that_is_not_here_is_named_with_the_field_that_says_where(adapter):
    file = adapter / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"base_model_name_or_path": "/nowhere/base"}
    file.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"/nowhere/base\. Set base of this model"):
        identity(config(adapter))


MISFITS = {
    "a part is missing": (
        lambda t: {k: v for k, v in t.items() if "layers.1" not in k},
        "4 missing, 0 left over",
    ),
    "a part is left over": (
        lambda t: t | {k.replace("layers.1", "layers.7"): v for k, v in t.items()},
        "0 missing, 4 left over",
    ),
    "its names are others": (lambda t: {f"module.{k}": v for k, v in t.items()}, "8 missing, 8"),
    "its shapes are others": (
        lambda t: {k: torch.ones(4, 48) if "lora_A" in k else v for k, v in t.items()},
        "does not fit the model",
    ),
    "it is NaN": (lambda t: {k: v * float("nan") for k, v in t.items()}, "NaN or infinite"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_adapter_that_does_not_fit_is_refused(adapter, tiny_model, kind):
    change, message = MISFITS[kind]
    rewrite(adapter, change, "adapter_model.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(config(tiny_model), "cpu", adapter=adapter)
    with pytest.raises(ModelError, match=message):
        load_model(config(adapter), "cpu")


def test_a_folder_with_a_whole_model_and_an_adapter_is_not_guessed_at(adapter, folder):
    shutil.copy(folder / "model.safetensors", adapter)
    with pytest.raises(ModelError, match="holds a whole model and an adapter"):
        identity(config(adapter))
