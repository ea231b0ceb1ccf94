"""Types of numbers in settings: each is finite and has a range outside of which it makes no sense.

A number far beyond every real use is a typing error. It is refused where it is read, before it can
become an overflow of a timer, an underflow to zero, or hours of compilation.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

SMALLEST = 1e-30


def _stays_above_zero(number: float) -> float:
    if number < SMALLEST:
        raise ValueError(f"it is less than {SMALLEST:g}, which may become 0 in float32")
    return number


Size = Annotated[int, Field(ge=1, le=65_536)]  # more than any machine can hold
Processes = Annotated[int, Field(ge=0, le=65_536)]
EnvSteps = Annotated[int, Field(ge=1, le=10**12)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]  # a count written by the program
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Times = Annotated[int, Field(ge=0, le=1_000_000)]  # how often something may be repeated

# Up to three hundred years, because large numbers are a usual way to write "never".
Seconds = Annotated[float, Field(ge=1e-9, le=1e10)]
Pause = Annotated[float, Field(ge=0.0, le=1e10)]
# Below the 24 days at which 32-bit millisecond timers overflow.
Deadline = Annotated[float, Field(ge=1e-3, le=1e6)]

# Sizes of networks.
Units = Annotated[int, Field(ge=1, le=16_384)]
Layers = Annotated[int, Field(ge=1, le=32)]

PerTime = Annotated[float, Field(ge=1e-3, le=1e9)]  # a rate

# Numbers used in float32 arithmetic during training.
Positive = Annotated[float, Field(gt=0.0, le=1e38), AfterValidator(_stays_above_zero)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e38)]
Signed = Annotated[float, Field(ge=-1e38, le=1e38)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Float32 = Annotated[float, Field(ge=-1e39, le=1e39)]  # wider than the range of float32
Pixels = Annotated[float, Field(ge=1e-3, le=1e5)]
Cores = Annotated[float, Field(ge=1e-4, le=65_536.0)]  # Ray counts in ten-thousandths
Devices = Annotated[float, Field(ge=0.0, le=65_536.0)]
