"""Links of pages to files of the repository: they are checked, and lead to pages of source text."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
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
        if is_of_the_site(target) or picture:
            relative = os.path.relpath(target, (DOCS / document).parent)
            return f"{picture}[{label}]({Path(relative).as_posix()}{hash_}{fragment})"
        return f"{{source}}`{label.strip('`')} <{target.relative_to(ROOT).as_posix()}>`"

    return "".join(part if is_code else _LINK.sub(replace, part) for is_code, part in _parts(text))


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
