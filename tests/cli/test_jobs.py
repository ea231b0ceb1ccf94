"""A job's log on a terminal, and commands that are refused before they travel."""

import io
import sys

import pytest
from rich.console import Console

from rlcar import cli
from rlcar.cli.log_view import LogView

LINE = "512/2048 env steps (25%), ETA 0:01:02  env/s 128  reward 2.50"


def shown(chunks, **console):
    screen = io.StringIO()
    with LogView(Console(file=screen, width=100, soft_wrap=True, **console)) as view:
        for chunk in chunks:
            view.show(chunk)
    return screen.getvalue()


def test_on_a_terminal_progress_becomes_a_bar_and_other_lines_stay():
    text = f"run folder: [x]\n{LINE}\nfigure lap_rate=1\n"
    screen = shown([text[:30], text[30:50], text[50:]], force_terminal=True)
    assert "run folder: [x]" in screen
    assert "figure lap_rate=1" in screen
    assert "25%" in screen
    assert "ETA 0:01:02  env/s 128  reward 2.50" in screen
    assert "512/2048 env steps" not in screen


def test_elsewhere_a_log_is_passed_on_as_it_is():
    text = f"a\n{LINE}\nwithout an end"
    assert shown([text[:5], text[5:]], force_terminal=False) == text


def test_the_last_line_of_a_killed_job_is_shown_though_it_has_no_end():
    assert "without an end" in shown(["without an end"], force_terminal=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "play"], "cannot submit 'play'"),
        (["--", "trian"], "cannot submit 'trian'; did you mean 'train'?"),
        (["train", "--mod", "test"], "No such option: --mod"),
        (["train", "--seed", "x"], "unable to parse string as an integer"),
        (["--", "evaluate"], "Missing argument 'run'"),
    ],
)
def test_a_wrong_command_is_refused_before_a_cluster_is_asked(
    monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(sys, "argv", ["rlcar", "submit", "--address", "127.0.0.1:1", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
