"""The `outcomes` stage: a model answers a benchmark's problems, and its programs are judged.

Inputs: `adapter`, or none for the untuned model. Writes `samples.jsonl` (which EvalPlus reads),
`per_problem.parquet`, `scores.json` and `prompts.txt`, and `preferences.parquet` if asked.
Finished answers and finished judgements are kept in the job's own scratch folder, so that a killed
stage does nothing twice and nothing is ever taken over from another model, adapter or prompt.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaq.evaluation import benchmarks, sandbox
from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.config import OutcomesStage
from qaq.evaluation.judge.ahead import judging_ahead
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import JudgeResult, Sample
from qaq.evaluation.scores import Answers, summarise
from qaq.host.hardware import resolve_device
from qaq.host.progress import Progress
from qaq.store.jobs import Job
from qaq.store.tables import (
    PER_PROBLEM,
    PREFERENCES,
    read_json,
    write_json,
    write_jsonl,
    write_rows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qaq.evaluation.generation.generate import Completion, Decoding, Generator
    from qaq.evaluation.prompts import Asker, Prompt
    from qaq.models.vllm import Served
    from qaq.scoring.engine import Engine
    from qaq.scoring.vllm import VllmEngine

SHOWN = 3  # prompts kept for the reader


def run(job: Job) -> dict[str, Any]:
    """Ask, judge, write down.

    Raises:
        DataError: the benchmark's file is missing or another one than expected.
        ModelError: the model, its chat template or the adapter does not fit.
        SandboxError: no sandbox of the strength asked for.
        UserError: a prompt is longer than the model's context.
    """
    if job.rank != 0:
        return {}
    config = job.parse(OutcomesStage)
    benchmark = benchmarks.load(
        config.suite, tasks=config.tasks, limit=config.limit, suite=config.spec
    )
    benchmarks.refuse_untested(benchmark)
    settings = JudgeSettings.of(config.eval, job.runtime.judge_workers)
    level = sandbox.choose(settings.sandbox)  # before hours of generation, not after
    way = f"EvalPlus ({settings.judge})" if benchmark.judge == "evalplus" else benchmark.judge
    line = f"{job.name}: to be judged by {way} inside {level.describe()}"
    print(line, file=sys.stderr, flush=True)
    workdir = job.scratch / "judge"
    ahead = judges_ahead(job, config, benchmark)
    with judging_ahead(benchmark, settings, workdir) if ahead else nullcontext() as take:
        answers = ask(job, config, benchmark, take)
        answered = time.monotonic()  # what was begun ahead is waited for from here on
    with Progress(f"judging {job.name}", len(answers.samples), "programs") as progress:
        verdict = judge(
            benchmark,
            answers.samples,
            settings,
            workdir,
            lambda done, total: progress.update(done - progress.count),
        )
    verdict = replace(verdict, seconds=round(time.monotonic() - answered, 3))
    return publish(job, config, benchmark, answers, verdict)


def judges_ahead(job: Job, config: OutcomesStage, benchmark: Benchmark) -> bool:
    """Whether answers are judged as they come: unless set, where a card or a server writes them.

    Answers that are written on the judge's own cores would take the time that its limits count.
    """
    if benchmark.judge not in ("evalplus", "stdio") or config.eval.judge == "stock":
        return False  # one's own may want all samples at once; stock has limits too near
    elsewhere = config.eval.generator == "vllm" or resolve_device(job.runtime.device) != "cpu"
    return elsewhere if job.runtime.judge_ahead is None else job.runtime.judge_ahead


def ask(
    job: Job,
    config: OutcomesStage,
    benchmark: Benchmark,
    take: Callable[[Sample], None] | None = None,
) -> Answers:
    """Generate what is missing, then read the canonical solutions.

    Every answer is given to `take` as it comes, those of an earlier try first.
    """
    from qaq.evaluation.generation.generate import Journal, Request
    from qaq.evaluation.prompts import check_lengths, make_asker
    from qaq.models.load import load_tokenizer

    known = config.model, load_tokenizer(config.model), config.system_prompt
    adapter = job.inputs.get("adapter")
    asker = make_asker(config.eval.prompt, *known, adapter, benchmark.prompt)
    bits_prompt = config.eval.bits_prompt
    reader = make_asker(bits_prompt, *known, adapter, benchmark.prompt) if bits_prompt else asker
    decoding = decide(config, benchmark, asker)
    prompts = [asker.prompt(problem) for problem in benchmark.problems]
    check_lengths(prompts, decoding.context)
    show(prompts, job.out / "prompts.txt")
    requests = [
        Request(prompt.task_id, index, prompt.ids, prompt.sha, problem.entry_point)
        for prompt, problem in zip(prompts, benchmark.problems, strict=True)
        for index in range(config.eval.samples)
    ]
    problems = benchmark.by_id()

    def sample(c: "Completion") -> Sample:
        return Sample(c.task_id, c.index, asker.program(problems[c.task_id], c.text))

    def finished(c: "Completion") -> "Completion":
        if take is not None:
            take(sample(c))
        return c

    journal = Journal(job.scratch / "samples.jsonl")
    loaded = Loaded(job, config)
    if missing := journal.missing(requests):
        if take is not None:
            for request in set(requests) - set(missing):
                take(sample(journal.done[request.task_id, request.index]))
        generator = loaded.generator(asker, decoding)
        done = len(requests) - len(missing)
        with Progress(f"answering {job.name}", len(requests), "answers", done) as progress:
            journal.extend(map(finished, generator(missing)), progress)
        del generator
    bits: dict[str, float | None] = dict.fromkeys(p.task_id for p in benchmark.problems)
    if config.eval.bits:
        bits = solution_bits(benchmark, reader, decoding, loaded)
    if config.eval.preference:
        prefer(benchmark, reader, decoding, loaded)
    loaded.release()
    completions = tuple(journal.done[r.task_id, r.index] for r in requests)
    return Answers(completions, tuple(map(sample, completions)), bits)


class Loaded:
    """The model with its adapter inside, loaded or found on its servers when it is first needed."""

    def __init__(self, job: Job, config: OutcomesStage):
        self.job, self.config = job, config
        self.loaded: PreTrainedModel | None = None
        self.found: Served | None = None

    def model(self) -> "PreTrainedModel":
        """The model."""
        from qaq.models.load import load_model

        if self.loaded is None:
            device, adapter = self.job.runtime.device, self.job.inputs.get("adapter")
            self.loaded = load_model(self.config.model, device, adapter=adapter)
        return self.loaded

    def served(self) -> "Served":
        """The servers that have the model."""
        from qaq.models.vllm import Served

        if self.found is None:
            urls = self.job.runtime.vllm[self.config.model.id]
            self.found = Served(self.config.model, urls, self.job.inputs.get("adapter"))
            servers = len(self.found.replicas)
            self.job.record().log(None, engine=self.found.version, servers=servers)
        return self.found

    def generator(self, asker: "Asker", decoding: "Decoding") -> "Generator":
        """The configured generator, ready to answer."""
        if self.config.eval.generator == "vllm":
            from qaq.evaluation.generation.vllm import VllmGenerator

            return VllmGenerator(self.served(), asker.tokenizer, decoding)
        from qaq.evaluation.generation.hf import HfGenerator

        batch = self.job.runtime.generation_batch
        return HfGenerator(self.model(), asker.tokenizer, decoding, batch)

    def reader(self) -> "Engine | VllmEngine":
        """What reads the canonical solutions: what wrote the answers."""
        from qaq.scoring.engine import Engine
        from qaq.scoring.vllm import VllmEngine

        vllm = self.config.eval.generator == "vllm"
        return VllmEngine(self.served()) if vllm else Engine(self.model())

    def release(self) -> None:
        """Give the memory back, before the judge needs it."""
        import torch

        self.loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def decide(config: OutcomesStage, benchmark: Benchmark, asker: "Asker") -> "Decoding":
    """How answers are written: the configuration, and what model and prompt mode ask for."""
    from qaq.evaluation.generation.generate import Decoding, model_limits

    context, end_ids = model_limits(config.model)
    return Decoding(
        max_new_tokens=config.eval.max_new_tokens,
        stops=asker.stops(benchmark.format),
        end_ids=asker.end_ids | end_ids,
        context=context,
        temperature=config.eval.temperature,
        seed=config.eval.seed,
        continues=asker.continues,
    )


def solution_bits(
    benchmark: Benchmark, asker: "Asker", decoding: "Decoding", loaded: Loaded
) -> dict[str, float | None]:
    """Bits per byte by task, computed once."""
    from qaq.evaluation.bits import bits_per_byte

    file = loaded.job.scratch / "bits.json"
    if not file.exists():
        solved = [p for p in benchmark.problems if p.canonical_solution.strip()]
        references = [asker.reference(problem) for problem in solved]
        budget = loaded.job.runtime.token_budget
        found = bits_per_byte(loaded.reader(), references, budget, decoding.context)
        write_json(file, {p.task_id: found.get(p.task_id) for p in benchmark.problems})
    bits: dict[str, float | None] = read_json(file)
    return bits


def prefer(benchmark: Benchmark, asker: "Asker", decoding: "Decoding", loaded: Loaded) -> None:
    """Write whether right solutions are likelier than corrupted ones, computed once."""
    from qaq.evaluation.preference import preferences

    file = loaded.job.out / "preferences.parquet"
    if not file.exists():
        of, budget = benchmark.problems, loaded.job.runtime.token_budget
        rows = preferences(loaded.reader(), asker, of, budget, decoding.context)
        write_rows(file, rows, PREFERENCES)


def show(prompts: "Sequence[Prompt]", path: Path) -> None:
    """Keep the first prompts as the model reads them, for the reader."""
    parts = [f"=== {p.task_id}, {len(p.ids)} tokens ===\n{p.text}\n" for p in prompts[:SHOWN]]
    path.write_text("\n".join(parts), encoding="utf-8")


def publish(
    job: Job, config: OutcomesStage, benchmark: Benchmark, answers: Answers, verdict: JudgeResult
) -> dict[str, Any]:
    """Write the artifact; returns its figures in short."""
    rows, lines = [], []
    for completion, sample, outcome in zip(
        answers.completions, answers.samples, verdict.outcomes, strict=True
    ):
        shared = {
            "task_id": outcome.task_id,
            "sample": outcome.index,
            "failure": outcome.failure,
            "prompt_sha": completion.prompt_sha,
            "completion_sha": completion.sha,
            "new_tokens": completion.new_tokens,
        }
        rows.append(
            shared
            | {
                "benchmark": config.suite,
                "base_passed": outcome.base_passed,
                "plus_passed": outcome.plus_passed,
                "suspect": outcome.suspect,
                "solution_bits_per_byte": answers.bits[outcome.task_id],
            }
        )
        lines.append(
            shared
            | {
                "solution": outcome.solution,
                "raw": sample.raw,
                "completion": completion.text,
                "finish": completion.finish,
                "base_status": outcome.base_status,
                "plus_status": outcome.plus_status,
                "flipped": outcome.flipped,
            }
        )
    write_rows(job.out / "per_problem.parquet", rows, PER_PROBLEM)
    write_jsonl(job.out / "samples.jsonl", lines)
    scores = summarise(config, benchmark, answers, verdict)
    scores |= {"device": resolve_device(job.runtime.device)}
    write_json(job.out / "scores.json", scores)
    record = job.record()
    record.log(None, **{k: v for k, v in scores.items() if isinstance(v, (int, float, str))})
    record.close()
    rates = ("pass_at_1_base", "pass_at_1_plus", "bits_per_byte", "problems")
    shown = (*rates, "at_limit", "no_code", "cut", "judge", "sandbox")
    counted = {name: len(scores[name]) for name in ("suspects", "flips") if scores[name]}
    return {name: scores[name] for name in shown} | counted
