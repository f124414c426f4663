"""The website in a real browser: formulas, pictures, width and contrast, in both themes.

A sample of the pages is opened wide and light, and narrow and dark, and every chapter once. With
IRLBOOK_BROWSER=all every page is opened in all four ways (a quarter of an hour).
"""

import os

import pytest
from browser_pages import browser, served
from site_builder import built_site, pages_of

SAMPLE = (
    *("index.html", "search.html", "genindex.html", "docs/glossary.html", "docs/references.html"),
    *("docs/reference/posttraining.html", "chapters/15_over_optimisation.html"),
    *("exercises/03_price_of_information.html", "solutions/06_maximum_entropy_irl.html"),
)
ALL = os.environ.get("IRLBOOK_BROWSER") == "all"
WAYS = ((1280, "light"), (390, "dark"), *(((1280, "dark"), (390, "light")) if ALL else ()))
# Outside of the article all is the theme's, and what becomes of a formula is MathJax's. Code has
# thousands of elements in a dozen colours: PALE measures each colour once, and axe sees no code.
REMOVE = (
    """() => document.querySelectorAll("mjx-container, .highlight").forEach((e) => e.remove())"""
)
AXE = {"resultTypes": ["violations"], "preload": False}

MATHS = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  return [...document.querySelectorAll("mjx-merror, [data-mjx-error]")]
    .map((error) => error.getAttribute("data-mjx-error") || error.textContent);
}"""
PICTURES = """() => [...document.images]
  .filter((image) => image.complete && image.naturalWidth === 0).map((image) => image.src)"""
PALE = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = new Map();
  for (const part of document.querySelectorAll(".highlight pre, .highlight span")) {
    if (![...part.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    let paper = part;
    const clear = "rgba(0, 0, 0, 0)";
    while (paper && getComputedStyle(paper).backgroundColor === clear) paper = paper.parentElement;
    const ground = paper ? getComputedStyle(paper).backgroundColor : "rgb(255, 255, 255)";
    const colour = getComputedStyle(part).color;
    const [low, high] = [light(colour), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) pale.set(`${colour} on ${ground}: ${ratio.toFixed(1)}`, part.textContent);
  }
  return [...pale].map(([what, text]) => `${what}, first "${text.slice(0, 30)}"`);
}"""
OVERFLOW = """() => document.documentElement.scrollWidth - window.innerWidth"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """(browser, address, names of all pages)."""
    with browser() as chromium:
        site = built_site(tmp_path_factory.mktemp("site"))
        names = [path.relative_to(site).as_posix() for path in pages_of(site)]
        with served(site) as address:
            yield chromium, address, names


def _note(message, said: list[str]) -> None:
    if message.type == "error":
        said.append(f"{message.text} {message.location.get('url', '')}")


def findings(chromium, address: str, names, width: int, theme: str, axe: bool) -> list[str]:
    """What is wrong with these pages, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    for name in names:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message, s=said: _note(message, s))
        page.on("pageerror", lambda error, s=said: s.append(str(error)))
        page.on("requestfailed", lambda request, s=said: s.append(f"missing {request.url}"))
        page.goto(address + name, wait_until="load")
        wrong = [f"formula: {text}" for text in page.evaluate(MATHS)]
        wrong += [f"console: {text}" for text in said]
        wrong += [f"picture: {source}" for source in page.evaluate(PICTURES)]
        if (pixels := page.evaluate(OVERFLOW)) > 0:
            wrong.append(f"{pixels} px wider than the window")
        wrong += [f"contrast of code: {colours}" for colours in page.evaluate(PALE)]
        if axe and page.locator(".bd-article").count():
            page.evaluate(REMOVE)
            for rule in Axe().run(page, context=".bd-article", options=AXE).response["violations"]:
                first = rule["nodes"][0]["html"][:120]
                wrong.append(f"axe: {rule['id']} at {len(rule['nodes'])} places, first {first}")
        found += [f"{name} at {width} px, {theme}: {line}" for line in wrong]
        page.close()
    context.close()
    return found


FAULTY = """<!doctype html><html lang="en"><head><title>A</title><link rel="icon" href="data:,">
<script>console.error("a fault of a script")</script></head><body><main class="bd-article">
<h1>A</h1><img src="gone.png" alt="gone"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<div style="width: 3000px; background: #fff; color: #ddd">wide and pale</div>
<div class="highlight"><pre><span style="color: #999">pale</span> plain</pre></div>
<mjx-merror data-mjx-error="tag not allowed">x</mjx-merror></main></body></html>"""


def test_each_kind_of_fault_is_found_where_it_was_planted(tmp_path):
    (tmp_path / "a.html").write_text(FAULTY, encoding="utf-8")
    with browser() as chromium, served(tmp_path) as address:
        found = "\n".join(findings(chromium, address, ["a.html"], 390, "light", axe=True))
    for fault in (
        "formula: tag not allowed",
        "a fault of a script",
        "picture: ",
        "px wider",
        "rgb(153, 153, 153)",
    ):
        assert fault in found
    assert "axe: image-alt" in found and "axe: color-contrast" in found


def test_every_chapter_shows_its_formulas_and_pictures(opened):
    chromium, address, names = opened
    chapters = [name for name in names if name.startswith("chapters/")]
    assert len(chapters) >= 16
    assert findings(chromium, address, chapters, 1280, "light", axe=False) == []


@pytest.mark.parametrize(("width", "theme"), WAYS)
def test_pages_fit_the_window_and_can_be_read_by_everybody(opened, width, theme):
    chromium, address, names = opened
    chosen = names if ALL else SAMPLE
    assert findings(chromium, address, chosen, width, theme, axe=True) == []
