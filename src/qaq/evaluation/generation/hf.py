"""Batched decoding on `transformers`: a lean loop over the model's own forward pass.

What makes it faster than `generate` on a batch, the model being the same: a pass holds no padding
(`forward`), keys and values are never copied (`cache`), what all prompts begin with is read once, a
finished row leaves at once and a waiting one takes its place, text that repeats itself is read many
tokens at a time (`lookup`), and only new text is looked at for stops. Before the first answer this
is compared with the model's own forward; a model for which it is wrong is asked row by row through
its own `generate`.

A row's answer depends on its prompt alone: positions count from its own first token, and a sampled
row has its own random numbers. In float32 the same answers come out for any batch size; in bfloat16
the order of a sum can decide between two tokens that are almost equally likely.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import psutil  # type: ignore[import-untyped]
import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.evaluation.config import CACHE_SHARE, MOST_ROWS
from qaq.evaluation.generation.cache import BlockCache, bytes_per_token
from qaq.evaluation.generation.forward import by_cache, forward, seen_by_cache
from qaq.evaluation.generation.generate import Completion, Decoding, Request, complete
from qaq.evaluation.generation.lookup import Lookup
from qaq.evaluation.generation.sampling import greedy, sample
from qaq.evaluation.generation.single import answer
from qaq.host.terminal import notice
from qaq.models.forward.attention import attending
from qaq.models.forward.attention_check import attention_problem
from qaq.models.forward.columns import Chunk
from qaq.models.forward.forward import Forward, tried
from qaq.models.forward.packing import Ids
from qaq.models.forward.proven import once
from qaq.models.forward.swaps import Swaps
from qaq.models.forward.verify import verify

STEP_ROWS = 64  # tokens of a step that the layout of weights is chosen for
READ_TOKENS = 4096  # of prompts in one pass
GUESS_BYTES = 1 << 30  # of logits that the guesses of one pass may take


@dataclass
class Row:
    """One answer in the making: `text.tokens` are prompt and answer, `cached` of them are read."""

    request: Request
    budget: int
    draws: torch.Tensor | None  # one uniform number per new token, where we sample
    text: Lookup
    cached: int = 0

    @property
    def count(self) -> int:
        """How many new tokens there are."""
        return len(self.text.tokens) - len(self.request.prompt)

    def answer_tail(self, most: int) -> list[int]:
        """The last new tokens, at most so many."""
        return self.text.tokens[len(self.text.tokens) - min(most, self.count) :]


class HfGenerator:
    """Batched decoding with a loaded model (its adapter, if any, unmerged inside).

    `batch_size` rows are answered at a time; null for as many as do well on the device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        batch_size: int | None = None,
    ):
        self.model, self.tokenizer, self.decoding = model, tokenizer, decoding
        self.batch_size = batch_size
        vocabulary = model.config.get_text_config().vocab_size
        self.guesses = GUESS_BYTES // (vocabulary * model.dtype.itemsize)
        self.signals = decoding.stops.signals
        # A stop text of n bytes lies in the last n tokens, since no token is shorter than a byte
        self.tail = 1 + max((len(s.encode()) for s in self.signals), default=0)

    def __call__(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer all requests, the longest prompts first; memory running out halves the batch."""
        ordered = sorted(requests, key=lambda r: (-len(r.prompt), r.task_id, r.index))
        waiting = deque(self._row(request) for request in ordered)
        if not waiting:
            return
        columns = max(len(row.request.prompt) + row.budget for row in waiting)
        size = min(self.batch_size or rows_that_fit(self.model, columns), len(waiting))
        prefix = common_prefix([r.prompt for r in ordered])
        if self.problem is not None or self.own.far(columns):
            yield from map(self._answer_alone, waiting)
            return
        with attending(self.model), self.swaps():
            while waiting:
                live: list[Row] = []
                try:
                    yield from self._answer(waiting, live, size, columns, prefix)
                except torch.OutOfMemoryError:
                    if size == 1:
                        raise
                    size = -(-size // 2)
                for row in reversed(live):  # after memory ran out: read again what they have
                    row.cached = 0
                    waiting.appendleft(row)
                if waiting:
                    torch.cuda.empty_cache()

    @cached_property
    def own(self) -> Forward:
        """The model's own forward."""
        return Forward(self.model, ways=(), purpose="answering")

    @cached_property
    def swaps(self) -> Swaps:
        """Its modules with faster forwards."""
        return Swaps(self.model, repack=True, rows=STEP_ROWS)

    @cached_property
    def problem(self) -> str | None:
        """Why batched decoding is not used for this model, or None."""
        found = tried(self._problem)
        if found is not None:
            notice(f"answering with the model's own generate, row by row: {found}")
        return found

    @torch.inference_mode()
    def _problem(self) -> str | None:
        if self.own.changes_at == 0:
            return "its rotary embedding may depend on the longest row of a batch"

        own, by = self.own, by_cache(self.model)

        def run(sequences: Sequence[Ids]) -> list[torch.Tensor]:
            with attending(self.model), self.swaps():
                return by(sequences)

        def ask() -> str | None:
            long, device = own.probe.rows[-1], self.model.device
            seen = seen_by_cache(long, device)
            problem = attention_problem(self.model, own.decode, long, device, seen)
            return problem or verify(run, own.alone(), own.probe, self.model.dtype, own.moved)

        return once(self.model, f"answering, repacked {self.swaps.repacked}", ask)

    def _answer(
        self, waiting: deque[Row], live: list[Row], size: int, columns: int, prefix: int
    ) -> Iterator[Completion]:
        """Answer all that wait, `size` at a time; `live` are the rows in work, by slot."""
        cache = BlockCache(self.model, size + 1, columns)
        if prefix:  # read once, into the slot behind the rows
            forward(self.model, cache, [Chunk(size, 0, waiting[0].request.prompt[:prefix])])
        while waiting or live:
            self._admit(cache, waiting, live, size, prefix)
            chunks = self._chunks(live)
            chosen = self._choose(forward(self.model, cache, chunks), live, chunks)
            ended = self._grow(live, [accepted(f, c) for f, c in zip(chunks, chosen, strict=True)])
            yield from ended.values()
            self._leave(cache, live, list(ended))

    def _admit(
        self, cache: BlockCache, waiting: deque[Row], live: list[Row], size: int, prefix: int
    ) -> None:
        """Give free slots to waiting rows, as many as one pass can well read."""
        reading = 0
        while waiting and len(live) < size:
            reading += len(waiting[0].text.tokens) - prefix
            if reading > READ_TOKENS and live:
                return
            cache.copy(size, len(live), prefix)
            waiting[0].cached = prefix
            live.append(waiting.popleft())

    def _chunks(self, live: list[Row]) -> list[Chunk]:
        """What the model reads next of each row: what it has not read, and a guess.

        Sampled text hardly repeats itself, so nothing is guessed of it.
        """
        most = self.guesses if self.decoding.temperature == 0 else 0
        guesses = [row.text.guess(min(most, row.budget - row.count - 1)) for row in live]
        if sum(map(len, guesses)) > most:
            each = most // sum(map(bool, guesses))
            guesses = [guess[:each] for guess in guesses]
        return [
            Chunk(slot, row.cached, row.text.tokens[row.cached :] + guess, 1 + len(guess))
            for slot, (row, guess) in enumerate(zip(live, guesses, strict=True))
        ]

    @torch.inference_mode()
    def _choose(
        self, logits: torch.Tensor, rows: list[Row], chunks: Sequence[Chunk]
    ) -> list[list[int]]:
        """The tokens that follow the wanted ones of each row."""
        if self.decoding.temperature == 0:
            chosen = iter(greedy(logits))
        else:
            draws = torch.stack([r.draws[r.count] for r in rows if r.draws is not None])
            chosen = iter(
                sample(
                    logits, self.decoding.temperature, self.decoding.top_p, draws.to(logits.device)
                )
            )
        return [[next(chosen) for _ in range(chunk.wanted)] for chunk in chunks]

    def _grow(self, rows: list[Row], new: list[list[int]]) -> dict[int, Completion]:
        """Append new tokens to each row up to its end; the finished ones, by slot."""
        windows = [
            row.answer_tail(self.tail - 1) + tokens for row, tokens in zip(rows, new, strict=True)
        ]
        found = {}
        for slot, (row, window, text) in enumerate(
            zip(rows, windows, self._decode(windows), strict=True)
        ):
            signalled = any(signal in text for signal in self.signals)
            known = len(window) - len(new[slot])
            for end, token in enumerate(new[slot], start=known + 1):
                row.text.add(token)
                tail = window[max(0, end - self.tail) : end]
                if self._may_end(row, tail, signalled) and (done := self._completion(row)):
                    found[slot] = done
                    break
            row.cached = len(row.text.tokens) - 1
        return found

    @torch.inference_mode()
    def _answer_alone(self, row: Row) -> Completion:
        """The answer of one row by the model's own `generate`."""
        last = [Chunk(0, 0, row.text.tokens)]
        if self.own.far(len(row.text.tokens)):  # frequencies stay what the longest row made them
            self.own.decode([row.request.prompt[:1]])
        return answer(
            self.model,
            row.text.tokens,
            row.budget,
            lambda logits: self._choose(logits, [row], last)[0][0],
            lambda token: self._grow([row], [[token]]).get(0),
        )

    def _may_end(self, row: Row, tail: list[int], signalled: bool) -> bool:
        """Whether the last token finishes the answer: by itself, by their number, or by its text.

        `signalled`: there is a stop text in this token or one that came with it.
        """
        if row.text.tokens[-1] in self.decoding.end_ids or row.count >= row.budget:
            return True
        return signalled and any(signal in self._decode([tail])[0] for signal in self.signals)

    def _completion(self, row: Row) -> Completion | None:
        """The answer, if it is finished."""
        last = row.text.tokens[-1] in self.decoding.end_ids
        tokens = row.answer_tail(row.count)
        completion = complete(
            lambda ids: self._decode([ids])[0], tokens, last, row.request, self.decoding
        )
        spent = row.count >= row.budget
        return completion if completion.finish != "length" or spent else None

    def _leave(self, cache: BlockCache, live: list[Row], slots: list[int]) -> None:
        """Take finished rows out; the last row moves into each slot that becomes free."""
        for slot in sorted(slots, reverse=True):
            last = live.pop()
            if slot < len(live):
                cache.copy(len(live), slot, last.cached)
                live[slot] = last

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def _row(self, request: Request) -> Row:
        budget = self.decoding.budget(request)
        draws = None
        if self.decoding.temperature > 0:
            generator = torch.Generator().manual_seed(self.decoding.row_seed(request))
            draws = torch.rand(budget, generator=generator, dtype=torch.float64)
        return Row(request, budget, draws, Lookup(request.prompt))


def accepted(chunk: Chunk, chosen: list[int]) -> list[int]:
    """The chosen tokens up to the first that follows a wrong guess."""
    guess = chunk.tokens[len(chunk.tokens) - chunk.wanted + 1 :]
    right = 0
    while right < len(guess) and guess[right] == chosen[right]:
        right += 1
    return chosen[: right + 1]


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps a token of its own."""
    shortest, first = min(map(len, prompts)), prompts[0]
    same = 0
    while same < shortest - 1 and all(p[same] == first[same] for p in prompts):
        same += 1
    return same if len(prompts) > 1 else 0


def rows_that_fit(model: PreTrainedModel, columns: int) -> int:
    """Rows that do well on the model's device and find room in its free memory."""
    kind = model.device.type
    free = psutil.virtual_memory().available if kind == "cpu" else torch.cuda.mem_get_info()[0]
    room = int(CACHE_SHARE[kind] * free / (bytes_per_token(model) * columns))
    return max(1, min(room, MOST_ROWS[kind]))
