"""The built site: links lead somewhere, nothing is fetched from elsewhere, the reference shows public names alone."""

from __future__ import annotations

import inspect
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import enclave
from enclave.simulator import Faults, Simulator
from tests.support.programs import PAGES, ROOT, programs

ELSEWHERE = re.findall(r"^    ([\w-]+\.md): (\S+)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
"""The pages whose source is not in docs/, with it."""


def texts(site: Path) -> dict[str, str]:
    """The HTML of every page by its path."""
    return {str(file.relative_to(site)): file.read_text() for file in sorted(site.rglob("*.html"))}


def article(html: str) -> str:
    return html.partition("<article")[2].partition("</article>")[0]


def plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def reference(site: Path) -> dict[str, str]:
    return {name: article(html) for name, html in texts(site).items() if name.startswith("reference/")}


def signatures(html: str) -> list[str]:
    return [plain(found) for found in re.findall(r'<div class="[^"]*doc-signature.*?</div>', html, re.DOTALL)]


def entry(site: Path, page: str, name: str) -> str:
    """What the reference shows of a name, up to the next name."""
    html = article((site / f"reference/{page}.html").read_text())
    return re.split(r'<h\d id="', html.partition(f'id="{name}"')[2])[0]


# Pages


def test_each_page_has_one_title_that_no_other_page_has(site):
    titles = []
    for name, html in texts(site).items():
        assert html.count("<h1") == 1, name
        if name != "404.html":
            titles.append(re.search(r"<title>(.*?)</title>", html)[1])
    assert len(set(titles)) == len(titles)


def test_each_link_leads_to_a_page_and_a_place_on_it(site):
    pages = texts(site)
    places = {name: {*re.findall(r'\bid="([^"]+)"', html), ""} for name, html in pages.items()}
    checked = 0
    for name, html in pages.items():
        for link in re.findall(r'<(?:a|link|script|img)\b[^>]*?\b(?:href|src)="([^"]+)"', html):
            if re.match(r"https?://|mailto:|data:", link) or name == "404.html":
                continue
            target, place = urldefrag(unquote(unescape(link)))
            path = (site / name).parent.joinpath(target).resolve() if target else site.resolve() / name
            path = path / "index.html" if path.is_dir() else path
            assert path.is_file(), (name, link)
            page = str(path.relative_to(site.resolve()))
            assert page not in places or place in places[page] | {"__nav_1"}, (name, link)
            checked += 1
    assert checked > 2000


def test_nothing_is_fetched_from_elsewhere(site):
    for name, html in texts(site).items():
        assert re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="(?:https?:)?//', html) == [], name
        assert re.findall(r'<link\b[^>]*rel="(?:stylesheet|preconnect|preload)"[^>]*href="(?:https?:)?//', html) == []


def test_each_page_leads_to_the_one_before_and_the_one_after(site):
    pages = {name for name in texts(site) if name != "404.html"}
    seen, page = [], "index.html"
    while page:
        seen.append(page)
        html = (site / page).read_text()
        following = re.search(r'<a href="([^"]+)" class="md-footer__link md-footer__link--next"', html)
        assert ("md-footer__link--prev" in html) == (len(seen) > 1)
        page = following and str((site / page).parent.joinpath(following[1]).resolve().relative_to(site.resolve()))
    assert set(seen) == pages


@pytest.mark.parametrize(("page", "source"), ELSEWHERE)
def test_a_page_from_elsewhere_says_what_its_source_says(site, page, source):
    shown = plain(article((site / page.replace(".md", ".html")).read_text()))
    unseen = re.compile(r"!\[[^\]]*\]|\]\([^)]*\)|<!--.*?-->|^```\w+", re.MULTILINE)
    words = re.findall(r"[A-Za-z]{4,}", unseen.sub("", (ROOT / source).read_text()))
    assert len(words) > 30
    assert set(words) <= set(re.findall(r"[A-Za-z]{4,}", shown))


def test_a_wrong_address_gets_a_page_that_leads_to_the_start(site):
    shown = (site / "404.html").read_text()
    assert "There is no such page" in plain(article(shown))
    assert re.search(r'<a href="[^"]*index\.html">start page</a>', article(shown))


# For language models


def test_llms_txt_lists_every_page_with_what_it_is_about(site):
    text = (site / "llms.txt").read_text()
    heading, quote, *_ = text.split("\n\n")
    assert (heading, quote[:2]) == ("# Enclave SDK for Python", "> ")
    listed = re.findall(r"^- \[([^\]]+)\]\(([^)]+)\): (\S.*)$", text, re.MULTILINE)
    sources = {page.removeprefix("docs/") for page in PAGES if page != "README.md"} | {page for page, _ in ELSEWHERE}
    assert {path for _, path, _ in listed} == sources
    for title, path, about in listed:
        assert (site / path).read_text().startswith(f"# {title}\n")
        assert len(about) > 20, path


def test_llms_full_txt_has_every_page_and_every_program(site):
    text = (site / "llms-full.txt").read_text()
    assert text.count("\n# ") >= len(PAGES)
    for page in PAGES:
        if page != "README.md":
            assert all(program in text for program, _ in programs(page)), page
    assert "### EnclaveClient\n\n```python\nEnclaveClient(\n    base_url: str | None = None," in text
    assert "max_event_bytes: int = 16 * 1024 * 1024" in text
    for target in re.findall(r"\]\(([\w./-]+\.md)[#)]", text):
        assert (site / target).is_file(), target


# The reference


def test_the_reference_names_nothing_that_is_private(site):
    for name, html in reference(site).items():
        headings = re.findall(r'<h\d id="([^"]+)" class="doc doc-heading"', html)
        assert headings, name
        assert [each for each in headings if re.search(r"\._(?!_aenter__|_anext__)", each)] == []
        assert [each for each in signatures(html) if re.search(r"\b_[a-z]|= _?[A-Z]+_[A-Z]", each)] == []


def test_whatever_a_signature_names_of_ours_is_a_link(site):
    """So no constructor shows that takes something internal, and no reference is left open."""
    for name, html in reference(site).items():
        unresolved = re.findall(r'<span title="(enclave\.[^"]*)">(?!<code>)', html)  # `code` is in a docstring
        # Variables of types, and the names of keywords in a default.
        assert [each for each in unresolved if not each.endswith((".T", ")"))] == [], name
        assert "autorefs-unresolved" not in html


@pytest.mark.parametrize(
    "name",
    [
        "enclave.SessionHandle",
        "enclave.FrameStream",
        "enclave.FrameBatches",
        "enclave.FanOut",
        "enclave.SyncSessionHandle",
        "enclave.SyncFrameStream",
        "enclave.SyncFrameBatches",
        "enclave.SyncFanOut",
    ],
)
def test_what_only_the_client_makes_has_no_constructor(site, name):
    assert entry(site, "client", name)
    assert signatures(entry(site, "client", name)) == []


def test_an_error_shows_its_attributes_and_no_constructor(site):
    html = reference(site)["reference/errors.html"]
    assert "status: int" in signatures(html)
    assert [each for each in signatures(html) if re.match(r"[A-Z]", each)] == []


def test_a_default_is_shown_as_its_value(site):
    [client] = signatures(entry(site, "client", "enclave.EnclaveClient"))
    for default in ("= Timeout()", "= RetryPolicy()", "max_event_bytes: int = 16 * 1024 * 1024"):
        assert default in client
    with_options = signatures(entry(site, "client", "enclave.EnclaveClient.with_options"))[0]
    assert "timeout: float | Timeout | None = ..., retry: RetryPolicy | None = ..." in with_options
    assert "SessionLimits( cpu_millis=1000" in signatures(entry(site, "simulator", "enclave.simulator.Simulator"))[0]


def test_a_request_is_shown_with_its_signature(site):
    [shown] = signatures(entry(site, "types", "enclave.CreateSessionRequest"))
    for name in inspect.signature(enclave.CreateSessionRequest).parameters:
        assert re.search(rf"\b{name}: ", shown), name
    assert "labels: Mapping[str, str] | None = None" in shown


@pytest.mark.parametrize(
    ("page", "name", "described"),
    [
        ("simulator", "enclave.simulator.Simulator", Simulator),
        ("simulator", "enclave.simulator.Simulator.serve", Simulator.serve),
        ("client", "enclave.EnclaveClient", enclave.EnclaveClient),
        ("client", "enclave.EnclaveClient.fan_out", enclave.EnclaveClient.fan_out),
        ("client", "enclave.EnclaveClient.sweep", enclave.EnclaveClient.sweep),
        *[
            ("simulator", f"enclave.simulator.Faults.{name}", getattr(Faults, name))
            for name in dir(Faults)
            if not name.startswith(("_", "take")) and name not in {"armed", "clear"}
        ],
        *[
            ("simulator", f"enclave.simulator.SyncSimulator.{name}", getattr(Simulator, name))
            for name in ("add_api_key", "issue_token", "script")
        ],
    ],
)
def test_every_parameter_is_described(site, page, name, described):
    shown = entry(site, page, name)
    for parameter in {*inspect.signature(described).parameters} - {"self"}:
        assert re.search(rf"<b><code>\*?{parameter}</code></b>.*?<p>\w", shown, re.DOTALL), parameter


@pytest.mark.parametrize("name", ["KillReason", "AuditType", "SessionPhase"])
def test_the_members_of_an_enumeration_are_listed(site, name):
    shown = plain(reference(site)["reference/types.html"])
    for member in getattr(enclave, name):
        assert re.search(rf"{member.name} = [\"']{member.value}[\"'] \w", shown), "with what it means"


@pytest.mark.parametrize(
    ("page", "name", "link"),
    [
        ("types", "enclave.Listing", "client.html#enclave.EnclaveClient.list"),  # a member of another class
        ("client", "enclave.EnclaveClient.list", "#enclave.EnclaveClient.get"),  # one of the same class
        ("client", "enclave.SessionHandle.stream", "#enclave.EnclaveClient.stream"),
        ("types", "enclave.SessionFields", "client.html#enclave.EnclaveClient.run"),
        ("ray", "enclave.ray.RunCode", "#enclave.ray.run"),  # a name with its module
        ("ray", "enclave.ray.Run", "#enclave.ray.run"),
    ],
)
def test_a_name_in_a_docstring_leads_to_what_it_names(site, page, name, link):
    code = r"<code>(?:<span>)?[\w.]+(?:</span>)?</code>"
    assert link in re.findall(rf'<a class="autorefs[^>]* href="([^"]+)">{code}</a>', entry(site, page, name))


def test_a_parameter_in_a_docstring_is_no_link(site):
    shown = entry(site, "simulator", "enclave.simulator.Simulator")
    assert "<p>the organisations. The first one is that of <code>api_key</code>.</p>" in shown
    assert "enclave.simulator.Simulator.api_key" in reference(site)["reference/simulator.html"]


def test_a_function_of_one_package_is_not_meant_by_the_others(site):
    for name, html in reference(site).items():
        assert name == "reference/ray.html" or "#enclave.ray." not in html


def test_what_a_class_has_from_one_that_is_not_public_is_shown_as_its_own(site):
    assert signatures(entry(site, "types", "enclave.Session.to_json")) == ["to_json() -> bytes"]
    assert signatures(entry(site, "types", "enclave.KillReason.is_known")) == ["is_known: bool"]
    assert signatures(entry(site, "errors", "enclave.WorkloadFailed.result")) == ["result: SessionResult[Any]"]


def test_code_in_docstrings_is_highlighted(site):
    assert '<span class="k">async</span>' in entry(site, "client", "enclave.EnclaveClient")
    assert not [name for name, html in reference(site).items() if "::" in plain(html)]


def test_a_signature_says_more_than_its_heading(site):
    for name, html in reference(site).items():
        assert [each for each in signatures(html) if re.fullmatch(r"\w+", each)] == [], name


def test_what_takes_any_number_of_arguments_has_no_default(site):
    shown = plain(entry(site, "client", "enclave.EnclaveClient.run"))
    assert "**fields (Unpack[SessionFields]) \N{EN DASH} fields of CreateSessionRequest" in shown
    assert "(CreateSessionRequest | str | None, default: None) \N{EN DASH} the source text" in shown


def test_the_list_of_contents_of_the_types_ends_at_classes(site):
    contents = (site / "reference/types.html").read_text().partition("<article")[0]
    assert 'href="#enclave.Session"' in contents
    assert 'href="#enclave.Session.id"' not in contents


def test_several_exceptions_are_shown_without_brackets(site):
    shown = plain(entry(site, "client", "enclave.EnclaveClient.attach"))
    assert "TypeError, ValueError \N{EN DASH} session_id cannot be the id of a session" in shown


def test_the_reference_says_what_an_observer_may_do(site):
    shown = plain(entry(site, "telemetry", "enclave.Observer"))
    assert "What a subclass may do, and what not" in shown
