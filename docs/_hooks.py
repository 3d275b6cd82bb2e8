"""For MkDocs: pages whose source stands elsewhere, and what the docstrings and the search need."""

# ruff: noqa: INP001 - MkDocs loads it by its path
from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page
    from mkdocs.structure.toc import AnchorLink

ROOT = Path(__file__).parent.parent
FILE = re.compile(r"(?<=\]\()[\w./-]+\.(?:md|png|svg)(?=[#)])")
"""A page or a picture that a link leads to, by its path from the folder of the page."""
BARE_SIGNATURE = re.compile(
    r'<div class="[^"]*\bdoc-signature\b[^>]*><pre><span></span><code><span class="n">\w+</span>\s*</code></pre></div>'
)
MAX_UNBROKEN_CHARS = 25
"""How long a word of code may be that a line of text does not break."""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that `extra.elsewhere` in mkdocs.yml names, and their pictures. So they have one source."""
    for page, source in config.extra["elsewhere"].items():
        text = (ROOT / source).read_text()
        folder = posixpath.dirname(source)
        for picture in FILE.findall(text):
            if not picture.endswith(".md"):
                files.append(File.generated(config, picture, abs_src_path=str(ROOT / folder / picture)))
        files.append(File.generated(config, page, content=_led_to_the_site(text, folder, "", config)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Lead links out of this folder to the pages that the site has instead."""
    if page.file.generated_by:
        return markdown
    folder = posixpath.dirname(page.file.src_uri)
    return _led_to_the_site(markdown, posixpath.normpath(f"docs/{folder}"), folder, config)


def _led_to_the_site(markdown: str, folder: str, page_folder: str, config: MkDocsConfig) -> str:
    """A text from `folder` of the source whose links work in `page_folder` of the site."""
    pages = {source: page for page, source in config.extra["elsewhere"].items()}

    def led(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[0]))
        page = pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else found[0])
        return posixpath.relpath(page, page_folder or ".")

    return FILE.sub(led, markdown)


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Mend what is shown badly, and end the list of contents at the level that a page names.

    Code in a line of text may be broken between its words. A short word, and every word in a table, is not broken
    inside: it is marked, see wide.css. A signature that is a name alone repeats its heading, so it is left out.
    """
    for item in page.toc:
        _end_contents(item, page.meta.get("contents_level", 6))
    html = BARE_SIGNATURE.sub("", html)
    html = re.sub(r"</code>\s+\)", "</code>)", html)  # after a default
    html = re.sub(r"<td\b.*?</td>", lambda cell: _with_marked_words(cell[0], r"\S+"), html, flags=re.DOTALL)
    return _with_marked_words(html, rf"(?<!\S)(?=\S*[^\w\s*])\S{{1,{MAX_UNBROKEN_CHARS}}}(?!\S)")


def _end_contents(item: AnchorLink, level: int) -> None:
    if item.level >= level:
        item.children = []
    for child in item.children:
        _end_contents(child, level)


def _with_marked_words(html: str, word: str) -> str:
    return re.sub(
        r"(?<!<span></span>)<code>([^<]+)</code>",
        lambda code: f"<code>{re.sub(word, lambda found: f'<span>{found[0]}</span>', code[1])}</code>",
        html,
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Give the index of the search as a script, which a page from the disk may load. See search-from-disk.js."""
    folder = Path(config.site_dir) / "search"
    (folder / "search_index.js").write_text(f"var __index = {(folder / 'search_index.json').read_text()}\n")
