"""Numbers on the command line: every option of every command refuses what is out of range."""

import inspect
import re
import typing

import pytest
import typer

from rlcar import cli

IMPOSSIBLE = ("nan", "-inf", "1e308", "-1", str(10**40), "9" * 5000)


def commands(app, before=()):
    """Yields the words that name each command, and its function."""
    for one in app.registered_commands:
        name = one.name or one.callback.__name__.replace("_", "-")
        yield (*before, name), one.callback
    for group in app.registered_groups:
        yield from commands(group.typer_instance, (*before, group.name))


def kinds(annotation):
    return {annotation, *typing.get_args(annotation)} & {int, float}


def numeric_options():
    for words, function in commands(cli.app):
        hints = typing.get_type_hints(function, include_extras=True)
        for name in inspect.signature(function).parameters:
            annotation, *extras = typing.get_args(hints[name]) or (hints[name],)
            if typing.get_origin(hints[name]) is not typing.Annotated or not kinds(annotation):
                continue
            (info,) = (one for one in extras if hasattr(one, "param_decls"))
            declared = [one for one in info.param_decls or () if one.startswith("--")]
            option = declared[0] if declared else "--" + name.rstrip("_").replace("_", "-")
            yield words, option, required_arguments(function)


def required_arguments(function):
    hints = typing.get_type_hints(function, include_extras=True)
    return [
        "x"
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and any(isinstance(one, typer.models.ArgumentInfo) for one in typing.get_args(hints[name]))
    ]


def option_parameters():
    for words, option, arguments in numeric_options():
        yield pytest.param(words, option, arguments, id=" ".join((*words, option)))


@pytest.mark.parametrize(("words", "option", "arguments"), [*option_parameters()])
def test_a_number_that_cannot_be_is_refused_in_a_sentence(
    rlcar, monkeypatch, words, option, arguments
):
    monkeypatch.setenv("RLCAR_TOKENS", "tokens.json")
    if words[-1] == "rotate":
        rlcar("tokens", "create", *arguments)
    for value in IMPOSSIBLE:
        code, out, stderr = rlcar(*words, option, value, *arguments)
        assert code == 2, (value, stderr)
        assert out == ""
        assert "Traceback" not in stderr
        if stderr.startswith("error: "):
            named = rf"error: (--)?{option.removeprefix('--')}[ =]|error: .*(expire|old secret)"
            assert re.match(named, stderr), stderr
            assert len(stderr.splitlines()) == 1
            assert len(stderr) < 400
        else:
            said = re.sub(r"[\s│]+", " ", stderr)
            assert f"Invalid value for '{option}': " in said


def test_the_walk_finds_the_options():
    found = {(" ".join(words), option) for words, option, _ in numeric_options()}
    assert {("serve", "--port"), ("models retain", "--days"), ("monitor", "--every")} <= found
    assert len(found) >= 20


@pytest.mark.parametrize("value", IMPOSSIBLE)
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--simulators", "{}"],
        ["train", "--cluster", "simulator_deadline_s={}"],
        ["train", "--cluster", "simulator_cpus={}"],
        ["train", "--cluster", "learner_gpus={}"],
        ["train", "--set", "training.checkpoint_every_s={}"],
        ["train", "--set", "dreamer.optimizer.learning_rate={}"],
        ["serve", "--set", "deadline_ms={}"],
        ["serve", "--set", "in_flight={}"],
        ["serve", "--set", "requests_per_s={}"],
    ],
)
def test_a_number_inside_another_option_is_refused_in_a_sentence(rlcar, words, value):
    code, out, stderr = rlcar(*(word.format(value) for word in words))
    assert (code, out) == (2, "")
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "option"),
    [("host=0.0.0.0", "--host"), ("allowed_hosts=x", "--allowed-host"), ("auth=1", "--auth")],
)
def test_a_setting_of_serve_with_an_option_of_its_own_is_named(rlcar, setting, option):
    code, _, stderr = rlcar("serve", "--set", setting)
    assert (code, stderr) == (2, f"error: --set {setting}: give it as {option}\n")
