"""A Hydra multirun: every job is checked before the first starts; what they share is made once.

Jobs run through whatever launcher Hydra is told to use. A job does not raise: what it made and
what failed is read from the store afterwards, wherever the launcher ran it.
"""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from qaq.compose import compose, expand, open_fields, tree_of
from qaq.config import validate
from qaq.errors import QaqError
from qaq.experiment import execute
from qaq.models.identity import conf_dir
from qaq.pipeline import plan
from qaq.store import Store


def sweep(overrides: list[str]) -> int:
    """Run all jobs of a sweep; returns 0 if all of them have their report, else 1.

    Raises:
        ConfigError: a job cannot be composed; nothing has started then.
    """
    jobs = [(job, compose(job)) for job in expand(overrides)]
    print(f"sweep of {len(jobs)} jobs", flush=True)
    keep, sys.argv = sys.argv, ["qaq", "--multirun", *open_fields(overrides)]
    try:
        hydra.main(
            version_base="1.3", config_path=str(conf_dir().absolute()), config_name="config"
        )(one_job)()
    finally:
        sys.argv = keep
    missing = []
    for job, config in jobs:
        report = plan(config)[-1]
        if Store(config.runtime.store).find(report.kind, report.key) is None:
            missing.append(" ".join(job))
    print(f"\n{len(jobs) - len(missing)} of {len(jobs)} jobs are complete")
    for job_line in missing:
        print(f"  incomplete; to go on: qaq run {job_line}")
    return 1 if missing else 0


def one_job(composed: DictConfig) -> int:
    """What a launcher calls for each job."""
    try:
        config = validate(tree_of(OmegaConf.to_container(composed, resolve=True)))
        return execute(config, lambda line: print(line, flush=True))
    except QaqError as error:
        print(f"qaq: {error}", file=sys.stderr, flush=True)
        return error.exit_code
