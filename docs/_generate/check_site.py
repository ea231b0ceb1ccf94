"""Checks the built site: links lead somewhere, and nothing comes from another host."""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs._generate import links

# The pages of Markdown that are read in the repository.
OUTSIDE = ("README.md", *(name for name in links.PAGE_OF if "#" not in name))
_FETCHED_BY_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")


class Page(HTMLParser):
    """The anchors of a page, where it links to and what a browser fetches to show it."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag holds; the parser calls it."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and "href" in values:
            self.fetched.append(values["href"])
        elif "src" in values:
            self.fetched.append(values["src"])


def problems(site: Path) -> Iterator[str]:
    """Yields a sentence for whatever is wrong."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in page.fetched:
            if urlsplit(link).netloc:
                yield f"{name} fetches {link} from another host"
        for link in (*page.links, *page.fetched):
            yield from (f"{name}: {problem}" for problem in _dead(path, link, pages))
    for path in sorted(site.rglob("*.css")):
        if _FETCHED_BY_CSS.search(path.read_text()):
            yield f"{path.relative_to(site)} fetches something from another host"
    for outside in OUTSIDE:
        yield from _dead_outside(links.ROOT / outside, site, pages)


def _dead(path: Path, link: str, pages: dict[Path, Page]) -> Iterator[str]:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if not target.exists():
        yield f"{link} leads to no file"
    elif (
        parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
    ):
        yield f"{link} leads to no anchor"


def _dead_outside(source: Path, site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    for link in links.links_in(source.read_text()):
        parts = urlsplit(link)
        target = (source.parent / parts.path).resolve()
        name = source.relative_to(links.ROOT)
        if parts.scheme or not parts.path:
            continue
        if not target.exists():
            yield f"{name}: {link} leads to no file"
        elif parts.fragment and links.is_of_the_site(target):
            page = site / target.relative_to(links.DOCS).with_suffix(".html")
            if parts.fragment not in pages[page.resolve()].anchors:
                yield f"{name}: {link} leads to no anchor"


def main() -> int:
    """Prints what is wrong with the site of the first argument; returns the exit code."""
    site = Path(sys.argv[1]).resolve()
    found = sorted(set(problems(site)))
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
