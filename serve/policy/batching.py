"""Single cars that ask in the same moment: one act of the policy for all of them."""

import asyncio

import numpy as np

from serve.policy.alias_follower import ServedModel

# More than so many in one act, and the first would wait noticeably for the last.
_MOST = 64


class SingleCarBatcher:
    """Gathers what comes in one turn of the event loop; with 64 cars an act costs each a tenth."""

    def __init__(self) -> None:
        self._model: ServedModel | None = None  # of those that wait
        self._waiting: list[tuple[asyncio.Future[np.ndarray], np.ndarray]] = []

    async def act(self, model: ServedModel, observation: np.ndarray) -> np.ndarray:
        """Maps an observation `[1, O]` of a car without a past to its action `[1, A]`.

        Raises what the policy raises, for this car alone.
        """
        loop = asyncio.get_running_loop()
        if model is not self._model or len(self._waiting) == _MOST:
            self._flush()
        if not self._waiting:
            self._model = model
            # Behind everything that is ready now: whoever asks in this turn comes along.
            loop.call_soon(self._flush)
        answer = loop.create_future()
        self._waiting.append((answer, observation))
        return await answer

    def _flush(self) -> None:
        waiting, model, self._waiting, self._model = self._waiting, self._model, [], None
        if model is None:
            return
        try:
            actions = act_without_memory(model, np.concatenate([seen for _, seen in waiting]))
        except Exception as error:
            if len(waiting) == 1:
                _give(waiting[0][0], error)
            for one in waiting if len(waiting) > 1 else ():  # each finds out whether it is the one
                self._waiting, self._model = [one], model
                self._flush()
            return
        for index, (answer, _) in enumerate(waiting):
            _give(answer, actions[index : index + 1])


def act_without_memory(model: ServedModel, observation: np.ndarray) -> np.ndarray:
    """Actions `[N, A]` for N cars that remember nothing."""
    cars = len(observation)
    return model.policy.act(model.policy.initial_state(cars), observation, np.ones(cars, bool))[0]


def _give(answer: asyncio.Future[np.ndarray], result: np.ndarray | Exception) -> None:
    if answer.done():  # its client has hung up
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
