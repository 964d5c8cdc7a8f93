"""The same requests answered by vLLM, which batches by itself, behind the same interface.

Answers are read token by token as they are written, so that one which has solved its problem, or
holds a stop text, ends there, on the server too; what ends an answer is decided here alone.
"""

from collections.abc import Iterator, Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.evaluation.generation.generate import Completion, Decoding, Request, complete
from qaq.models.vllm import Served
from qaq.models.vllm_requests import Replica, events


class VllmGenerator:
    """Answers by a served model; `served` has its adapter, if any."""

    def __init__(self, served: Served, tokenizer: PreTrainedTokenizerBase, decoding: Decoding):
        self.served, self.tokenizer, self.decoding = served, tokenizer, decoding
        self.signals = decoding.stops.signals
        # A stop text of n bytes lies in the last n tokens, since no token is shorter than a byte
        self.tail = 1 + max((len(s.encode()) for s in self.signals), default=0)

    def __call__(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer all requests, in the order in which they are finished."""
        longest = max((len(r.prompt) + self.decoding.budget(r) for r in requests), default=0)
        self.served.refuse_longer(longest)
        for _, completion in self.served.each(self._answer, requests):
            yield completion

    def _answer(self, request: Request, replica: Replica) -> Completion:
        tokens: list[int] = []
        for piece in events(replica, self._body(request, replica)):
            for token in piece["token_ids"] or ():
                tokens.append(token)
                if token in self.decoding.end_ids:
                    return self._completion(request, tokens, ended=True)
                if self._signalled(tokens):
                    completion = self._completion(request, tokens, ended=False)
                    if completion.finish == "stop":
                        return completion
        if len(tokens) < self.decoding.budget(request):
            raise OSError(f"an answer ended after {len(tokens)} tokens without an end")
        return self._completion(request, tokens, ended=False)

    def _body(self, request: Request, replica: Replica) -> dict[str, object]:
        """All that chooses a token; else the server takes the model's `generation_config.json`."""
        decoding = self.decoding
        sampled = decoding.temperature > 0
        return {
            "model": replica.model,
            "prompt": list(request.prompt),
            "max_tokens": decoding.budget(request),
            "temperature": decoding.temperature,
            "top_p": decoding.top_p if sampled else 1.0,
            "seed": decoding.row_seed(request) if sampled else None,
            "top_k": -1,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": sorted(decoding.end_ids),
            "return_token_ids": True,
            "skip_special_tokens": False,
        }

    def _signalled(self, tokens: list[int]) -> bool:
        """Whether a stop text may have ended with the last token."""
        if not self.signals:
            return False
        text = self._decode(tokens[-self.tail :])
        return any(signal in text for signal in self.signals)

    def _completion(self, request: Request, tokens: list[int], ended: bool) -> Completion:
        return complete(self._decode, tokens, ended, request, self.decoding)

    def _decode(self, tokens: list[int]) -> str:
        return str(
            self.tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
