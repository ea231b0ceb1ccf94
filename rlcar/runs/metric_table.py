"""What each metric of a training means: the names in `metrics.jsonl` and TensorBoard.

The documentation prints this table, and a test compares it with what trainings write.
"""

from typing import NamedTuple

from rlcar.envs.compiled import COMPILED
from rlcar.runs.completion import UNIMPROVED


class Metric(NamedTuple):
    """The unit (empty for a pure number) and the meaning of a metric."""

    unit: str
    meaning: str


# In every row, beside the metrics of the group that the row is about.
_ROW = {
    "env_steps": Metric("env steps", "Env steps since the run began, over all cars."),
    "time_s": Metric(
        "s", "Time since the run began, without the time between two sessions of a resumed run."
    ),
    "run/train_seconds": Metric(
        "s", "Time of the training, with evaluations and earlier sessions of a resumed run."
    ),
}
_DRIVING = {
    "episode/reward": Metric("", "Mean reward of the last 100 episodes."),
    "episode/lap_rate": Metric("", "Share of the last 100 episodes that ended with a lap."),
    "episode/success_rate": Metric(
        "", "Share of the last 100 episodes that were a success, where the environment says so."
    ),
    "episode/length_env_steps": Metric("env steps", "Mean length of the last 100 episodes."),
    "episode/count": Metric("episodes", "Episodes that have ended since the run began."),
    "rollout/env_steps_per_s": Metric("1/s", "Rate of driving over the last 10 s."),
    "rollout/weights_lag_updates": Metric(
        "train steps", "Train steps between the weights that drove a block and the learner."
    ),
}
_EVALUATION = {
    "evaluation/lap_rate": Metric("", "Share of the evaluation's tracks that were lapped."),
    "evaluation/charged_lap_steps": Metric(
        "env steps", "Mean lap time; a track without a lap counts with the time limit."
    ),
    "evaluation/over_bound_pct": Metric(
        "%", "Mean lap time over its lower bound; a track without a lap counts as above."
    ),
    "evaluation/success_rate": Metric("", "Share of the evaluation's episodes that succeeded."),
    "evaluation/progress": Metric("laps", "Mean distance driven on the evaluation's tracks."),
    "evaluation/episode_reward": Metric("", "Mean reward of the evaluation's episodes."),
    UNIMPROVED: Metric(
        "evaluations",
        "Evaluations since the last improvement, if `training.patience_evaluations` limits them.",
    ),
    "evaluation/episode_steps": Metric(
        "env steps",
        "Mean length of the evaluation's episodes, in another environment than the race.",
    ),
    **{
        f"evaluation/{name}": Metric(
            figure.unit, f"Mean over the evaluation's successful episodes: {figure.meaning}"
        )
        for descriptor in COMPILED.values()
        for name, figure in descriptor.figures.items()
    },
}
_LEARNER = {
    "learner/train_steps": Metric("train steps", "Train steps since the run began."),
    "learner/train_steps_per_s": Metric("1/s", "Rate of learning over the last 10 s."),
    "learner/rollbacks": Metric(
        "", "Returns to a checkpoint after a NaN, each with half the learning rate."
    ),
    "learner/idle_share": Metric(
        "", "Share of time, over the last 20 calls, in which the learner waited for blocks."
    ),
    "optimizer/gradient_norm": Metric("", "Global norm of the gradients before clipping."),
    "replay/size_env_steps": Metric("env steps", "Env steps in the replay buffer."),
    "replay/age_updates": Metric(
        "train steps", "Mean number of train steps since the stored env steps were driven."
    ),
}
_WORLD_MODEL = {
    "model/loss": Metric("", "Loss of the model: the sum of its parts."),
    "model/reconstruction_loss": Metric("", "Loss of the reconstructed observation."),
    "model/image_loss": Metric("", "Loss of the reconstructed image."),
    "model/reward_loss": Metric("", "Loss of the predicted reward."),
    "model/continue_loss": Metric("", "Loss of the predicted end of episodes."),
    "model/dynamics_loss": Metric("", "Loss that trains the predicted latent state."),
    "model/representation_loss": Metric("", "Loss that trains the inferred latent state."),
    "model/open_loop_loss": Metric("", "Loss of reward and continue heads at imagined steps."),
    "model/open_loop_dynamics_loss": Metric("", "Loss of the dynamics at imagined steps."),
    "model/ensemble_loss": Metric("", "Loss of the predictions that measure uncertainty."),
    "model/uncertainty_nats": Metric("nats", "Mean disagreement of predictions in imagination."),
    "model/kl_nats": Metric("nats", "KL divergence between inferred and predicted latent state."),
    "model/reward_error": Metric("", "Mean absolute error of the predicted reward."),
    "model/imagined_reward": Metric("", "Mean reward of imagined steps."),
    "model/imagined_discount": Metric("", "Mean discount of imagined steps; crashes lower it."),
}
_ACTOR = {
    "actor/loss": Metric("", "Loss of the actor."),
    "actor/entropy_nats": Metric("nats", "Mean entropy of the policy in imagination."),
    "actor/entropy": Metric("nats", "Mean entropy of the policy."),
    "actor/advantage_magnitude": Metric("", "Mean absolute value of normalised advantages."),
    "actor/kl": Metric("nats", "Estimated KL divergence between the old and the new policy."),
    "actor/clipped_share": Metric("", "Share of steps whose probability ratio is clipped."),
    "actor/temperature": Metric("", "Weight of the entropy bonus."),
    "actor/exploration_probability": Metric("", "Probability of a noisy action."),
}
_CRITIC = {
    "critic/loss": Metric("", "Loss of the critic or critics."),
    "critic/value": Metric("", "Mean value of the states learned from."),
    "critic/return": Metric("", "Mean return of imagined trajectories."),
    "critic/return_scale": Metric("", "Range of returns by which advantages are divided."),
    "critic/replay_loss": Metric("", "Loss of the critic on replayed steps."),
    "critic/conservative_gap": Metric(
        "", "Value of all actions, as a soft maximum, minus that of the recorded ones."
    ),
    "critic/expectile_loss": Metric("", "Loss of the expectile of the recorded actions' values."),
    "critic/explained_variance": Metric("", "Share of the variance of returns that is predicted."),
}
_CLUSTER = {
    "cluster/simulators": Metric("simulators", "Simulators that should run."),
    "cluster/simulators_delivering": Metric(
        "simulators", "Simulators that have delivered a block since they were started."
    ),
    "cluster/simulator_restarts": Metric(
        "", "Simulators that were replaced since the driver process began."
    ),
    "cluster/simulators_busy_share": Metric(
        "", "Share of the last 10 s in which simulators drove, averaged over all."
    ),
    "cluster/blocks_lost": Metric(
        "blocks", "Blocks lost with simulators, hosts or a learner since the driver process began."
    ),
    "cluster/blocks_dropped": Metric(
        "blocks", "Blocks dropped because their weights were too old (`max_policy_lag_updates`)."
    ),
    "cluster/learner_restarts": Metric(
        "", "Times that the learner was replaced since the driver process began."
    ),
    "storage/pushes": Metric("", "Times that the storage was brought up to date."),
    "storage/failures": Metric("", "Times that the storage could not be brought up to date."),
}
METRICS = {
    **_ROW,
    **_DRIVING,
    **_EVALUATION,
    **_LEARNER,
    **_WORLD_MODEL,
    **_ACTOR,
    **_CRITIC,
    **_CLUSTER,
}
