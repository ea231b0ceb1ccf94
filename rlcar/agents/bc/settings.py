"""Settings of behavioural cloning."""

from rlcar.agents.offline_learning.settings import OfflineConfig


class BcConfig(OfflineConfig):
    """Behavioural cloning (Pomerleau 1991): a policy that imitates the recorded actions."""
