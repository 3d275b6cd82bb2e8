"""For MkDocs: each page as Markdown beside its HTML, `llms.txt` as a list of them, and all in `llms-full.txt`.

The form of the list is the one of https://llmstxt.org/.
"""

# ruff: noqa: INP001 - MkDocs loads it by its path
from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bs4 import BeautifulSoup
from markdownify import markdownify

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()([\w./-]+)\.(md|html|png|svg)(?=[#)])")

PARAMETER = re.compile(r"\((`[^`]+`(?:,\s+default:\s+`[^`]+`)?)\s*\)\s+\N{EN DASH}\s+")
"""What stands between the name of a parameter and its description, over several lines."""


def on_env(env: object, config: MkDocsConfig, files: Files) -> None:
    """Write them. The pages are rendered by now."""
    del env
    site = Path(config.site_dir)
    texts = [(page, _text(page)) for page in _in_order(files)]
    for page, text in texts:
        path = site / page.file.src_uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (site / "llms.txt").write_text("".join(_list(texts, config)))
    whole = "\n\n".join(_at_the_root(text, posixpath.dirname(page.file.src_uri)) for page, text in texts)
    (site / "llms-full.txt").write_text(whole)


def _in_order(files: Files) -> Iterator[Page]:
    """The pages of the navigation."""
    start = files.get_file_from_path("index.md")
    page = start and start.page
    while page:
        yield page
        page = page.next_page


def _text(page: Page) -> str:
    """What a guide's source says, or what the reference shows, whose source is a list of names."""
    if not page.file.src_uri.startswith("reference/"):
        return (page.markdown or "").strip() + "\n"
    html = BeautifulSoup(page.content or "", "html.parser")
    for anchor in html.select(".headerlink"):
        anchor.decompose()
    text = markdownify(html.decode(), heading_style="ATX", bullets="-", code_language="python")
    text = PARAMETER.sub(lambda found: f"({' '.join(found[1].split())}): ", LINK.sub(r"\1.md", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _list(texts: list[tuple[Page, str]], config: MkDocsConfig) -> Iterator[str]:
    yield f"# {config.site_name}\n\n> {config.site_description}\n\n"
    yield "All pages in one file: [llms-full.txt](llms-full.txt)\n"
    heading = None
    for page, text in texts:
        section = page.parent.title if page.parent else "Start"
        if section != heading:
            yield f"\n## {section}\n\n"
            heading = section
        yield f"- [{page.title}]({page.file.src_uri}): {_first_sentence(text)}\n"


def _first_sentence(text: str) -> str:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = (part for part in prose.split("\n\n") if part.strip() and not re.match(r"\s*(?:[#|>!<]|- )", part))
    words = " ".join(next(paragraphs, "").split())
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.split(r"(?<=[.:])\s", words)[0]).rstrip(":")


def _at_the_root(text: str, folder: str) -> str:
    """The text with its links as they are from the root of the site."""
    return LINK.sub(lambda found: posixpath.normpath(posixpath.join(folder, found[0])), text)
