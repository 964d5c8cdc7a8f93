"""The `synthesis` stage: models write a pool's questions and answers.

    empty user's turn --> questions --> each once --> answers --> pairs.jsonl, left_out.json

Every finished text is in a journal at once, so a killed stage writes nothing twice; a row's text
depends on its number and the seed, not on the batch that it was written in.
"""

from collections import Counter
from typing import Any

from qaq.data.synthesis import SynthesisConfig
from qaq.evaluation.generation.generate import Completion, Decoding, Journal, Request, model_limits
from qaq.evaluation.prompts import Stops
from qaq.host.errors import DataError
from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.template import ChatTemplate, chat_template, text_ids
from qaq.store.jobs import Job
from qaq.store.tables import write_json, write_jsonl
from qaq.synthesis import writing


def run(job: Job) -> dict[str, Any]:
    """Write the pool.

    Raises:
        DataError: no question was finished.
        ModelError: a model or its chat template does not fit.
    """
    if job.rank != 0:
        return {}
    config = job.parse(SynthesisConfig)
    asked = _Writer(job, config.questioner, config.question_prompt)
    written = asked.write(
        writing.question_requests(asked.layout, config.questions),
        config.question_temperature,
        config.question_tokens,
        config,
        "questions",
    )
    del asked
    kept = writing.keep(written)
    if not kept.questions:
        raise DataError(
            f"{config.questioner.name} finished none of {config.questions} questions "
            f"({dict(kept.left_out)}); raise synthesis.question_tokens or look at question_prompt"
        )
    weights = {name: answerer.weight for name, answerer in config.answerers.items()}
    who = writing.assign(kept.questions, weights, config.seed)
    answers: dict[int, Completion] = {}
    for name, answerer in sorted(config.answerers.items()):
        numbers = [number for number in kept.questions if who[number] == name]
        writer = _Writer(job, answerer.model, config.answer_prompt)
        requests = [writer.answer_request(n, kept.questions[n]) for n in numbers]
        done = writer.write(
            requests, config.answer_temperature, config.answer_tokens, config, f"answers-{name}"
        )
        answers |= dict(zip(numbers, done, strict=True))
        del writer
    return _publish(job, kept, who, answers)


class _Writer:
    """A model that writes, loaded when there is something to write."""

    def __init__(self, job: Job, model: ModelConfig, system_prompt: str | None):
        from qaq.models.load import load_tokenizer

        self.job, self.config = job, model
        self.tokenizer = load_tokenizer(model)
        self.layout: ChatTemplate = chat_template(self.tokenizer, model, system_prompt)

    def answer_request(self, number: int, question: str) -> Request:
        """The request for the answer to a question."""
        return writing.answer_request(self.layout, number, text_ids(self.tokenizer, question))

    def write(
        self,
        requests: list[Request],
        temperature: float,
        most: int,
        config: SynthesisConfig,
        name: str,
    ) -> list[Completion]:
        """The completions of all requests, in their order."""
        context, ends = model_limits(self.config)
        decoding = Decoding(
            max_new_tokens=most,
            stops=Stops(()),
            end_ids=ends | self._end_of_turn(),
            context=context,
            temperature=temperature,
            seed=config.seed,
            top_p=config.top_p,
        )
        journal = Journal(self.job.scratch / f"{name}.jsonl")
        if missing := journal.missing(requests):
            self._generate(missing, decoding, journal, name, len(requests))
        return [journal.done[r.task_id, r.index] for r in requests]

    def _generate(
        self, missing: list[Request], decoding: Decoding, journal: Journal, name: str, total: int
    ) -> None:
        from qaq.evaluation.generation.hf import HfGenerator
        from qaq.models.load import load_model

        runtime = self.job.runtime
        model = load_model(self.config, runtime.device)
        generator = HfGenerator(model, self.tokenizer, decoding, runtime.generation_batch)
        with Progress(f"writing {name}", total, "texts", total - len(missing)) as progress:
            journal.extend(generator(missing), progress)

    def _end_of_turn(self) -> frozenset[int]:
        """The token behind a turn: the user's is the first of `turn` that text cannot hold."""
        special = set(self.tokenizer.all_special_ids)
        found = [
            next((t for t in ids if t in special), None)
            for ids in (self.layout.turn_ids, self.layout.tail_ids)
        ]
        return frozenset(t for t in found if t is not None)


def _publish(
    job: Job, kept: writing.Kept, who: dict[int, str], answers: dict[int, Completion]
) -> dict[str, Any]:
    left_out = Counter(kept.left_out)
    rows = []
    for number, question in kept.questions.items():
        answer = answers[number]
        text = answer.text.strip()
        if answer.finish == "length":
            left_out["answer_unfinished"] += 1
        elif not text:
            left_out["answer_empty"] += 1
        else:
            rows.append(
                {"instruction": question, "output": text, "source": who[number], "number": number}
            )
    write_jsonl(job.out / "pairs.jsonl", rows)
    write_json(job.out / "left_out.json", dict(left_out))
    return {"rows": len(rows), **left_out}
