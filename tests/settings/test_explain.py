"""What is wrong with settings is said with the names that the file has."""

from typing import Annotated, Literal

import pydantic
import pytest
from pydantic import Field

from rlcar.settings.explain import explain, problems


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Fast(_Model):
    type: Literal["fast"]
    speed_mps: float = 1.0


class Slow(_Model):
    type: Literal["slow"]
    patience_s: int = 1


class Settings(_Model):
    kind: Annotated[Fast | Slow, Field(discriminator="type")] = Slow(type="slow")
    count: int | Literal["auto"] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    each: list[Fast] = []
    named: dict[Annotated[str, Field(max_length=3)], Slow | None] = {}

    @pydantic.model_validator(mode="after")
    def _limit_is_not_13(self):
        if self.limit == 13:
            raise ValueError("limit must not be 13")
        return self


def error_of(**settings):
    with pytest.raises(pydantic.ValidationError) as caught:
        Settings.model_validate(settings)
    return caught.value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limit": 0}, "limit = 0: Input should be greater than or equal to 1"),
        ({"limit": 13}, "limit must not be 13"),
        ({"limt": 2}, "unknown setting 'limt'; did you mean 'limit'?"),
        ({"kind": {"type": "fast", "sped": 1}}, "unknown setting 'kind.sped'; did you mean 'spe"),
        ({"kind": {"type": "slow", "patience_s": "x"}}, "kind.patience_s = 'x': Input should be a"),
        ({"each": [{"type": "fast"}, {"type": 3}]}, "each.1.type = 3: Input should be 'fast'"),
        ({"each": [{}]}, "each.0.type: missing"),
        ({"named": {"a": {"type": "slow", "patience": 2}}}, "unknown setting 'named.a.patience'"),
        ({"named": {"abcd": None}}, "named.abcd = 'abcd': String should have at most 3"),
        ({"count": 3, "kind": 4}, "kind = 4: Input should be"),
    ],
)
def test_a_setting_is_named_as_in_its_file(settings, said):
    assert explain(error_of(**settings), Settings).startswith(said)


def test_a_value_that_no_member_of_a_union_takes_is_one_problem_with_all_reasons():
    (problem,) = problems(error_of(count="many"), Settings)
    assert (problem.name, problem.value) == ("count", "many")
    assert "a valid integer" in problem.reason
    assert problem.reason.endswith(", or: Input should be 'auto'")


def test_every_problem_is_told():
    assert explain(error_of(limit=0, extra=1), Settings).count(";") == 2
