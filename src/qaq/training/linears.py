"""Which layers of a model LoRA is put on: every Linear layer but the head."""

from torch.nn import Linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# Families whose recurrent layers hand this weight to a kernel past the module, and with it past an
# adapter; PEFT refuses one there (`_check_lora_target_modules_mamba` in tuners/tuners_utils.py)
MAMBA, PAST_THE_MODULE = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}, "out_proj"


def widths_of_linears(base: PreTrainedModel) -> dict[str, int]:
    """What goes into each Linear layer that gets an adapter and what comes out, together, by name.

    All but the head; the `Conv1D` of GPT-2 is one.
    """
    head, found = base.get_output_embeddings(), {}
    for name, module in base.named_modules():
        left_out = base.config.model_type in MAMBA and name.endswith(PAST_THE_MODULE)
        if module is head or left_out:
            continue
        if isinstance(module, Linear):
            found[name] = module.in_features + module.out_features
        elif isinstance(module, Conv1D):
            found[name] = module.nx + module.nf
    return found
