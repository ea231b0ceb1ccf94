"""Small environments with unusual spaces, values and faults, registered as `Odd/<name>-v0`.

Each writes a file into the folder `$ODD_LEDGER` when it is made and another when it is closed, in
whatever process this happens.
"""

import os
import random
import uuid
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

LEDGER = "ODD_LEDGER"
HUGE = float(np.finfo(np.float32).max)
VECTOR = Box(-np.inf, np.inf, (2,))
TWO = Discrete(2)
ARM = Box(-1.0, 1.0, (2,))
TREE = {
    "pair": Tuple((Discrete(3, start=-1), MultiBinary(2))),
    "pose": Box(-9, 9, (2, 2), np.float64),
}


class OddError(Exception):
    """The error that these environments raise."""


class Odd(gymnasium.Env):
    """Returns samples of its space, or what its arguments say."""

    def __init__(
        self,
        observation=VECTOR,
        action=TWO,
        give=None,
        first=None,
        reward=1.0,
        ends_after=5,
        result=None,
        on=None,
    ):
        """Makes the environment.

        `give` is the observation of all steps and `first` that of a reset. `result` replaces what
        `step` returns. `on` maps init, reset, step or close to the message of an error there.
        """
        self.observation_space, self.action_space = observation, action
        self._give, self._first, self._reward = give, first, reward
        self._ends_after, self._result, self._on, self._steps = ends_after, result, on or {}, 0
        self._name = uuid.uuid4().hex
        self._note("made")
        self._fail("init")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        self._fail("reset")
        return (self._observation() if self._first is None else self._first), {}

    def step(self, action):
        values = np.asarray(action, np.float64)
        if not (np.isfinite(values).all() and self.action_space.contains(action)):
            raise OddError(f"{action} is not of {self.action_space}")
        self._steps += 1
        self._fail("step")
        if self._result is not None:
            return self._result
        ends = self._steps >= self._ends_after
        return self._observation(), self._reward, ends, False, {}

    def close(self):
        self._note("closed")
        self._fail("close")

    def _observation(self):
        return self.observation_space.sample() if self._give is None else self._give

    def _fail(self, where):
        if where in self._on:
            raise OddError(self._on[where])

    def _note(self, what):
        folder = os.environ.get(LEDGER)
        if folder:
            (Path(folder) / f"{what}-{self._name}").touch()


class Global(Odd):
    """Draws its observations and rewards from the global generators of Python and NumPy."""

    def step(self, action):
        self._reward = random.random()
        return super().step(action)

    def _observation(self):
        return np.array([random.gauss(0.0, 1.0), np.random.standard_normal()])  # noqa: NPY002


class Third(Odd):
    """Raises KeyboardInterrupt when the third environment of its kind is made."""

    def __init__(self):
        if len(list(Path(os.environ[LEDGER]).glob("made-*"))) == 2:
            raise KeyboardInterrupt
        super().__init__()


class Old(Odd):
    """Has the interface of Gymnasium before version 0.26."""

    def reset(self):
        return np.zeros(2)


def _image(*shape, **bounds):
    return Box(bounds.get("low", 0), bounds.get("high", 255), shape, np.uint8)


def _one_entry(value):
    return np.array([0.5, value], np.float64)


# name -> (arguments of Odd, settings of the training)
TRAINS = {
    "plain": ({}, ()),
    "symbols": ({"observation": _image(6, 6, high=2)}, ()),
    "grid": ({"observation": _image(7, 7, 3)}, ()),
    "scalar": ({"observation": Box(-1.0, 1.0, ())}, ()),
    "matrix": ({"observation": Box(-1.0, 1.0, (3, 4), np.float64)}, ()),
    "integers": ({"observation": Box(-5, 5, (3,), np.int64)}, ()),
    "choice": ({"observation": Discrete(4, start=-2)}, ()),
    "choices": ({"observation": MultiDiscrete([3, 2])}, ()),
    "tree": ({"observation": Dict(TREE)}, ()),
    "list": ({"give": [0.25, 1.0]}, ()),
    "largest": ({"give": _one_entry(-1e12), "reward": 1e12}, ()),
    "shifted": ({"action": Discrete(3, start=-7)}, ()),
    "only": ({"action": Discrete(1)}, ()),
    "short": ({"ends_after": 1}, ()),
    "endless": ({"ends_after": 1e9}, ("environment.time_limit_steps=20",)),
    "numpy": ({"reward": np.ones((1, 1), np.float16)}, ()),
    "half": ({"action": Box(-60000.0, 60000.0, (2,), np.float16)}, ()),
    "double": ({"action": Box(-1e12, 1e12, (1,), np.float64)}, ()),
    "constant": ({"action": Box(np.float32([1, -1]), np.float32([1, 1]))}, ()),
    "huge-action": ({"action": Box(-HUGE, HUGE, (2,))}, ("environment.action_limit=3.0",)),
    "no-bounds": ({"action": Box(-np.inf, np.inf, (2,))}, ("environment.action_limit=1e12",)),
    "one-sided": ({"action": Box(0.0, np.inf, (2,))}, ("environment.action_limit=2.0",)),
    "bad-close": ({"on": {"close": "boom\nand more"}}, ()),
}
# name -> arguments of Odd; images are small, because large ones take long to compile
IMAGES = {
    "channels-first": {"observation": _image(3, 64, 64)},
    "grey": {"observation": _image(20, 30)},
    "camera": {
        "observation": Dict({"eye": _image(24, 32, 3), "speed": Box(-1e12, 1e12, (1,))}),
        "reward": 1e12,
    },
}
# name -> (arguments of Odd, pattern of the error message)
REFUSED = {
    "float-max-action": ({"action": Box(-HUGE, HUGE, (2,))}, r"entry \[0\] .*no finite bounds"),
    "endless-action": ({"action": Box(0.0, np.inf, (1,))}, "set environment.action_limit"),
    "whole-action": ({"action": Box(0, 5, (1,), np.int32)}, "its actions are a Box of int32"),
    "many-actions": ({"action": MultiDiscrete([2, 2])}, "its actions are a MultiDiscrete"),
    "text": ({"observation": Text(3)}, "is a Text, which cannot be observed"),
    "nothing": ({"observation": Dict({})}, "it has 0 numbers to observe"),
    "huge": ({"give": _one_entry(1e38)}, r"gave observation\[1\] = 1e\+38: .*TransformObserv"),
    "above": ({"give": _one_entry(-1.1e12)}, r"gave observation\[1\] = -1.1e\+12"),
    "beyond-float32": ({"give": _one_entry(1e300)}, r"gave observation\[1\] = 1e\+300"),
    "nan": ({"give": _one_entry(np.nan)}, r"not finite: observation\[1\] is nan"),
    "infinite": ({"give": _one_entry(-np.inf)}, r"not finite: observation\[1\] is -inf"),
    "huge-reward": ({"reward": 1e38}, r"gave a reward of 1e\+38: .*TransformReward"),
    "nan-reward": ({"reward": np.nan}, "gave a reward that is not finite: nan"),
    "text-reward": ({"reward": "much"}, "gave a reward that is not one number: 'much'"),
    "many-rewards": ({"reward": np.zeros(2)}, "gave a reward that is not one number"),
    "no-reward": ({"reward": None}, "gave a reward that is not one number: None"),
    "shape": (
        {"give": np.zeros(3)},
        r"gave observation of shape \(3,\), its space declares \(2,\)",
    ),
    "strings": ({"give": np.array(["a", "b"])}, "gave observation of dtype <U1, which holds no"),
    "complex": ({"give": np.zeros(2, complex)}, "gave observation of dtype complex128"),
    "ragged": ({"give": [[1.0], [1.0, 2.0]]}, "gave observation that is no array"),
    "outside": ({"observation": Discrete(3), "give": 3}, "gave observation = array.3., which its"),
    "fraction": ({"observation": Discrete(3), "give": 0.5}, "gave observation = array.0.5."),
    "negative": (
        {"observation": MultiDiscrete([2, 2]), "give": np.array([0, -1])},
        "gave observation = array.*which its space",
    ),
    "no-entry": (
        {"observation": Dict(TREE), "give": {"pair": (0, np.zeros(2))}},
        r"gave a dict where its space declares observation\['pose'\]",
    ),
    "no-dict": ({"observation": Dict(TREE), "give": np.zeros(3)}, r"gave a ndarray where"),
    "four": ({"result": (np.zeros(2), 0.0, False, {})}, "step must return .observation, reward"),
    "flag": ({"result": (np.zeros(2), 0.0, np.zeros(2), False, {})}, "gave terminated = array"),
    "bad-init": ({"on": {"init": "boom\nmore"}}, "environment.id = .*: boom; name it as"),
    "bad-reset": ({"on": {"reset": "boom\nmore"}}, r"failed \(OddError: boom\)"),
    "bad-step": ({"on": {"step": "boom\nmore"}}, r"failed \(OddError: boom\)"),
}
REFUSED_IMAGES = {
    "float-image": (
        {"observation": _image(20, 20, 3), "give": np.zeros((20, 20, 3), np.float32)},
        r"gave an image observation of shape \(20, 20, 3\) and dtype float32",
    ),
    "other-image": (
        {"observation": _image(20, 20, 3), "give": np.zeros((3, 20, 20), np.uint8)},
        r"gave an image observation of shape \(3, 20, 20\) .* declares \(20, 20, 3\)",
    ),
}


def id_of(name):
    return f"Odd/{name}-v0"


def _register():
    settings = {name: arguments for name, (arguments, _) in (TRAINS | REFUSED).items()}
    settings |= IMAGES | {name: arguments for name, (arguments, _) in REFUSED_IMAGES.items()}
    for name, arguments in settings.items():
        if id_of(name) not in gymnasium.registry:
            gymnasium.register(id_of(name), entry_point=Odd, kwargs=arguments)
    for name, kind in (("global", Global), ("old", Old), ("third", Third)):
        if id_of(name) not in gymnasium.registry:
            gymnasium.register(id_of(name), entry_point=kind)


_register()


def open_environments(ledger):
    """Returns the environments that were made and not closed, and how many were made."""
    made = {path.name.removeprefix("made-") for path in Path(ledger).glob("made-*")}
    closed = {path.name.removeprefix("closed-") for path in Path(ledger).glob("closed-*")}
    return made - closed, len(made)
