"""The shipped recipes are the paper's, and the base model is part of an adapter's identity."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from qaq.run.compose import compose
from qaq.run.pipeline import plan as stages
from qaq.training.windows import Pool, plan

# share, batch, learning rate, steps for 310,000 rows as the paper's table gives them
PAPER = [(1.0, 512, 1.2e-4, 1816), (0.5, 256, 0.8e-4, 1816), (0.25, 256, 0.4e-4, 908)]


@pytest.mark.parametrize(("share", "batch", "rate", "steps"), PAPER)
def test_the_papers_recipe_by_share(share: float, batch: int, rate: float, steps: int) -> None:
    train = compose(["train=paper"]).train
    recipe = train.recipe(share)
    assert (recipe.batch_size, recipe.learning_rate) == (batch, rate)
    rows = int(310_000 * share)
    windows = plan([f"{i:x}" for i in range(rows)], [1] * rows, train, share, 1, Pool(310_000, 0))
    assert abs(len(windows) - steps) <= 3  # the paper does not say how an epoch's rest is counted


def test_the_papers_recipe_is_llamafactorys_where_the_paper_is_silent() -> None:
    train = compose(["train=paper"]).train
    assert (train.lora.rank, train.lora.alpha, train.lora.dropout) == (8, 16, 0.0)
    assert (train.epochs, train.warmup_ratio, train.schedule) == (3, 0.2, "cosine")
    assert (train.cutoff_tokens, train.max_grad_norm, train.weight_decay) == (2048, 1.0, 0.0)
    assert train.label_after_end


def adapter(*overrides: str) -> str:
    """Key of the one adapter that the overrides ask for."""
    (key,) = (s.key for s in stages(compose(list(overrides))) if s.kind == "adapter")
    return key


@pytest.mark.parametrize("runtime", ["default", "ddp", "fsdp", "zero3"])
def test_no_way_of_sharing_the_work_enters_the_key(runtime: str) -> None:
    """What the device decides is the precision, where `dtype` is left to it."""
    fixed = ("train=paper", "selector=random", "models.target.dtype=bfloat16")
    assert adapter(*fixed, f"runtime={runtime}") == adapter(*fixed, "runtime=gpu")


def test_the_base_models_weights_are_in_the_adapters_key(tiny_model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    file = other / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] += 1
    save_file(weights, file, metadata={"format": "pt"})

    fixed = "selector=random"
    same = adapter(f"models.target.id={tiny_model}", fixed)
    assert same == adapter(f"models.target.id={tiny_model}", fixed)
    assert same != adapter(f"models.target.id={other}", fixed)
