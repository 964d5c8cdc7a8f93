"""Judge what is answered while the rest is still being answered.

For where a card or a server writes the answers and this machine's cores would wait. The verdicts go
into the judge's journal, in which the judgement proper finds them; so whatever goes wrong here, or
is left, is judged and reported there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import Sample


@contextmanager
def judging_ahead(
    benchmark: Benchmark, settings: JudgeSettings, workdir: Path
) -> Iterator[Callable[[Sample], None]]:
    """Inside, samples given to the yielded function are judged, on all cores but one.

    Waits at the end for the samples that have been begun. After an exception it does not wait: they
    end with this process.
    """
    waiting: SimpleQueue[Sample | None] = SimpleQueue()
    spared = replace(settings, workers=max(1, settings.parallel - 1))

    def work() -> None:
        with suppress(Exception):  # the judgement proper meets it again
            while samples := _next(waiting):
                tasks = {sample.task_id for sample in samples}
                chosen = tuple(p for p in benchmark.problems if p.task_id in tasks)
                judge(replace(benchmark, problems=chosen), samples, spared, workdir)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield waiting.put
    waiting.put(None)
    thread.join()


def _next(waiting: SimpleQueue[Sample | None]) -> list[Sample]:
    """The samples that wait, at least one; none once no more will come: all cores are free then."""
    samples = [waiting.get()]
    with suppress(Empty):
        while True:
            samples.append(waiting.get_nowait())
    return [] if None in samples else [s for s in samples if s is not None]
