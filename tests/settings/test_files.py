"""Settings in files: repeated keys, alias bombs, endless files and odd text are refused."""

import json
import re
from pathlib import Path

import pytest

from cluster.sweeps.file import load_sweep
from cluster.sweeps.sweep import stored_sweep
from rlcar.campaigns.config import load_campaign
from rlcar.config import dump_config, load_config, make_config
from rlcar.errors import ConfigError
from rlcar.settings.files import LARGEST_FILE_BYTES, parse_json, parse_yaml, read_json

ROOT = Path(__file__).parents[2]


def read_stored_sweep(path):
    path.rename(path.with_name("sweep.yaml"))
    return stored_sweep(path.parent)


@pytest.mark.parametrize(
    "read",
    [
        lambda path: make_config(file=path),
        load_campaign,
        load_sweep,
        read_stored_sweep,
        load_config,
    ],
    ids=["train --config", "campaign", "tune", "tune --resume", "config.json"],
)
@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ('{"seed": 1,\n"world": "classic",\n"seed": 2}', "seed", (1, 3)),
        ('{"training": {\n"cars": 1,\n"cars": 2}}', "cars", (2, 3)),
        ('{"jobs": [{"name": "a",\n"name": "b"}]}', "name", (1, 2)),
    ],
)
def test_a_key_that_appears_twice_is_refused_in_every_file_with_both_lines(
    tmp_path, read, text, key, lines
):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read(file)
    said = f"the key '{key}' appears twice in the same section, in line {lines[0]} and in line "
    assert said + str(lines[1]) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: 2\na: 3\n",
        'a: 1\n"a": 2\n',
        "1: x\n1.0: y\n",  # equal in Python: one would replace the other
        "yes: 1\ntrue: 2\n",
        "x: {a: 1, a: 2}\n",
        "x:\n- {a: 1, b: {c: 1, c: 2}}\n",
        "base: &base {a: 1, a: 2}\nx: {<<: *base}\n",
        "one: &one {a: 1}\ntwo: &two {b: 1}\nx:\n  <<: *one\n  <<: *two\n",
    ],
)
def test_a_key_that_appears_twice_is_refused_however_it_is_written(text):
    with pytest.raises(ConfigError, match="appears twice in the same section, in line "):
        parse_yaml(text)


def test_a_merged_section_may_be_overridden():
    tree = parse_yaml("base: &base {a: 1, b: 2}\nx:\n  <<: *base\n  a: 3\n")
    assert tree["x"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("one", ["[a, a, a, a, a, a, a, a, a, a]", "{a: 1, b: 2}"])
def test_aliases_that_multiply_are_refused(one):
    lines = [f"x0: &x0 {one}"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="it stands for more than 100,000 values"):
        parse_yaml("\n".join(lines))


def test_an_alias_of_itself_is_refused():
    with pytest.raises(ConfigError, match="line 1 holds an alias of itself"):
        parse_yaml("a: &a [*a]\n")


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[1", "{]"])
def test_what_cannot_be_read_is_one_sentence(parse, text):
    with pytest.raises(ConfigError) as refusal:
        parse(text)
    assert len(str(refusal.value)) < 300
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["{[1]: 2}", "? [a, b]\n: 1\n", "? {a: 1}\n: 2\n", "? a\n? a\n"])
def test_odd_keys_are_refused(text):
    with pytest.raises(ConfigError):
        parse_yaml(text)


def test_a_file_without_an_end_is_refused():
    with pytest.raises(ConfigError, match=f"it is larger than {LARGEST_FILE_BYTES:,} bytes"):
        make_config(file=Path("/dev/zero"))


def test_text_in_another_encoding_is_refused_and_utf_8_is_read_whatever_the_locale(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes("preset: n\xe4no\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 10 is not UTF-8 text"):
        make_config(file=file)
    file.write_bytes("\ufeffpreset: nano  # n\xe4no\n".encode())
    assert make_config(file=file) == make_config()


@pytest.mark.parametrize("text", ["5: 1\n", "training: {5: 1}\n", "? [a]\n: 1\n", "null: 1\n"])
def test_a_name_that_is_no_text_is_refused(tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    for read in (lambda path: make_config(file=path), load_campaign, load_sweep):
        with pytest.raises(ConfigError) as refusal:
            read(file)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 30, "9" * 5000])
@pytest.mark.parametrize("name", ["checkpoint_every_s", "cars"])
def test_a_number_of_config_json_that_cannot_be_is_refused(tmp_path, name, number):
    file = tmp_path / "config.json"
    text, replaced = re.subn(rf'("{name}": )[0-9.]+', rf"\g<1>{number}", dump_config(make_config()))
    assert replaced == 1
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(file)
    assert len(str(refusal.value)) < 300 + len(number)


def test_json_without_repeated_keys_is_read_as_python_reads_it():
    text = dump_config(make_config())
    assert parse_json(text) == json.loads(text)


def test_no_other_code_reads_yaml():
    """Every file goes through the one reader that refuses repeated keys."""
    sources = [
        path for name in ("rlcar", "cluster", "serve") for path in ROOT.glob(f"{name}/**/*.py")
    ]
    loads = [
        str(path.relative_to(ROOT))
        for path in sources
        if re.search(r"yaml\.(\w+_)?(load|compose|parse)", path.read_text())
    ]
    assert loads == ["rlcar/settings/files.py"]


def test_a_repeated_key_in_json_that_yaml_cannot_read_is_one_sentence(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n\t"seed": 1,\n\t"seed": 2\n}')
    with pytest.raises(ConfigError, match="'seed' appears twice"):
        read_json(path)
