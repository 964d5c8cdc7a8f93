"""The model's side of training without padding: several rows in one sequence, the head only
where something is learnt.

The rows of a micro-batch are packed end to end, so that every Linear layer sees real tokens only;
attention and what is compared before a run begins are those of `qaq.models.forward`. The output
head is applied to the positions that predict a label; full logits never exist. A model that cannot
be packed is trained row by row through its own forward, to the same gradient.
"""

from collections.abc import Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from qaq.host.terminal import notice
from qaq.models.forward.attention import Packed, switch
from qaq.models.forward.attention_check import attention_problem
from qaq.models.forward.forward import Forward, tried
from qaq.models.forward.packing import Ids, end_to_end
from qaq.models.forward.proven import once
from qaq.models.forward.verify import (
    closeness,
    moved_by_rounding,
    places,
    verify,
)
from qaq.training.loss import CHUNK_ELEMENTS, target_nll
from qaq.training.rows import Example

SAME_HEAD = 1e-2  # of the logits' deviation, between the head alone and the model's own logits


def pack(examples: Sequence[Example], device: torch.device, silent: bool = False) -> dict[str, Any]:
    """Pack examples end to end.

    Returns:
        `input_ids` and `position_ids` [1, tokens] (positions start again at each row),
        `segments` (length of each row), `targets` [n] (positions that predict a label) and
        `labels` [n]. A silent batch keeps its tokens and learns nothing.
    """
    made = end_to_end([example.ids for example in examples])
    targets: list[int] = []
    labels: list[int] = []
    for example, path in zip(examples, made.paths, strict=True):
        if not silent:
            targets += path[example.prompt - 1 : -1]
            labels += example.ids[example.prompt :]

    def tensor(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return {
        "input_ids": tensor(made.ids)[None],
        "position_ids": tensor(made.positions)[None],
        "segments": tuple(len(example.ids) for example in examples),
        "targets": tensor(targets),
        "labels": tensor(labels),
    }


def prepare(model: PreTrainedModel, like: PreTrainedModel | None = None) -> str | None:
    """Make `model(**pack(...))` return the NLL [n] of each label, in nats, float32.

    Args:
        model: whole, or without its weights where it is to be sharded.
        like: a model of the same architecture, of few layers, on which the way is shown to be right
            in place of a model that no process holds.

    Returns:
        None, or why rows are run one by one through the model's own forward (logged).

    Raises:
        ModelError: the model is not causal.
    """
    own = Forward(like or model, ways=(), purpose="training")
    head = _Head(own)
    reason = _tried(like or model, own, head)
    if like is not None:
        own = own.on(model)
        if reason is None:
            switch(model)
        _patch(model, own, _Head(own, shown=head), packed=reason is None)
    return reason


def _tried(model: PreTrainedModel, own: Forward, head: "_Head") -> str | None:
    """Go over to the packed forward, or to the model's own, row by row; why, if to that."""
    before = model.config._attn_implementation
    reason = tried(partial(_problem, model, own, head))
    if reason is not None:
        model.set_attn_implementation(before)
        _patch(model, own, head, packed=False)
        notice(f"training with the model's own forward, row by row: {reason}")
    return reason


def _problem(model: PreTrainedModel, own: Forward, head: "_Head") -> str | None:
    """Go over to the packed forward; what is wrong with it, or None."""
    if own.whole:
        return "its logits are not made of the decoder's states alone"
    if own.changes_at == 0:
        return "its rotary embedding may depend on the longest row of a batch"
    device, before = own.device, model.config._attn_implementation

    def run(sequences: Sequence[Ids]) -> list[Tensor]:
        """NLL of the tokens behind the places that are compared."""
        rows = [
            Example("", ids, at.start + 1, False)
            for ids, at in zip(sequences, places(sequences), strict=True)
        ]
        nll: Tensor = model(**pack(rows, device)).detach()
        return list(torch.split(nll, [len(row.ids) - row.prompt for row in rows]))

    def go_over() -> None:
        switch(model)
        _patch(model, own, head, packed=True)

    def alone() -> list[Tensor]:
        """Of each row by itself, through the model's own forward."""
        model.set_attn_implementation(before)
        _patch(model, own, head, packed=False)
        with torch.no_grad():
            return [nll for row in own.probe.rows for nll in run([row])]

    def ask() -> str | None:
        expected = alone()
        with torch.enable_grad():  # attention has another kernel where a gradient is wanted
            problem = attention_problem(model, own.decode, own.probe.rows[-1], device)
            if problem is None:
                go_over()
                problem = verify(
                    run, expected, own.probe, model.dtype, lambda: moved_by_rounding(alone, model)
                )
        return problem

    problem = once(model, f"training, {'whole' if head.linear is None else 'head'}", ask)
    if problem is None:
        go_over()
    return problem


class _Head:
    """NLL of labels, given the states that predict them."""

    def __init__(self, own: Forward, shown: "_Head | None" = None):
        """`shown`: that of another model of this architecture, which decides what this one is."""
        self.own = own
        self.linear = None if own.whole else own.model.get_output_embeddings()
        if shown is not None:
            self.linear = self.linear if shown.linear is not None else None
        else:
            self._see()
        if self.linear is not None:
            vars(self.linear)["forward"] = MethodType(_linear_nll, self.linear)

    def _see(self) -> None:
        """Whether the head alone gives the model's logits."""
        own = self.own
        with torch.inference_mode():
            if type(self.linear) is nn.Linear:
                states = own([own.probe.rows[0]], [range(16)])
                plain = self.linear(states)
                logits = own.logits(states)
                same = plain.shape == logits.shape and closeness(plain, logits) < SAME_HEAD
                self.linear = self.linear if same else None
            else:
                self.linear = None

    def __call__(self, states: Tensor, labels: Tensor) -> Tensor:
        """NLL [n], float32, of labels [n] for states [n, width]."""
        if self.linear is not None:
            # through the module's own call: sharded models gather the head's weight there
            return self.linear(states, labels)  # type: ignore[no-any-return]
        words = int(self.own.model.config.get_text_config().vocab_size)
        rows = max(16, CHUNK_ELEMENTS // words)
        chunks = zip(torch.split(states, rows), torch.split(labels, rows), strict=True)
        return torch.cat([checkpoint(self._some, *chunk, use_reentrant=False) for chunk in chunks])

    def _some(self, states: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.own.logits(states).float(), labels, reduction="none")


def _linear_nll(self: nn.Linear, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
    if labels is None:
        return functional.linear(hidden, self.weight, self.bias)
    return target_nll(hidden, self.weight, labels, self.bias)


def _patch(model: PreTrainedModel, own: Forward, head: _Head, packed: bool) -> None:
    """Put the NLL of labels in place of the model's own forward."""

    def decode(ids: Tensor, positions: Tensor, lengths: tuple[int, ...]) -> Tensor:
        if not packed:
            return own.decode(ids)[0]
        segments = Packed(end_to_end([(0,) * n for n in lengths]), ids.device)
        return own.decode(ids, position_ids=positions, segments=segments)[0]

    def states_of(ids: Tensor, positions: Tensor, lengths: tuple[int, ...]) -> Tensor:
        groups = [lengths]
        if not packed or own.far(max(lengths)):
            groups = [(n,) for n in lengths]
        found = []
        sizes = [sum(group) for group in groups]
        parts = zip(
            groups, torch.split(ids, sizes, 1), torch.split(positions, sizes, 1), strict=True
        )
        for group, part, at in parts:
            if own.far(max(group)):  # frequencies stay what the longest row so far made them
                with torch.no_grad():
                    decode(part[:, :1], at[:, :1], (1,))
            found.append(decode(part, at, group))
        return torch.cat(found)

    def forward(
        self: PreTrainedModel,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: tuple[int, ...],
        targets: Tensor,
        labels: Tensor,
        **_: Any,
    ) -> Tensor:
        states = states_of(input_ids, position_ids, segments)
        return head(states.index_select(0, targets), labels)

    model.forward = MethodType(forward, model)
