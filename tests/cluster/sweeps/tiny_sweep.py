"""A sweep that nobody ran, with what its trials would have reported."""

from cluster.sweeps.config import SweepConfig
from cluster.sweeps.file import parse_sweep
from cluster.sweeps.history import History, TrialState

RATE = "dreamer.optimizer.learning_rate"
GROUPS = "dreamer.world_model.latent_groups"
METRIC = "evaluation/charged_lap_steps"


def make_sweep(**changes) -> SweepConfig:
    return parse_sweep(
        {
            "name": "tiny",
            "mode": "test",
            "scheduler": "asha",
            "budget": {"trials": 4, "env_steps": 4096},
            "set": {"training.evaluate_every_env_steps": 1024},
            "space": {RATE: {"loguniform": [1e-4, 1e-2]}, GROUPS: {"choice": [4, 8]}},
            **changes,
        }
    )


def settings(rate: float, groups: int = 4) -> dict[str, float]:
    return {RATE: rate, GROUPS: groups}


def reported(history: History) -> None:
    """000 is done, 001 stopped early, 002 diverged, 003 died before its first evaluation."""
    for env_steps, value in ((1024, 900.0), (2048, 700.0), (3072, 500.0), (4096, 600.0)):
        figures = {"env_steps": env_steps, METRIC: value, "run/train_seconds": env_steps / 100}
        history.add("000", settings(1e-3), figures)
    history.add("001", settings(2e-4, 8), {"env_steps": 1024, METRIC: 950.0})
    history.add("002", settings(9e-3), {"env_steps": 1024, METRIC: 990.0})
    history.add(
        "002",
        settings(9e-3),
        {"env_steps": 1024, METRIC: 1e9, "diverged": True, "reason": "model/loss is nan"},
    )


STATES = {
    "000": TrialState("TERMINATED", 2, "its process died"),
    "001": TrialState("TERMINATED"),
    "002": TrialState("TERMINATED"),
    "003": TrialState("ERROR", 4, "its process died", settings(3e-3)),
}
