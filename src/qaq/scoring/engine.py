"""Runs batches of renderings through a model and sums the negative log-likelihood of each span.

The decoder gives hidden states once; the output head is applied only where a span is scored, a
chunk of positions at a time, so the logits of a whole batch never exist. Log-softmax in float32,
sums in float64.

Models of known families run without padding and with shared beginnings once
(`qaq.models.forward.decoder`), after that was compared with the model's own forward. Others run
through their own forward, padded on the right: a causal model never looks there, so no mask is
needed. Either way a row's numbers do not depend on its neighbours.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel

from qaq.host.errors import ModelError
from qaq.models.forward.decoder import PackedDecoder
from qaq.models.forward.dense import can_pack, dense
from qaq.models.forward.packing import Ids, Pack, pack
from qaq.models.forward.passes import surprise
from qaq.scoring.plan import Task, batches, packed_batches

HEAD_ROWS = {"cpu": 256, "cuda": 1024}  # states under the head at once: its weight is read seldom
LOGITS = 1 << 27  # in memory at once, in the model's precision
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
PACKED_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}


class Engine:
    """A model ready to score. `packed` is None where the model's own forward is used."""

    def __init__(
        self, model: PreTrainedModel, pad_id: int, packed: bool = False, take_over: bool = False
    ):
        """Check that what is run here is what the model itself computes.

        Args:
            model: in evaluation mode.
            pad_id: any token; nothing looks at padding.
            packed: run without padding where the architecture is known.
            take_over: nobody else runs this model; weights that are laid out anew are freed.

        Raises:
            ModelError: head(decoder(x)) is not the model's result (the architecture does
                something between the two).
        """
        self.decoder, self.head = model.get_decoder(), model.get_output_embeddings()
        self.device, self.pad_id = model.device, pad_id
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        kind, words = "cpu" if self.device.type == "cpu" else "cuda", int(config.vocab_size)
        self.head_rows = max(16, min(HEAD_ROWS[kind], LOGITS // words))
        self.packed: PackedDecoder | None = None
        self.most_tokens = sys.maxsize  # of a batch, by what memory was too small for
        self._check(model)
        if packed:
            self._use_packed(model, take_over)

    def batches(self, tasks: list[Task], token_budget: int) -> Iterator[list[Task]]:
        """Batches that suit this engine, of at most `token_budget` tokens if tasks allow."""
        return (packed_batches if self.packed else batches)(tasks, token_budget)

    def score(self, batch: list[Task]) -> list[dict[str, float]]:
        """Summed NLL (nats) of every span of every task.

        If memory runs out, this batch and later ones as large are split.
        """
        tokens = sum(task.length for task in batch)
        if len(batch) == 1 or tokens <= self.most_tokens:
            try:
                return self._score(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.most_tokens = tokens // 2
        # here and not above: an error that is being handled keeps the tensors of its frames
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return self.score(batch[:half]) + self.score(batch[half:])

    @torch.inference_mode()
    def _score(self, batch: list[Task]) -> list[dict[str, float]]:
        sequences = [task.ids for task in batch]
        laid = pack(sequences) if self.packed else None
        paths = laid.paths if laid else _padded_paths(sequences)
        before: list[int] = []  # where the states stand that predict a target
        targets: list[int] = []
        owner: list[int] = []
        names: list[tuple[int, str]] = []
        for row, (task, path) in enumerate(zip(batch, paths, strict=True)):
            for span in task.rendering.spans:
                before += path[span.start - 1 : span.end - 1]
                targets += task.rendering.ids[span.start : span.end]
                owner += [len(names)] * (span.end - span.start)
                names.append((row, span.name))
        wanted = torch.tensor(before, device=self.device, dtype=torch.long)
        states = self._states(sequences, laid, wanted)
        nll = self._nll(states, torch.tensor(targets, device=self.device, dtype=torch.long))
        totals = torch.zeros(len(names), dtype=torch.float64, device=self.device)
        index = torch.tensor(owner, device=self.device, dtype=torch.long)
        totals.index_add_(0, index, nll.double())
        sums: list[dict[str, float]] = [{} for _ in batch]
        for (row, name), total in zip(names, totals.tolist(), strict=True):
            sums[row][name] = total
        return sums

    def _states(
        self, sequences: list[Ids], laid: Pack | None, wanted: torch.Tensor
    ) -> torch.Tensor:
        """States [n, hidden] at the places `wanted` of the pack, or of the padded rows."""
        if self.packed and laid:
            return self.packed(laid, wanted)
        width = max(len(ids) for ids in sequences)
        padded = [[*ids, *[self.pad_id] * (width - len(ids))] for ids in sequences]
        hidden = self._hidden(torch.tensor(padded, device=self.device))
        return hidden.flatten(0, 1).index_select(0, wanted)

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        output: Any = self.decoder(input_ids=ids, use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _nll(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood (float32) of each target, given the state before it."""
        rows = self.head_rows
        chunks = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        return torch.cat([surprise(self._capped(self.head(h)), wanted) for h, wanted in chunks])

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits as the model's own forward gives them, in float32."""
        return self._capped(self.head(states)).float()

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        if self.softcap is None:
            return logits
        return torch.tanh(logits.float() / self.softcap) * self.softcap

    @torch.inference_mode()
    def _check(self, model: PreTrainedModel) -> None:
        ids = torch.arange(1, 9, device=self.device)[None] % int(
            model.config.get_text_config().vocab_size
        )
        ours = self._logits(self._hidden(ids)[0])
        theirs = model(input_ids=ids, use_cache=False).logits[0].float()
        gap = float((ours - theirs).abs().max())
        if not gap <= TOLERANCE.get(model.dtype, 1e-3) * max(1.0, float(theirs.std())):
            raise ModelError(
                f"{type(model).__name__} changes the output head's result (largest difference "
                f"{gap:.3g}); this engine cannot score it exactly. Please report the architecture"
            )

    @torch.inference_mode()
    def _use_packed(self, model: PreTrainedModel, take_over: bool) -> None:
        """Go over to the packed forward if it gives what the model's own gives."""
        vocabulary = int(model.config.get_text_config().vocab_size)
        one = tuple(n * n % vocabulary for n in range(3, 51))
        probe = [one, (*one[:20], *(n % vocabulary for n in one[5:40])), one[3:30]]
        own = [self._logits(self._hidden(torch.tensor([p], device=self.device))[0]) for p in probe]
        try:
            gap = self._gap(PackedDecoder(model, repack=False), probe, own)
        except ModelError as error:
            print(f"scoring with the model's own forward, padded: {error}", file=sys.stderr)
            return
        bound = PACKED_TOLERANCE.get(model.dtype, 1e-4)
        if not gap < bound:
            print(
                "scoring with the model's own forward, padded: the packed one differs by "
                f"{gap:.3g} of the logits' deviation (expected < {bound:g})",
                file=sys.stderr,
            )
            return
        if not can_pack(self.device, model.dtype):
            self.packed = PackedDecoder(model, repack=False)
        else:
            self.packed = PackedDecoder(model, repack=True, release=take_over)
            if type(self.head) is torch.nn.Linear:
                tied = self.head.weight is model.get_input_embeddings().weight
                self.head = dense(self.head, pack=True, release=take_over and not tied)
            gap = self._gap(self.packed, probe, own)
            if not gap < bound:
                raise ModelError(
                    f"{type(model).__name__}: oneDNN's product with repacked weights is wrong by "
                    f"{gap:.3g} of the logits' deviation on this processor. Please report it"
                )

    def _gap(self, decoder: PackedDecoder, probe: list[Ids], own: list[torch.Tensor]) -> float:
        """Mean difference of the logits on the probe, in units of their standard deviation."""
        laid = pack(probe)
        hidden = decoder(laid)
        gaps = [
            (self._logits(hidden[list(path)]) - logits).abs().mean() / logits.std()
            for path, logits in zip(laid.paths, own, strict=True)
        ]
        return float(torch.stack(gaps).max())


def _padded_paths(sequences: list[Ids]) -> list[range]:
    """The places of each sequence's tokens in rows as long as the longest."""
    width = max(len(ids) for ids in sequences)
    return [range(i * width, i * width + len(ids)) for i, ids in enumerate(sequences)]
