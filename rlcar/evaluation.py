"""What a look at a policy says, whatever it drove."""

from typing import NamedTuple


class Evaluation(NamedTuple):
    """Named figures, and the one by which the best policy is chosen."""

    metrics: dict[str, float]  # evaluation/…
    cost: float  # lower is better
