"""The adapter's card: what it is, what it was made from and how to use it."""

from typing import Any

from qaq.models.config import ModelConfig
from qaq.training.config import AdapterStage


def card(
    config: AdapterStage,
    identity: dict[str, str],
    summary: dict[str, Any],
    licence: tuple[str | None, list[str]],
) -> str:
    """A model card in Markdown with the Hub's header; `licence` is of `qaq.models.licence`."""
    model: ModelConfig = config.model
    train = config.train
    recipe = train.recipe(config.share)
    base = model.id if model.id.count("/") == 1 and not model.id.startswith((".", "/")) else None
    head = ["library_name: peft", "tags: [lora, qaq]"] + ([f"base_model: {base}"] if base else [])
    if licence[0]:
        head.append(f"license: {licence[0]}")
    facts = {
        "Base model": f"`{base or model.name}`",
        **{f"Base model, {name}": f"`{value}`" for name, value in sorted(identity.items())},
        "Share of the pool asked for": f"{config.share:g}",
        "Rows": summary["rows"],
        "Rows cut at the end": f"{summary['truncated']} (over {train.cutoff_tokens} tokens)",
        "Rows refused": summary["refused"],
        **_systems(summary),
        "Steps": summary["steps"],
        "Batch": f"{recipe.batch_size} rows",
        "Learning rate": f"{recipe.learning_rate:g}, {train.schedule}, "
        f"warm-up {train.warmup_ratio:g}",
        "LoRA": f"rank {train.lora.rank}, alpha {train.lora.alpha:g}, "
        f"dropout {train.lora.dropout:g}, every Linear layer but the head",
        "Seed": config.seed,
        "Trainable parameters": summary["trainable"],
        "Frozen parameters": summary["frozen"],
        "Loss of the last step": f"{summary['loss']:.4f} nats per token",
    }
    lines = ["---", *head, "---", "", f"# LoRA adapter for {base or model.name}", ""]
    lines += [
        "Fine-tuned by qaq to answer code instructions. `prompt.json` holds the prompt layout"
    ]
    lines += ["it was trained with; another layout gives other, worse answers.", ""]
    lines += ["| | |", "|---|---|"] + [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## Licence", "", *licence[1]]
    return "\n".join(lines) + "\n"


def _systems(summary: dict[str, Any]) -> dict[str, Any]:
    """What became of the rows' own system turns, where there are any."""
    left_out = summary.get("without_their_system_turn")
    text = f"{left_out}, left out: the chat template has no place for one"
    count = text if left_out else summary.get("system_turns")
    return {"Rows with a system turn of their own": count} if count else {}
