"""A progress bar over the rows that the stages of this process's children have scored."""

import contextlib
from threading import Event, Thread
from typing import Any

import pyarrow.parquet as pq
from tqdm.auto import tqdm

from qaq.run.config import Config
from qaq.run.stage import Stage
from qaq.store.store import Store

EVERY = 0.5  # seconds


class Bar:
    """Watches the shards in the store while it is open; a notebook shows it as its own kind."""

    def __init__(self, stages: dict[str, Stage], config: Config):
        self._store = Store(config.runtime.store)
        self._pairs = stages["pairs"]
        self._scored = [stage for role, stage in stages.items() if role != "pairs"]
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._bar: Any = None

    def __enter__(self) -> None:
        self._bar = tqdm(desc="scoring", unit=" rows")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._bar.close()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self._look()

    def _look(self) -> None:
        pool = self._store.find(self._pairs.kind, self._pairs.key)
        if pool is None:
            return
        self._bar.total = int(pool.manifest["summary"]["rows"]) * len(self._scored)
        self._bar.update(sum(map(self._rows, self._scored)) - self._bar.n)

    def _rows(self, stage: Stage) -> int:
        made = self._store.find(stage.kind, stage.key)
        folder = made.path if made else self._store.work_folder(stage.kind, stage.key) / "out"
        with contextlib.suppress(OSError, ValueError):  # gone, or torn
            shards = list((folder / "shards").glob("part-*.parquet"))
            return sum(pq.read_metadata(shard).num_rows for shard in shards)
        return 0
