"""Names and shapes of the arrays of common layers, as Haiku names them."""

from rlcar.agents.algorithm import Shapes


def linear_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Returns the arrays of `hk.Linear`: a weight `[inputs, outputs]` and a bias."""
    return {f"{name}.w": (inputs, outputs), f"{name}.b": (outputs,)}


def mlp_shapes(name: str, sizes: list[int]) -> Shapes:
    """Returns the arrays of `hk.nets.MLP` from `sizes[0]` inputs through all further sizes."""
    shapes: Shapes = {}
    for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        shapes |= linear_shapes(f"{name}/~/linear_{index}", inputs, outputs)
    return shapes


def moments_shapes(observation_size: int) -> Shapes:
    """Returns the arrays of the moments by which a policy normalises observations."""
    return {
        "moments.mean": (observation_size,),
        "moments.variance": (observation_size,),
        "moments.count": (),
    }
