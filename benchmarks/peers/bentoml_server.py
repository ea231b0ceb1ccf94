"""A peer of benchmarks/serving.py: BentoML as its documentation has it, one worker."""

import bentoml
from served_policy import Act


@bentoml.service
class ActService:
    def __init__(self) -> None:
        self._act = Act()

    @bentoml.api(route="/v1/act")
    def act(self, observation: list[float]) -> dict[str, list[float]]:
        return {"action": self._act(observation)}
