"""Evaluates and saves the newest weights of the learner, in both training loops on Ray."""

from collections.abc import Callable

from cluster.training.learner_handle import LearnerHandle
from rlcar.runs.run import EvaluationListener, Run
from rlcar.types import Evaluation, Params


def save(learner: LearnerHandle, run: Run) -> None:
    """Writes a checkpoint, and returns when it is complete."""
    learner.save(run.checkpoints.resolve(), run.meta())
    run.saved()


def evaluate_newest(
    learner: LearnerHandle,
    run: Run,
    evaluate: Callable[[Params], Evaluation | None],
    on_evaluated: EvaluationListener | None,
) -> bool:
    """Evaluates the newest weights; returns False if the training has to end.

    That is so if it was asked to stop meanwhile, or if the listener says so, which hears of the
    evaluation after its checkpoint is complete.
    """
    weights = learner.fetch_weights()
    evaluation = evaluate(weights.params)
    if evaluation is None:
        return False
    run.evaluated(learner.env_steps, weights, evaluation)
    if on_evaluated is not None:
        save(learner, run)
        return not on_evaluated(run.figures(learner.env_steps))
    return True
