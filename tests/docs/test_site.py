"""The documentation site's own checks find what they are there to find."""

import pytest

from docs._generate import check_site, links, markdown
from docs._generate.check_site import problems
from docs._generate.docstrings import convert

PAGE = links.DOCS / "page.md"


def rewritten(text, document="page"):
    found = []
    return links.rewrite(text, PAGE, document, found.append), found


def test_a_link_to_a_source_becomes_a_page_of_the_site():
    text, found = rewritten("see [`types`](../rlcar/types.py)")
    assert text == "see {source}`types <rlcar/types.py>`"
    assert found == []


def test_a_link_to_a_page_stays_relative_to_the_document():
    text, _ = rewritten("[it](models.md#acting)", "how-to/other")
    assert text == "[it](../models.md#acting)"


def test_a_link_to_an_included_file_leads_to_its_page():
    assert rewritten("[it](../CHANGELOG.md)")[0] == "[it](changelog.md)"
    assert rewritten("[a](../README.md#where-to-change-what)")[0] == "[a](where-to-change-what.md)"


def test_a_link_to_nothing_is_reported():
    text, found = rewritten("[gone](../rlcar/gone.py)")
    assert text == "gone"
    assert found == ["docs/page.md links to ../rlcar/gone.py, which does not exist"]


def test_fenced_code_holds_no_links():
    text = "```\n[gone](../rlcar/gone.py)\n```\n"
    assert rewritten(text) == (text, [])
    assert list(links.links_in(text)) == []


def test_a_section_becomes_a_page():
    text = "# All\n\n## One thing\n\nbody\n\n### Part\n\n## Two\n"
    assert links.section(text, "one-thing") == "# One thing\n\nbody\n\n## Part\n\n"
    with pytest.raises(KeyError):
        links.section(text, "three")


def test_an_entry_has_its_facts_below_the_meaning():
    text = markdown.entry("`a`", "Meaning\nof it.", ("one", "", "two"))
    assert text == "`a`\n: Meaning of it.\n\n  [one · two]{.facts}\n\n"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="other.html">x</a>', "other.html leads to no file"),
        ('<a href="#here">x</a>', "#here leads to no anchor"),
        (
            '<script src="https://cdn.example/x.js"></script>',
            "fetches https://cdn.example/x.js from another host",
        ),
    ],
)
def test_a_built_page_is_checked(tmp_path, monkeypatch, body, problem):
    monkeypatch.setattr(check_site, "OUTSIDE", ())
    (tmp_path / "index.html").write_text(body)
    (found,) = problems(tmp_path)
    assert problem in found


def test_a_style_that_fetches_from_elsewhere_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(check_site, "OUTSIDE", ())
    (tmp_path / "site.css").write_text("@import 'https://fonts.example/x.css';")
    (found,) = problems(tmp_path)
    assert found == "site.css fetches something from another host"


def test_a_table_of_a_docstring_becomes_a_table_of_the_page():
    lines = ["| Name | Unit |", "| ---- | ---- |", "| `x`  | px,  |", "|      | y up |"]
    assert convert(lines) == [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - Name",
        "     - Unit",
        "   * - ``x``",
        "     - px, y up",
        "",
    ]
