"""The policy that drove: its value is known, so it tests the estimator."""

from typing import NamedTuple

import numpy as np

from rlcar.evaluation.off_policy import fitted_q
from rlcar.evaluation.off_policy.fitted_q import FittedQ
from rlcar.evaluation.off_policy.policies import PolicyActions
from rlcar.evaluation.off_policy.prepared import Prepared, fit, inputs, member_means

# Largest share of the behaviour's return that an estimate has to add after truncated ends. Beyond,
# that return no longer tests the estimate.
MOST_CONTINUED = 0.5


class Behaviour(NamedTuple):
    """The policy that drove: its value is known, so it tests the estimator itself.

    The test is cross-fitted: each episode is estimated by the member that did not learn from it.
    The rewards after a truncated end are not recorded. There, the estimate itself continues the
    return, with the weight that the discount leaves to it.
    """

    fitted: FittedQ
    members: np.ndarray  # [K] estimates from the episodes that each member learned from
    estimate: float  # mean over the episodes, each by the member that did not learn from it
    returns: np.ndarray  # [E] of the recorded episodes, continued after a truncated end
    continued_share: float  # mean weight of these continuations

    @property
    def observed(self) -> float:
        """The mean return of the recorded episodes."""
        return float(self.returns.mean())

    @property
    def bias(self) -> float:
        """How much the estimate is too high.

        An estimate that is too high by b makes the observed return too high by b times the share of
        the continuations, so the difference of both is smaller than b.
        """
        difference = self.estimate - self.observed
        return difference / (1.0 - min(self.continued_share, MOST_CONTINUED))


def evaluate_behaviour(prepared: Prepared) -> Behaviour:
    """Evaluates the policy that drove by the same method as the others."""
    logged = prepared.logged
    last = logged.bounds[1:] - 1
    following = np.roll(logged.action, -1, axis=0)
    actions = PolicyActions(logged.action, following)
    # The action after a truncated episode is unknown.
    is_known = np.ones(len(logged.reward), bool)
    is_known[last] = logged.is_terminal[last]
    fitted = fit(prepared, actions, is_known)
    values = fitted_q.action_values(fitted, inputs(prepared.state, logged.action))
    is_cut = ~logged.is_terminal[last]
    # A truncated episode would have earned more: the estimate of its last step continues it.
    steps = np.diff(logged.bounds) - 1
    missing = np.where(is_cut, values.mean(axis=0)[last] - logged.reward[last], 0.0)
    weight = prepared.settings.discount**steps
    return Behaviour(
        fitted,
        member_means(prepared, values[:, logged.starts]),
        float(values[prepared.fold, logged.starts].mean()),
        prepared.returns[logged.starts] + weight * missing,
        float((is_cut * weight).mean()),
    )
