"""The same requests answered by vLLM (`pip install vllm`, a GPU), behind the same interface.

vLLM batches by itself. It gets the stop texts; where an answer also ends behind a code block,
the rest is cut off afterwards.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qaq.evaluation.generation.generate import Completion, Decoding, Request, complete
from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.identity import parts
from qaq.models.load import load_model, location
from qaq.store.tables import read_json

PORTION = 512  # requests handed over at once
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM makes room for


class VllmGenerator:
    """An engine in this process; an adapter is applied unmerged, as a LoRA request."""

    def __init__(
        self,
        config: ModelConfig,
        decoding: Decoding,
        adapter: Path | None,
        dtype: str,
        longest: int,
    ):
        """Load the model, with room for sequences of `longest` tokens.

        Raises:
            ModelError: vLLM is not installed.
        """
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise ModelError(
                f"eval.generator=vllm needs the package vllm ({error}); install it with "
                "pip install vllm, or use eval.generator=hf"
            ) from error
        self.vllm, self.decoding = vllm, decoding
        if parts(config)[1] is not None:
            raise ModelError(
                f"{config.label}: eval.generator=vllm takes no adapter's folder as model; merge it "
                "(merge_and_unload, save_pretrained), or use eval.generator=hf"
            )
        load_model(config, "cpu", dtype)  # refused here if a part of it does not load
        where = location(config)
        lora: dict[str, Any] = {}
        if adapter:
            rank = read_json(adapter / "adapter_config.json")["r"]
            lora = {"enable_lora": True, "max_lora_rank": min(r for r in RANKS if r >= rank)}
        self.engine = vllm.LLM(
            model=where["pretrained_model_name_or_path"],
            revision=where.get("revision"),
            trust_remote_code=bool(where.get("trust_remote_code")),
            dtype=dtype,
            max_model_len=longest,
            seed=decoding.seed,
            **lora,
        )
        self.lora = LoRARequest("adapter", 1, str(adapter)) if adapter else None

    def __call__(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer all requests, in portions, so that a killed run has lost at most one."""
        for start in range(0, len(requests), PORTION):
            portion = requests[start : start + PORTION]
            outputs = self.engine.generate(
                [{"prompt_token_ids": list(r.prompt)} for r in portion],
                [self._parameters(r) for r in portion],
                lora_request=self.lora,
                use_tqdm=False,
            )
            for request, output in zip(portion, outputs, strict=True):
                yield self._completion(request, output.outputs[0])

    def _parameters(self, request: Request) -> Any:
        decoding = self.decoding
        sampled = decoding.temperature > 0
        return self.vllm.SamplingParams(
            max_tokens=decoding.budget(request),
            temperature=decoding.temperature,
            top_p=decoding.top_p if sampled else 1.0,
            seed=decoding.row_seed(request) if sampled else None,
            stop=list(decoding.stops.texts),
            stop_token_ids=sorted(decoding.end_ids),
            include_stop_str_in_output=True,
        )

    def _completion(self, request: Request, output: Any) -> Completion:
        ended = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
        return complete(output.text, len(output.token_ids), ended, request, self.decoding)
