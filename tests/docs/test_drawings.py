"""The drawn pictures of the documentation are those that the code describes today."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs/images"
PICTURES = runpy.run_path(str(FOLDER / "draw.py"))["PICTURES"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_up_to_date(name):
    assert (FOLDER / name).read_text() == PICTURES[name](), "run: python docs/images/draw.py"
