"""One trial of a sweep: a training loop, local or on Ray, that reports to Ray Tune."""

import contextlib
import os
from pathlib import Path

import ray
from ray import tune

from cluster.sweeps.config import SweepConfig
from cluster.sweeps.search_space import Sample
from rlcar.devices.compile_cache import prepare_jax
from rlcar.errors import NonFiniteError
from rlcar.system.lease import WAIT_S, hold

# The score of a diverged trial: not infinite, because schedulers interpolate between scores.
_WORST = 1e9
_NEVER_S = 1e9  # as an interval


def run_trial(sample: Sample, sweep: SweepConfig, folder: Path) -> None:
    """Trains with one sample of the search space, from the trial's checkpoint if it has one.

    Its run is `<folder>/trials/<name>`. A training that diverges ends the trial with the worst
    score. It is not retried, because it would diverge again.
    """
    # Must be set before JAX is imported; therefore this module does not import it at the top.
    if not ray.get_gpu_ids():
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # trials may share a GPU
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    prepare_jax()
    from rlcar.storage import checkpoint

    run_folder = folder / "trials" / str(tune.get_context().get_trial_name())
    config, cluster = sweep.settings(sample)
    # Tune keeps the checkpoints of a trial: it copies the only one of the run after each report.
    checkpoint_settings = {"checkpoints_kept": 1, "checkpoint_every_s": _NEVER_S}
    config = config.model_copy(
        update={"training": config.training.model_copy(update=checkpoint_settings)}
    )
    env_steps = 0.0

    def report(figures: dict[str, float]) -> None:
        nonlocal env_steps
        env_steps = figures["env_steps"]
        tune.report(figures, checkpoint=tune.Checkpoint.from_directory(run_folder / "checkpoints"))

    def train(save: checkpoint.Save | None) -> None:
        if cluster is None:
            from rlcar.training.loop import train as train_in_one_process

            train_in_one_process(config, run_folder, save, report)
        else:
            from cluster.training.loop import train as train_on_ray

            train_on_ray(config, cluster, run_folder, save, report)

    try:
        stored = tune.get_checkpoint()
        # The process of an earlier attempt may have died a moment ago and still hold the run.
        with hold(run_folder, WAIT_S), contextlib.ExitStack() as stack:
            path = None if stored is None else stack.enter_context(stored.as_directory())
            train(None if path is None else checkpoint.latest(Path(path)))
    except NonFiniteError as error:
        worst = _WORST if sweep.direction == "min" else -_WORST
        reason = {"diverged": True, "reason": str(error)}
        tune.report({"env_steps": env_steps, sweep.metric: worst, **reason})
