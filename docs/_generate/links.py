"""Links of pages to files of the repository: they are checked, and lead to pages of source text."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Files outside docs/, and sections of them, that pages of the site include.
PAGE_OF = {
    "README.md#where-to-change-what": "where-to-change-what.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "cluster/README.md": "cluster.md",
}
_PICTURES = (".png", ".gif", ".svg", ".jpg", ".mp4")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def rewrite(text: str, source: Path, document: str, report: Callable[[str], None]) -> str:
    """Returns Markdown of the file `source` as that of a document of the site.

    Links to pages and pictures become relative to the document; those to other files of the
    repository become the role `source`. `report` gets a sentence for each link that leads nowhere.
    """

    def replace(found: re.Match[str]) -> str:
        picture, label, link = found.groups()
        if "://" in link or link.startswith(("#", "mailto:")):
            return found[0]
        path, hash_, fragment = link.partition("#")
        target = Path(os.path.normpath(source.parent / path))
        if not target.exists():
            report(f"{source.relative_to(ROOT)} links to {link}, which does not exist")
            return label
        name = target.relative_to(ROOT).as_posix()
        if f"{name}{hash_}{fragment}" in PAGE_OF:
            target = DOCS / PAGE_OF[f"{name}{hash_}{fragment}"]
            hash_ = fragment = ""
        elif name in PAGE_OF:
            target = DOCS / PAGE_OF[name]
        if is_of_the_site(target) or target.suffix in _PICTURES:
            relative = os.path.relpath(target, (DOCS / document).parent)
            return f"{picture}[{label}]({Path(relative).as_posix()}{hash_}{fragment})"
        return f"{{source}}`{label.strip('`')} <{name}>`"

    return "".join(part if is_code else _LINK.sub(replace, part) for is_code, part in _parts(text))


def section(text: str, slug: str) -> str:
    """Returns the section of Markdown whose heading has a slug, as a page of its own.

    Raises KeyError where there is none.
    """
    for found in re.finditer(r"^(##+) (.+)$", text, re.MULTILINE):
        level, title = found.groups()
        if re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) == slug:
            end = re.search(rf"^#{{2,{len(level)}}} ", text[found.end() :], re.MULTILINE)
            body = text[found.start() : found.end() + end.start() if end else None]
            return re.sub(rf"^#{{{len(level) - 1}}}(?=#+ )", "", body, flags=re.MULTILINE)
    raise KeyError(slug)


def links_in(text: str) -> Iterator[str]:
    """Yields where the links and pictures of Markdown lead."""
    for is_code, part in _parts(text):
        if not is_code:
            yield from (found[3] for found in _LINK.finditer(part))


def is_of_the_site(path: Path) -> bool:
    """Whether a file is a page of the site."""
    return path.suffix == ".md" and path.is_relative_to(DOCS)


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """Splits at fenced code, which holds no links."""
    end = 0
    for found in _FENCE.finditer(text):
        yield False, text[end : found.start()]
        yield True, found[0]
        end = found.end()
    yield False, text[end:]
