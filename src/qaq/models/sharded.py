"""Models of which no process and no card holds the whole: without weights, and with few layers.

Under FSDP one process loads the model into the host's memory, and the others have its `outline`,
whose parameters are nowhere until theirs are sent. What has to be shown before a run is shown on a
`sketch`: the same architecture with few layers, on the card of each process.
"""

import copy
from itertools import count

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from qaq.host.errors import ModelError
from qaq.host.hardware import resolve_dtype
from qaq.models.config import ModelConfig
from qaq.models.identity import parts
from qaq.models.load import location

LAYERS = 2  # of a sketch, if those are of all kinds


def outline(config: ModelConfig, device: str) -> PreTrainedModel:
    """The model as it will be loaded elsewhere: parameters on the meta device, buffers real."""
    from transformers import AutoConfig

    base, adapter = parts(config)
    while adapter is not None:
        base, adapter = parts(base)
    where = location(base)
    precision = getattr(torch, resolve_dtype(config.dtype, device))
    trusted = where["trust_remote_code"]
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(**where), dtype=precision, trust_remote_code=trusted
        )
    model.tie_weights()  # each assignment above made a parameter of its own
    return model.eval()


def sketch(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The same architecture and precision with layers of every kind, few, and random weights.

    Raises:
        ModelError: the architecture cannot be made with fewer layers.
    """
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    whole = int(text.num_hidden_layers)
    kinds = [v for v in vars(text).values() if isinstance(v, list) and len(v) == whole]
    dense = getattr(text, "first_k_dense_replace", None) or 0  # layers before those with experts
    few = next(n for n in count(max(LAYERS, dense + 1)) if n >= whole or _all_kinds(kinds, n))
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == whole:
            setattr(text, name, value[:few])
    text.num_hidden_layers = min(few, whole)
    try:
        # the class itself: `from_config` would shard it where DeepSpeed shards
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            small = type(model)(config)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be made with {few} of its {whole} layers ({error}), so "
            "its packed forward cannot be shown to be right before it is sharded; train it with "
            "runtime.accelerate=ddp"
        ) from error
    made: PreTrainedModel = small.to(model.dtype).to(device).eval()
    return made


def make_room(model: nn.Module) -> None:
    """Memory for an outline's trained parameters, whose numbers come from the first process.

    Accelerate finds an optimiser's parameters again by where they lie, and on the meta device all
    lie in one place.
    """
    for module in model.modules():
        if any(p.requires_grad and p.is_meta for p in module.parameters(recurse=False)):
            module.to_empty(device="cpu", recurse=False)


def _all_kinds(kinds: list[list[object]], layers: int) -> bool:
    return all(set(map(str, kind)) == set(map(str, kind[:layers])) for kind in kinds)
