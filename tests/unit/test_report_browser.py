"""Pages in a real browser, from a file: they load nothing, run nothing of a response, and can be read in every way."""

import os
import re
import shutil
from argparse import Namespace
from itertools import pairwise

import pytest
from conftest import script
from report_study import HOSTILE, flags, write_study

CHROMIUM = shutil.which("chromium")
PHONE = {"width": 360, "height": 780}

pytestmark = pytest.mark.skipif(not CHROMIUM and not os.environ.get("CI"), reason="chromium is not installed")

CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colours) => {  // painted one over the other
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (colour) => {
    const linear = (one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.map((one) => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || element.closest("svg, script, noscript, :disabled") || !element.checkVisibility()) continue;
    const behind = [];
    for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const style = getComputedStyle(element);
    const [light, dark] = [luminance(over(behind)), luminance(over([...behind, style.color]))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 600);
    const text = element.textContent.trim().slice(0, 30);
    if (ratio < (large ? 3 : 4.5)) poor.push(`${element.tagName} ${element.className} ${ratio.toFixed(2)} ${text}`);
  }
  return [...new Set(poor)];
}"""
"""Texts whose contrast is below WCAG 2's AA."""

NAMELESS = """() => [...document.querySelectorAll("button, select, input, a[href], [role], [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !(one.textContent.trim() || one.getAttribute("aria-label")
    || one.getAttribute("aria-labelledby") || one.labels?.length))
  .map((one) => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    script("report").main(Namespace(**flags(write_study(root / "made"))))
    script("compare").main(Namespace(models=["made"], results=root, output=root / "compare.html"))
    return root


@pytest.fixture
def opened(browser, folder):
    """A function that opens a page; in the end nothing was asked for but pages, and nothing was complained about."""
    contexts, asked, said = [], [], []

    def open_page(name="made/report.html", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((folder / name).as_uri())
        if "report" in name and settings.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert asked
    assert all(url.startswith(folder.as_uri()) for url in asked)


def names(page):
    return [one.split()[0] for one in page.locator("#table tbody th").all_inner_texts()]


def listed(page):
    return page.locator("#prompts li").count()


def test_table_sorts_filters_and_shows_other_columns(opened):
    page = opened()
    study = names(page)
    assert study[:2] == ["none", "0"]
    refused = page.locator("#table thead th", has_text="harmful refused")
    refused.locator("button").click()
    assert refused.get_attribute("aria-sort") == "ascending"
    assert names(page)[:2] == ["1-2", "0-2"]
    # by keyboard; the focus stays where it was
    page.keyboard.press("Enter")
    assert refused.get_attribute("aria-sort") == "descending"
    assert names(page)[0] == "none"
    assert page.locator("th[aria-sort]").count() == 1
    # what was not measured stands last, whichever way
    tested = page.locator("#table thead th", has_text="Holm").locator("button")
    for _ in range(2):
        tested.click()
        untested = ["none", "0", "random-k1-s0", "random-k1-s1", "random-k2-s0", "add-0"]
        assert names(page)[-6:] == untested
    page.get_by_label("random", exact=True).uncheck()
    assert page.locator("#row-count").inner_text() == "8 of 11 combinations"
    assert not [name for name in names(page) if name.startswith("random")]
    page.locator(".chooser summary").click()
    page.locator("#columns").get_by_label("CE, text", exact=True).check()
    page.locator("#columns").get_by_label("ablated").uncheck()
    heads = page.locator("#table thead button").all_inner_texts()
    assert "CE" in heads
    assert "ablated" not in heads
    with page.expect_download() as download:
        page.get_by_text("Download all columns as CSV").click()
    assert download.value.suggested_filename == "made-summary.csv"
    assert download.value.path().read_text().startswith("combination,kind,")


def test_responses_side_by_side_and_nothing_in_them_runs(opened):
    page = opened()
    cards = page.locator(".card")
    assert [cards.nth(number).get_attribute("aria-label") for number in range(3)] == [
        "Under none",
        "Under 0",
        "Under 0-2",
    ]
    assert listed(page) == 100
    verdicts = cards.first.locator(".verdicts li").all_inner_texts()
    assert [re.sub(r"\s+", " ", one) for one in verdicts] == ["substring refused", "other refused"]
    assert cards.first.locator("details", has_text="Reasoning").locator("p").text_content() == "let me <b>think</b>"
    assert "cut at the longest length" in cards.first.inner_text()
    for key, text in HOSTILE.items():
        page.locator(f"#prompt-{key}").click()
        shown = cards.first.locator(".response").text_content()
        assert shown == (text or "an empty response")
        assert page.evaluate("window.broken") is None
    assert cards.first.locator(".response img, .response script, .response b").count() == 0
    # the raw answer of a judge, where it is not the response
    assert "<verdict>refusal</verdict></script>" in cards.first.locator("details", has_text="Why: other").text_content()


def test_prompts_are_filtered_searched_and_walked_by_keys(opened):
    page = opened()
    page.get_by_label("Show").select_option("differs")
    # 0 leaves 50 of those refused without ablation, and 0-2 leaves 2
    page.locator("#second").select_option("0")
    assert listed(page) == 50
    page.get_by_label("Show").select_option("refused")
    page.locator("#first").select_option("0-2")
    assert listed(page) == 2
    # what is filtered by is shown
    page.locator("#first").select_option("add-0")
    assert page.locator(".card").last.get_attribute("aria-label") == "Under add-0"
    page.locator(".card").last.get_by_role("button", name="Remove").click()
    page.get_by_label("Show").select_option("disagree")
    assert listed(page) == 10
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Search").fill("separators")
    assert listed(page) == 1
    page.get_by_label("Search").fill("nowhere")
    assert "No prompt is left" in page.locator("#prompt").inner_text()
    page.get_by_label("Search").fill("")
    page.locator("#prompts").focus()
    for key, place in (
        ("Home", "1 of 100"),
        ("ArrowDown", "2 of 100"),
        ("End", "100 of 100"),
        ("ArrowUp", "99 of 100"),
    ):
        page.keyboard.press(key)
        assert page.locator("#prompt p").inner_text().startswith(place)
    assert page.locator("#prompts").get_attribute("aria-activedescendant") == "prompt-98"
    assert page.locator('#prompts [aria-selected="true"]').count() == 1
    page.locator("#previous").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#prompt p").inner_text().startswith("100 of 100")
    assert page.locator("#next").is_disabled()
    page.get_by_text("Add a combination").click()
    assert page.locator(".card").count() == 4
    page.locator(".card").last.get_by_role("button", name="Remove").click()
    assert page.locator(".card").count() == 3
    for _ in range(3):
        page.get_by_text("Add a combination").click()
    page.get_by_label("Show").select_option("differs")
    page.locator("#first").select_option("add-0")
    page.locator("#second").select_option("random-k1-s0")
    shown = page.locator(".card").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert (len(shown), shown[-2:]) == (6, ["Under add-0", "Under random-k1-s0"])
    page.get_by_label("Show").select_option("all")
    page.get_by_label("harmless (12)").check()
    assert listed(page) == 12


def test_a_combination_is_chosen_by_typing_its_name(opened):
    page = opened()
    choice = page.locator(".card").last.locator("select")
    choice.focus()
    page.keyboard.type("1-2")
    assert page.locator(".card").last.get_attribute("aria-label") == "Under 1-2"
    assert page.locator(".card").last.get_by_role("button").get_attribute("aria-label") == "Remove 1-2"
    assert page.locator(".card").last.locator(".response").text_content() == "sure, first rest."
    assert choice.evaluate("one => one === document.activeElement")
    page.locator(".card").last.get_by_role("button").click()
    assert page.locator(".card").count() == 2


def test_what_is_unfolded_stays_so_for_the_next_prompt(opened):
    page = opened()
    why = page.locator(".card").first.locator("details", has_text="Why: other")
    why.locator("summary").click()
    page.locator("#next").click()
    assert why.get_attribute("open") is not None
    assert page.locator(".card details[open]").count() == 3
    why.locator("summary").click()
    page.locator("#next").click()
    assert why.get_attribute("open") is None


def test_plots_are_drawn_in_the_page_s_colours_and_enlarged(opened):
    page = opened(color_scheme="dark")
    bar = page.locator("#scores-bar")
    assert bar.evaluate("one => getComputedStyle(one).fill") == page.evaluate("getComputedStyle(document.body).color")
    page.locator("figure", has_text="Plot of scores").get_by_role("button", name="Enlarge").click()
    dialog = page.locator("dialog")
    assert dialog.locator("svg").get_attribute("aria-label") == "bars of scores"
    assert bar.count() == 1
    page.keyboard.press("Escape")
    page.locator("figure #scores-bar").wait_for()


@pytest.mark.parametrize("name", ["made/report.html", "compare.html"])
def test_light_dark_contrast_names_and_headings(opened, name):
    page = opened(name)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page.evaluate(CONTRAST) == []
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.evaluate(CONTRAST) == []
    assert opened(name, color_scheme="dark").evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.evaluate(NAMELESS) == []
    levels = page.evaluate(
        "[...document.querySelectorAll('main h1, main h2, main h3')].map((one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    doubled = page.evaluate(
        "[...document.querySelectorAll('[id]')].map((one) => one.id).filter((id, at, all) => all.indexOf(id) !== at)"
    )
    assert doubled == []
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("name", ["made/report.html", "compare.html"])
def test_a_phone_shows_it_without_scrolling_sideways(opened, name):
    page = opened(name, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    # what is wider scrolls in a box of its own, which keys reach
    boxes = page.locator(".scrolls").evaluate_all(
        "all => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.tabIndex)"
    )
    assert set(boxes) == {0}


def test_without_scripts_all_but_browsing_is_there(opened):
    page = opened(java_script_enabled=False)
    text = page.locator("main").inner_text()
    assert "One direction is not enough" in text
    assert "Browsing needs JavaScript." in text
    assert page.locator("#table tbody tr").count() == 11
    assert page.locator("figure svg").count() == 2
    assert not page.locator(".browser").is_visible()
    assert not page.locator(".enlarge").first.is_visible()
