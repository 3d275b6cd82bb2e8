"""The site in a real browser, from the disk as it was built."""

from __future__ import annotations

import pytest

from tests.support.browser import browser_page

pytestmark = pytest.mark.browser

# Cut off: what is wider than its place, and has no scroll bar of its own.
TOO_WIDE = """(() => {
  const wide = (element) => element.scrollWidth > element.clientWidth + 1;
  const named = (element) => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
  return [
    ...[document.documentElement].filter(wide).map(() => "the page"),
    ...[...document.querySelectorAll(":not(pre) > code > span")]
      .filter((word) => word.getClientRects().length > 1).map(named),
    ...(innerWidth < 1000 ? [] : [...document.querySelectorAll("article pre > code")].filter(wide).map(named)),
  ];
})()"""
SCHEME = "document.body.dataset.mdColorScheme"


@pytest.fixture
def page(tmp_path):
    with browser_page(tmp_path / "profile") as page:
        yield page


@pytest.mark.parametrize("width", [1400, 400])
def test_code_fits_or_scrolls_and_no_short_name_is_cut_in_two(site, page, width):
    page.show_as(width=width, height=900, scheme="light")
    found = {}
    for file in sorted(site.rglob("*.html")):
        page.open(file.as_uri())
        found[file.name] = page.evaluate(TOO_WIDE)
    assert {name: wide for name, wide in found.items() if wide} == {}


def test_the_colours_follow_the_system_until_the_button_is_used(site, page):
    for scheme, shown in {"dark": "slate", "light": "default"}.items():
        page.show_as(width=1400, height=900, scheme=scheme)
        page.open((site / "index.html").as_uri())
        page.until(f"{SCHEME} === '{shown}'")
    page.evaluate("document.querySelector('label[for=__palette_1]').click()")
    page.until(f"{SCHEME} === 'default'")
    page.show_as(width=1400, height=900, scheme="dark")
    page.open((site / "quickstart.html").as_uri())
    page.until(f"{SCHEME} === 'default'")


def test_the_search_finds_a_name_without_a_server(site, page):
    page.open((site / "reference/client.html").as_uri())
    page.evaluate("document.querySelector('[data-md-component=search-query]').focus()")
    page.evaluate(
        "(() => { const box = document.querySelector('[data-md-component=search-query]');"
        "box.value = 'StreamInterrupted'; box.dispatchEvent(new Event('keyup', {bubbles: true})); })()"
    )
    page.until("document.querySelectorAll('.md-search-result__item').length > 2")
    first = page.evaluate("document.querySelector('.md-search-result__link').href")
    assert first.startswith(site.as_uri())
    page.open(first)
    assert page.evaluate("document.body.textContent.includes('StreamInterrupted')")
    assert page.errors == []
