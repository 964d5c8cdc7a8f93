"""A model's states of many sequences at once, each as if it were alone.

Three ways, the first that `verify` lets pass:

packed  sequences end to end without padding, shared beginnings once, one attention function of our
        own (`attention`), faster forwards of Linear layers, norms and gated MLPs (`swaps`). The
        decoder is the model's own code with its own weights
padded  the model's own forward on several rows, padded on the right
rows    the model's own forward, one row at a time

The way is a matter of speed, never of numbers. What a model, a new architecture or a release of
Transformers breaks inside a faster way leads to the next one, with a line in the log.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qaq.host.terminal import notice
from qaq.models.forward import proven
from qaq.models.forward.attention import Packed, attending
from qaq.models.forward.attention_check import attention_problem
from qaq.models.forward.batching import packed_batches, padded_batches
from qaq.models.forward.packing import Ids, pack
from qaq.models.forward.swaps import Swaps, replaced
from qaq.models.forward.verify import (
    Run,
    changes_at,
    check_causal,
    closeness,
    make_probe,
    moved_by_rounding,
    places,
    too_far,
    verify,
)

WAYS = ("packed", "padded", "rows")


class Forward:
    """A model ready to run.

    Attributes:
        way: one of `WAYS`.
        reasons: why a faster way is not used, by its name.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        take_over: bool = False,
        ways: Sequence[str] = WAYS,
        purpose: str = "running",
        head: bool = True,
    ):
        """Find the fastest way that gives the model's own states.

        Args:
            model: in evaluation mode.
            take_over: nobody else runs this model; weights that are repacked are freed.
            ways: those to try, in this order; `rows` is always there.
            purpose: the line in the log begins with it.
            head: logits will be asked for; without it ways are compared by their states.

        Raises:
            ModelError: the model is not causal, so that its scores are no likelihoods.
        """
        self.model, self.device = model, model.device
        self.own = model.forward  # whatever is put in its place later
        self.decoder: Any = model.get_decoder()
        self.swaps: Swaps | None = None
        self.reasons: dict[str, str] = {}
        self.way = "rows"
        self.output: Any = None  # of the decoder, where logits are made of its states alone
        self.whole = False  # only logits of the whole model are to be had; they stand for states
        self._moved: list[float] | None = None
        self.changes_at = changes_at(model)
        self.probe = make_probe(model)
        if head:
            self._find_head()
        with torch.inference_mode():
            check_causal(self._rows, self.logits, self.probe, model)
            self.way = self._choose(ways, take_over)
        if self.reasons:
            why = "; ".join(f"not {way}: {reason}" for way, reason in self.reasons.items())
            notice(f"{purpose} with the model's own forward, {self.way}, {why}")

    def on(self, model: PreTrainedModel) -> "Forward":
        """The same way, which was found without faster modules, on a model of this architecture."""
        other = copy.copy(self)
        other.model, other.own, other.decoder = model, model.forward, model.get_decoder()
        return other

    def batches(self, sequences: Sequence[Ids], budget: int) -> Iterator[list[int]]:
        """Indices of batches that suit this way, of at most `budget` tokens if sequences allow."""
        return (packed_batches if self.way == "packed" else padded_batches)(sequences, budget)

    @torch.inference_mode()
    def __call__(self, sequences: Sequence[Ids], wanted: Sequence[Sequence[int]]) -> Tensor:
        """The states that the output head is applied to.

        Args:
            wanted: for each sequence the tokens whose states are asked for, from 0.

        Returns:
            [all wanted, hidden], sequence by sequence.
        """
        run = {"packed": self._packed, "padded": self._padded, "rows": self._rows}[self.way]
        return run(sequences, wanted)

    def logits(self, states: Tensor) -> Tensor:
        """What the model makes of states [n, hidden] behind its decoder: logits [n, vocabulary].

        The model's own forward, its decoder giving these states: so scaled and capped as it does.
        """
        if self.whole or self.output is None:
            return states
        output = copy.copy(self.output)
        output.last_hidden_state = states[None]
        ids = torch.zeros(1, len(states), dtype=torch.long, device=self.device)
        with self._swapped(), replaced({self.decoder: lambda *_, **__: output}):
            found: Tensor = self.own(input_ids=ids, use_cache=False).logits[0]
        return found

    def _packed(self, sequences: Sequence[Ids], wanted: Sequence[Sequence[int]]) -> Tensor:
        if self.far(max(map(len, sequences))):
            return self._rows(sequences, wanted)
        made = pack(sequences)
        index = torch.tensor(
            [path[at] for path, these in zip(made.paths, wanted, strict=True) for at in these],
            device=self.device,
            dtype=torch.long,
        )
        assert self.swaps is not None
        self.swaps.wanted = len(made.ids), torch.unique(index)
        try:
            with attending(self.model), self._swapped():
                states = self.decode(
                    [made.ids],
                    position_ids=torch.tensor(made.positions, device=self.device)[None],
                    segments=Packed(made, self.device),
                )
        finally:
            self.swaps.wanted = None
        return states[0].index_select(0, index)

    def _padded(self, sequences: Sequence[Ids], wanted: Sequence[Sequence[int]]) -> Tensor:
        if self.far(max(map(len, sequences))):
            return self._rows(sequences, wanted)
        width, filler = max(map(len, sequences)), sequences[0][0]  # any: `verify` varies it
        with self._swapped():
            states = self.decode([(*ids, *(filler,) * (width - len(ids))) for ids in sequences])
        rows = zip(states, wanted, strict=True)
        return torch.cat([row[torch.tensor(at, dtype=torch.long)] for row, at in rows])

    def _rows(self, sequences: Sequence[Ids], wanted: Sequence[Sequence[int]]) -> Tensor:
        found = []
        with self._swapped():
            for ids, at in zip(sequences, wanted, strict=True):
                if self.far(len(ids)):  # frequencies stay what the longest row so far made them
                    self.decode([ids[:1]])
                found.append(self.decode([ids])[0][torch.tensor(at, dtype=torch.long)])
        return torch.cat(found)

    def decode(self, rows: Sequence[Ids] | Tensor, **more: Any) -> Tensor:
        """States [rows, tokens, hidden] of equally long rows, by the model as it is now."""
        ids = rows if isinstance(rows, Tensor) else torch.tensor(rows, device=self.device)
        if self.whole:
            logits: Tensor = self.own(input_ids=ids, use_cache=False, **more).logits
            return logits
        states: Tensor = self.decoder(input_ids=ids, use_cache=False, **more).last_hidden_state
        return states

    def far(self, longest: int) -> bool:
        """Whether a batch with so long a row is run row by row (`changes_at`)."""
        return self.changes_at is not None and longest >= self.changes_at

    def _swapped(self) -> contextlib.AbstractContextManager[None]:
        return self.swaps() if self.swaps else contextlib.nullcontext()

    @torch.inference_mode()
    def _find_head(self) -> None:
        """See whether logits come from states alone, through the model's own forward."""
        ids = self.probe.rows[0][:16]
        own = self.own(input_ids=torch.tensor([ids], device=self.device), use_cache=False)
        if self.decoder is self.model:
            self.whole = True
            return
        try:
            self.output = self.decoder(
                input_ids=torch.tensor([ids], device=self.device), use_cache=False
            )
            found = self.logits(self.output.last_hidden_state[0])
            same = found.shape == own.logits[0].shape and closeness(found, own.logits[0]) < 1e-2
        except Exception as error:  # an architecture that is put together in another way
            same = False
            self.reasons["packed"] = describe(error)
        self.whole = not same

    def _choose(self, ways: Sequence[str], take_over: bool) -> str:
        """The first way that `verify` finds nothing against."""
        for way in [way for way in ways if way != "rows"]:
            problem = tried(partial(self._problem, way, take_over))
            if problem is None:
                return way
            self._forget()
            self.reasons.setdefault(way, problem)
        return "rows"

    def _problem(self, way: str, take_over: bool) -> str | None:
        if self.whole:
            return "its logits are not made of the decoder's states alone"
        if self.changes_at == 0:
            return "its rotary embedding may depend on the longest row of a batch"
        model, dtype = self.model, self.model.dtype
        case = f"{way}, {'states' if self.output is None else 'logits'}"
        repacked = f"{case}, repacked"
        asked = (case, repacked) if way == "packed" else (case,)
        # before anything is changed in the model
        alone = [] if proven.known(model, *asked) else self.alone()
        if way == "padded":
            run, probe = self._logits_by(self._padded), self.probe.short()
            own = self.moved
            return proven.once(model, case, lambda: verify(run, alone[:-1], probe, dtype, own))
        run, probe = self._logits_by(self._packed), self.probe

        def ask() -> str | None:
            problem = attention_problem(model, self.decode, probe.rows[-1], self.device)
            self.swaps = Swaps(model, repack=False)
            return problem or verify(run, alone, probe, dtype, self.moved)

        problem = proven.once(model, case, ask)
        if problem is None:
            swaps = Swaps(model, repack=True, release=take_over)
            if swaps.repacked or self.swaps is None:
                self.swaps = swaps
            if swaps.repacked:
                problem = proven.once(
                    model, repacked, lambda: too_far(run(probe.rows), alone, dtype, self.moved)
                )
        return problem

    def _forget(self) -> None:
        """The model as it was."""
        if self.swaps:
            self.swaps.undo()
        self.swaps = None

    def alone(self) -> list[Tensor]:
        """Logits of each row of the probe, run alone, at the places that are compared."""
        return self._logits_by(self._rows)(self.probe.rows)

    def moved(self) -> list[float]:
        """How far rounding moves each of these, by the modules as loaded if they are there."""
        if self._moved is None:
            swaps = self.swaps
            self.swaps = swaps if swaps and swaps.repacked else None
            try:
                self._moved = moved_by_rounding(self.alone, self.model)
            finally:
                self.swaps = swaps
        return self._moved

    def _logits_by(self, way: Callable[..., Tensor]) -> Run:
        """Logits at the places that are compared, of each sequence."""

        def run(sequences: Sequence[Ids]) -> list[Tensor]:
            wanted = places(sequences)
            states = way(sequences, wanted)
            return [self.logits(part) for part in torch.split(states, [len(at) for at in wanted])]

        return run


def tried(ask: Callable[[], str | None]) -> str | None:
    """What is wrong with a way of running a model: what is said of it, or what breaks in it.

    Whatever that is, and be it that memory is too small for the check, the model's own forward does
    without it.
    """
    try:
        return ask()
    except Exception as error:
        problem = describe(error)
    if torch.cuda.is_available():  # behind the error, which keeps the tensors of its frames
        torch.cuda.empty_cache()
    return problem


def describe(error: Exception) -> str:
    """An error on one line, for the log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
