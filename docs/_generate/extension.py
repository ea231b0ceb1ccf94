"""The Sphinx extension that joins it all: generated parts, links to sources, docstrings."""

import ast
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from docs._generate import links, pages
from docs._generate.docstrings import to_restructured_text

logger = logging.getLogger(__name__)

_INCLUDED = re.compile(r"^<!-- included: (\S+) -->$", re.MULTILINE)
_LANGUAGES = {
    ".py": "python",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".html": "html",
    ".css": "css",
    ".sh": "bash",
    ".cfg": "cfg",
}
_SHORT = 24  # characters, which fit into the narrowest screens
_LARGEST_BYTES = 300_000  # of a file that gets a page


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers everything; called by Sphinx."""
    app.add_role("source", SourceRole())
    app.add_lexer("haproxy", TextLexer)  # Pygments has none
    app.connect("source-read", _read_source)
    app.connect("html-collect-pages", _source_pages)
    app.connect("autodoc-process-docstring", to_restructured_text)
    app.connect("doctree-read", _mark_short_code)
    app.connect("env-purge-doc", _forget)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}


class SourceRole(SphinxRole):
    """A link to the page of a file or folder of the repository."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Returns the link; docutils calls it."""
        label, _, path = self.text.rpartition(" <")
        path = path.rstrip(">")
        self.env.metadata.setdefault(self.env.docname, {})
        _linked(self.env).setdefault(self.env.docname, set()).add(path)
        page = self.env.app.builder.get_relative_uri(self.env.docname, _page_of(path))
        link = nodes.reference("", "", internal=True, refuri=page, classes=["source"])
        link += nodes.literal(label, label)
        return [link], []


def _linked(env: Any) -> dict[str, set[str]]:
    if not hasattr(env, "rlcar_linked"):
        env.rlcar_linked = {}
    return env.rlcar_linked


def _forget(app: Sphinx, env: Any, document: str) -> None:
    _linked(env).pop(document, None)


def _page_of(path: str) -> str:
    return f"source/{path.rstrip('/')}"


def _read_source(app: Sphinx, document: str, content: list[str]) -> None:
    """Fills in what is included and generated, and rewrites links."""
    source = Path(app.env.doc2path(document))
    if source.suffix != ".md":
        return
    text = content[0]

    def report(sentence: str) -> None:
        logger.warning(sentence, location=document)

    included = _INCLUDED.search(text)
    if included:
        name, _, slug = included[1].partition("#")
        source = links.ROOT / name
        app.env.note_dependency(str(source), docname=document)
        if not source.exists():
            report(f"{included[1]}, which is to be included, does not exist")
            return
        whole = source.read_text()
        part = links.section(whole, slug) if slug else whole
        text = _INCLUDED.sub(lambda _: part, text)
    content[0] = pages.expand(links.rewrite(text, source, document, report))


def _mark_short_code(app: Sphinx, tree: nodes.document) -> None:
    """Lets the style keep short code on one line: an option would break after its hyphens."""
    for literal in tree.findall(nodes.literal):
        if len(literal.astext()) <= _SHORT:
            literal["classes"].append("short")


def _source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields a page for each file that a page links to, and for each folder with its files."""
    paths = sorted(set().union(*_linked(app.env).values()))
    files = [path for path in paths if (links.ROOT / path).is_file()]
    folders = [path for path in paths if (links.ROOT / path).is_dir()]
    for folder in folders:
        listed = _files_in(links.ROOT / folder)
        files += [str(file.relative_to(links.ROOT)) for file in listed]
        yield _page_of(folder), {"title": folder, "body": _listing(folder, listed)}, "page.html"
    for path in sorted(set(files)):
        yield _page_of(path), {"title": path, "body": _highlighted(app, path)}, "page.html"


def _files_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and file.suffix in _LANGUAGES
        and "__pycache__" not in file.parts
        and file.stat().st_size <= _LARGEST_BYTES
        and not file.is_relative_to(links.DOCS / "_build")
    )


def _listing(folder: str, files: list[Path]) -> str:
    depth = _page_of(folder).count("/")
    rows = (
        f'<tr><td><a href="{"../" * depth}{_page_of(str(file.relative_to(links.ROOT)))}.html">'
        f"<code>{escape(str(file.relative_to(links.ROOT / folder)))}</code></a></td>"
        f"<td>{escape(_first_line(file))}</td></tr>"
        for file in files
    )
    return (
        f"<h1><code>{escape(folder)}</code></h1>"
        f'<table class="docutils files"><tbody>{"".join(rows)}</tbody></table>'
    )


def _first_line(file: Path) -> str:
    if file.suffix != ".py":
        return ""
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def _highlighted(app: Sphinx, path: str) -> str:
    file = links.ROOT / path
    title = f"<h1><code>{escape(path)}</code></h1>"
    if file.stat().st_size > _LARGEST_BYTES:
        return f"{title}<p>{file.stat().st_size:,} bytes: too long for a page.</p>"
    highlighter: Any = app.builder.highlighter  # type: ignore[attr-defined]
    language = _LANGUAGES.get(file.suffix, "make" if file.name == "Makefile" else "text")
    text = file.read_text()
    return title + highlighter.highlight_block(text, language, force=True, linenos="inline")
