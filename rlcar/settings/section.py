"""The base class of all settings models."""

import pydantic


class Section(pydantic.BaseModel):
    """A group of settings: immutable; unknown names, NaN and infinities are refused.

    The text below each setting is its description in the documentation.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, validate_default=True
    )
