"""The page's files load nothing from elsewhere, and nothing that its security policy forbids."""

import hashlib
import re

import pytest

from serve.live.routes import PAGE

FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
OURS = [path for path in FILES if path.parent.name != "vendor"]


def test_what_is_vendored_is_what_was_downloaded():
    table = (PAGE / "vendor" / "VENDOR.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` .*\| `([0-9a-f]{64})` \|$", table, re.MULTILINE))
    there = {path.name for path in (PAGE / "vendor").iterdir()} - {"VENDOR.md"}
    assert rows.keys() == there
    for name, wanted in rows.items():
        assert hashlib.sha256((PAGE / "vendor" / name).read_bytes()).hexdigest() == wanted, name


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_the_page_asks_nobody_but_its_server(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text)


def test_the_markup_holds_no_script_or_style_of_its_own():
    text = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_everything_that_is_named_is_there():
    named = re.findall(r'(?:src|href)="page/([^"]+)"', (PAGE / "index.html").read_text())
    assert named
    for name in named:
        assert (PAGE / name).is_file(), name
    for path in (PAGE / "js").iterdir():
        for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), (path.name, name)


def test_what_must_be_fetched_is_small():
    assert sum(path.stat().st_size for path in FILES if path.suffix in (".js", ".css", ".html")) < (
        125_000
    )
