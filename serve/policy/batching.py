"""Batches the observations of single cars that arrive in the same turn of the event loop."""

import asyncio

import numpy as np

from serve.policy.alias_follower import ServedModel

# In a larger batch the first car would wait noticeably for the last.
_MAX_BATCH = 64


class SingleCarBatcher:
    """Gathers requests for one turn of the event loop; with 64 cars an act costs each a tenth."""

    def __init__(self) -> None:
        self._model: ServedModel | None = None  # the model of the waiting requests
        self._waiting: list[tuple[asyncio.Future[np.ndarray], np.ndarray]] = []

    async def act(self, model: ServedModel, observation: np.ndarray) -> np.ndarray:
        """Maps the observation `[1, O]` of a car without a session to its action `[1, A]`.

        Raises the policy's error for this car alone.
        """
        loop = asyncio.get_running_loop()
        if model is not self._model or len(self._waiting) == _MAX_BATCH:
            self._flush()
        if not self._waiting:
            self._model = model
            # Runs after everything that is ready now, so requests of this turn join the batch.
            loop.call_soon(self._flush)
        answer = loop.create_future()
        self._waiting.append((answer, observation))
        return await answer

    def _flush(self) -> None:
        waiting, model, self._waiting, self._model = self._waiting, self._model, [], None
        if model is None:
            return
        try:
            batch = np.concatenate([observation for _, observation in waiting])
            actions = act_without_memory(model, batch)
        except Exception as error:
            if len(waiting) == 1:
                _resolve(waiting[0][0], error)
            else:  # retried one by one, so that only the culprit gets the error
                for request in waiting:
                    self._waiting, self._model = [request], model
                    self._flush()
            return
        for index, (answer, _) in enumerate(waiting):
            _resolve(answer, actions[index : index + 1])


def act_without_memory(model: ServedModel, observation: np.ndarray) -> np.ndarray:
    """Returns the actions `[N, A]` of N cars, each at the first step of an episode."""
    cars = len(observation)
    return model.policy.act(model.policy.initial_state(cars), observation, np.ones(cars, bool))[0]


def _resolve(answer: asyncio.Future[np.ndarray], result: np.ndarray | Exception) -> None:
    if answer.done():  # its client has disconnected
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
