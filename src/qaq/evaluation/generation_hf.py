"""Batched decoding on `transformers`: a lean loop over the model's own forward pass.

What makes it faster than `generate` on a batch, the model being the same: prompts of similar
length go together and are read in without much padding, keys and values are never copied
(`generation_cache`), finished rows leave the batch, and only the new text is looked at for stops.

A row's answer depends on its prompt alone: positions count from its own first token, and a sampled
row has its own random numbers. In float32 the same answers come out for any batch size; in bfloat16
the order of a sum can decide between two tokens that are almost equally likely.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.evaluation.generation import Completion, Decoding, Request, complete
from qaq.evaluation.generation_cache import BlockCache

PREFILL_TOKENS = 4096  # of one forward pass over prompts, padding included


@dataclass
class Row:
    """One answer in the making."""

    request: Request
    budget: int
    draws: torch.Tensor | None  # one uniform number per new token, where we sample
    tokens: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)


class HfGenerator:
    """Batched decoding with a loaded model (its adapter, if any, unmerged inside)."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        batch_size: int,
    ):
        self.model, self.tokenizer, self.decoding = model, tokenizer, decoding
        self.batch_size = batch_size
        self.device = model.device
        self.signals = decoding.stops.signals
        # A stop text of n bytes lies in the last n tokens, since no token is shorter than a byte
        self.tail = 1 + max((len(s.encode()) for s in self.signals), default=0)

    def __call__(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer all requests, the longest prompts first; memory running out halves the batch."""
        waiting = sorted(requests, key=lambda r: (-len(r.prompt), r.task_id, r.index))
        size = self.batch_size
        while waiting:
            size = math.ceil(len(waiting) / math.ceil(len(waiting) / size))  # no small last batch
            batch, done = waiting[:size], set()
            try:
                for completion in self._batch(batch):
                    done.add((completion.task_id, completion.index))
                    yield completion
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                size //= 2
            waiting = [r for r in waiting if (r.task_id, r.index) not in done]

    def _batch(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer one batch; `requests` are sorted, the longest prompt first."""
        rows = [Row(r, self.decoding.budget(r), self._draws(r)) for r in requests]
        width = rows[0].length
        cache = BlockCache(self.model, len(rows), width + max(row.budget for row in rows))
        logits = self._read(cache, rows, width)
        filled = width
        while True:
            self._choose(logits, rows)
            ended = self._ended(rows)
            yield from ended.values()
            rows = self._leave(cache, rows, list(ended), width, filled)
            if not rows:
                return
            logits = self._step(cache, rows, width, filled)
            filled += 1

    @torch.inference_mode()
    def _read(self, cache: BlockCache, rows: list[Row], width: int) -> torch.Tensor:
        """Read the prompts in, a group of similar lengths at a time; returns the next logits."""
        logits = []
        start = 0
        while start < len(rows):
            longest = rows[start].length
            group = rows[start : start + max(1, PREFILL_TOKENS // longest)]
            ids = torch.full((len(group), longest), self._padding())
            mask = torch.zeros(len(group), longest, dtype=torch.long)
            for i, row in enumerate(group):
                ids[i, longest - row.length :] = torch.tensor(row.request.prompt)
                mask[i, longest - row.length :] = 1
            cache.look(slice(start, start + len(group)), width - longest, 0)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            logits.append(self._forward(cache, ids, mask, positions))
            start += len(group)
        return torch.cat(logits)

    @torch.inference_mode()
    def _step(self, cache: BlockCache, rows: list[Row], width: int, filled: int) -> torch.Tensor:
        """Read in the token that each row chose last; returns logits [rows, vocabulary]."""
        longest = max(row.length for row in rows)
        first = width - longest
        cache.look(slice(0, len(rows)), first, filled - first)
        lengths = torch.tensor([row.length for row in rows])
        mask = (torch.arange(filled + 1 - first) >= (longest - lengths)[:, None]).long()
        ids = torch.tensor([[row.tokens[-1]] for row in rows])
        return self._forward(cache, ids, mask, mask.sum(1, keepdim=True) - 1)

    def _forward(
        self, cache: BlockCache, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        output = self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            position_ids=positions.to(self.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    @torch.inference_mode()
    def _choose(self, logits: torch.Tensor, rows: list[Row]) -> None:
        """Append the next token to each row."""
        if self.decoding.temperature == 0:
            chosen = greedy(logits)
        else:
            draws = torch.stack([r.draws[len(r.tokens)] for r in rows if r.draws is not None])
            chosen = sample(
                logits, self.decoding.temperature, self.decoding.top_p, draws.to(logits.device)
            )
        for row, token in zip(rows, chosen, strict=True):
            row.tokens.append(token)

    def _ended(self, rows: list[Row]) -> dict[int, Completion]:
        """The rows that are finished by their last token, by place."""
        found = {}
        tails = self._decode([row.tokens[-self.tail :] for row in rows])
        for place, (row, tail) in enumerate(zip(rows, tails, strict=True)):
            last = row.tokens[-1] in self.decoding.end_ids
            if last or len(row.tokens) >= row.budget or any(s in tail for s in self.signals):
                text = self._decode([row.tokens[:-1] if last else row.tokens])[0]
                completion = complete(text, len(row.tokens), last, row.request, self.decoding)
                if completion.finish != "length" or len(row.tokens) >= row.budget:
                    found[place] = completion
        return found

    @torch.inference_mode()
    def _leave(
        self, cache: BlockCache, rows: list[Row], places: list[int], width: int, filled: int
    ) -> list[Row]:
        """Take finished rows out; the last live row moves into each place that becomes free."""
        rows = list(rows)
        for place in sorted(places, reverse=True):
            last = len(rows) - 1
            if place != last:
                cache.move(last, place, slice(width - rows[last].length, filled))
                rows[place] = rows[last]
            rows.pop()
        return rows

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def _draws(self, request: Request) -> torch.Tensor | None:
        if self.decoding.temperature == 0:
            return None
        generator = torch.Generator().manual_seed(self.decoding.row_seed(request))
        count = self.decoding.budget(request)
        return torch.rand(count, generator=generator, dtype=torch.float64)

    def _padding(self) -> int:
        """Any token will do; the mask hides it."""
        return int(self.tokenizer.pad_token_id or 0)


def greedy(logits: torch.Tensor) -> list[int]:
    """The likeliest token of each row, the first of equals."""
    if logits.device.type == "cpu":  # numpy's argmax is vectorised, torch's is not
        return logits.float().numpy().argmax(-1).tolist()  # type: ignore[no-any-return]
    return logits.argmax(-1).tolist()


def sample(
    logits: torch.Tensor, temperature: float, top_p: float, draws: torch.Tensor
) -> list[int]:
    """One token per row from the nucleus: the likeliest tokens that together reach `top_p`.

    Args:
        logits: [rows, vocabulary].
        temperature: above 0; divides the logits.
        top_p: as in EvalPlus and `transformers`; the token that reaches it is in.
        draws: [rows], uniform in [0, 1); equal draws give equal tokens.
    """
    probabilities = torch.softmax(logits.double() / temperature, -1)
    sorted_, order = probabilities.sort(dim=-1, descending=True, stable=True)
    total = sorted_.cumsum(-1)
    inside = total - sorted_ < top_p
    mass = (sorted_ * inside).sum(-1)
    place = (total < (draws * mass)[:, None]).sum(-1)
    place = torch.minimum(place, inside.sum(-1) - 1)
    return order.gather(-1, place[:, None])[:, 0].tolist()
