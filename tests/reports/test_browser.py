"""The report in a real browser, opened from disk: `make test-browser`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.report_subjects import HOSTILE, broken, fixed, hostile, run_folder, spoiled

from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.reports.build import report_comparison, report_traces
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.runs.records import as_record
from backtrack_mrt.types import Scored

expect = pytest.importorskip("playwright.sync_api", reason="make test-browser installs it").expect
pytestmark = pytest.mark.browser
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FIRST = "#shown article:first-of-type"


def chromium() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    assert found, "no chromium: make test-browser installs one where it can"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


def written(path: Path, scored: list[Scored]) -> Path:
    path.write_text("".join(json.dumps(as_record(s)) + "\n" for s in scored))
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two files of the same 40 problems, the second with a trace that tries to break out."""
    folder = tmp_path_factory.mktemp("viewer")
    base = written(folder / "base.jsonl", [make(n) for n in range(20) for make in (broken, spoiled)])
    files = [base, written(folder / "trained.jsonl", [*map(fixed, range(40)), hostile()])]
    return report_traces(files, folder / "traces.html").as_uri()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which anything that goes wrong, or out, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page, trouble = context.new_page(), []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else trouble.append(request.url))
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert trouble == []


def names(page: Any) -> list[str]:
    """Of the traces in the list, as links have them."""
    return [link.get_attribute("href").split("trace=")[1] for link in page.locator("#rows a").all()]


def test_it_opens_from_disk_and_lists_all(page: Any, url: str) -> None:
    page.goto(url)
    assert "81 of 81" in page.locator("#status").inner_text()
    assert page.locator("#rows tr").count() == 50
    page.click("#next")
    assert page.locator("#rows tr").count() == 31


def test_it_filters(page: Any, url: str) -> None:
    page.goto(url)
    for name, value, left in (
        ("kind", "spoiled", 20),
        ("source", "1", 0),
        ("kind", "violation", 1),
        ("stop", "violation", 1),
    ):
        page.select_option(f"select[name={name}]", value)
        expect(page.locator("#status")).to_have_text(f"{left} of 81 traces")
    page.click("button[type=reset]")
    page.fill("input[name=q]", "P/39")
    expect(page.locator("#status")).to_have_text("1 of 81 traces")
    assert names(page)[0].startswith("trained%3A40")


def test_it_sorts(page: Any, url: str) -> None:
    page.goto(url)
    page.select_option("select[name=sort]", "progress")
    expect(page.locator("#rows td:nth-child(3)").first).to_have_text("−0.50")
    cells = page.locator("#rows td:nth-child(3)").all_inner_texts()
    progress = [float(cell.replace("−", "-").replace("–", "9")) for cell in cells]
    assert progress == sorted(progress)
    page.select_option("select[name=sort]", "-tokens")
    expect(page.locator("#rows td:nth-child(4)").first).to_have_text("8")


def test_a_link_shows_what_its_sender_saw(page: Any, url: str) -> None:
    page.goto(f"{url}#source=1&sort=-progress&trace=trained%3A60&trace=trained%3A12")
    page.wait_for_selector(f"{FIRST}[data-name='trained:12']")
    assert page.input_value("select[name=source]") == "1"
    assert page.locator("tr[aria-current] a").count() == 1
    page.click("#rows tr:nth-child(1) a")
    page.wait_for_selector(f"{FIRST}[data-name='trained:1']")
    page.go_back()
    page.wait_for_selector(f"{FIRST}[data-name='trained:12']")
    page.goto(f"{url}#trace=nowhere%3A1")
    page.wait_for_selector("text=There is no trace nowhere:1")


def test_it_shows_what_was_discarded(page: Any, url: str) -> None:
    page.goto(f"{url}#trace=trained%3A1")
    page.wait_for_selector(FIRST)
    assert page.locator(f"{FIRST} del").inner_text().startswith("## Step 2: three")
    assert "discarded by turn 3" in page.locator(FIRST).inner_text()
    assert "V 0.40 → 0.90, progress ▲ +0.50" in page.locator(FIRST).inner_text()
    assert page.locator(f"{FIRST} figure svg polygon.regret").count() == 1


def test_the_keyboard_is_enough(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#rows tr")
    page.keyboard.press("j")
    page.wait_for_selector(f"{FIRST}[data-name='base:1']")
    page.keyboard.press("j")
    page.wait_for_selector(f"{FIRST}[data-name='base:2']")
    page.keyboard.press("k")
    page.wait_for_selector(f"{FIRST}[data-name='base:1']")
    page.keyboard.press("c")
    page.wait_for_selector("#shown article:nth-of-type(2)[data-name='trained:1']")
    page.keyboard.press("Escape")
    expect(page.locator("#shown article")).to_have_count(1)
    page.keyboard.press("t")
    page.wait_for_selector(f"{FIRST} .token")
    page.focus(f"{FIRST} .token")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "sampled" in page.locator(f"{FIRST} .readout").inner_text()
    assert "p = 0.90" in page.locator(f"{FIRST} .readout").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("p/3")
    expect(page.locator("#status")).to_have_text("13 of 81 traces")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "source"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_hostile_text_is_text(page: Any, url: str) -> None:
    page.goto(f"{url}#source=1&kind=violation")
    title = page.title()
    page.click("#rows a")
    page.wait_for_selector(FIRST)
    shown = page.locator(FIRST).text_content()
    assert HOSTILE.split("\u202e")[0] in shown
    assert "⟨U+202E⟩evil⟨U+202C⟩" in shown
    assert "x" * 50_000 in shown
    assert "more characters" in page.locator(FIRST).inner_text()
    page.keyboard.press("t")
    page.wait_for_selector(f"{FIRST} .token")
    assert page.title() == title
    assert page.locator("img, iframe, object").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_report_of_a_comparison_opens(page: Any, tmp_path: Path) -> None:
    runs = [read_run(run_folder(tmp_path / algo, algo)) for algo in ("mrt-rl", "grpo")]
    page.goto(report_comparison(Comparison(runs), tmp_path).as_uri())
    expect(page.locator("#status")).to_have_text("40 of 40 traces")
    assert page.locator("h1").inner_text() == "mrt-rl · grpo"
    for chart in page.locator(".figures svg").all():
        assert chart.bounding_box()["height"] > 100
    page.click("#figure-accuracy >> text=Numbers")
    assert page.locator("#figure-accuracy table").is_visible()
    page.goto(f"{page.url}#trace=mrt-rl%2Fstep_000001%3A1")
    page.wait_for_selector(FIRST)
    page.keyboard.press("c")
    expect(page.locator("#shown article")).to_have_count(4)  # p/1 of the base, of both policies, and of grpo's step
    page.keyboard.press("t")
    page.wait_for_selector(f"{FIRST} .token.sampled")
    page.hover(f"{FIRST} .token.sampled >> nth=0")
    assert "advantage +0.50" in page.locator(f"{FIRST} .readout").inner_text()


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(page: Any, url: str, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{url}#trace=trained%3A1&with=base%3A3")
    page.wait_for_selector(FIRST)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_is_printed_in_light_colours(page: Any, url: str) -> None:
    page.goto(url)
    page.emulate_media(media="print", color_scheme="dark")
    colours = page.evaluate(
        "['--paper', '--gain-2', '--wrong'].map(name => getComputedStyle(document.body).getPropertyValue(name))"
    )
    assert colours == ["#ffffff", "#b9d9f2", "#a63603"]
    assert not page.locator("#viewer").is_visible()
    assert page.locator("#examples article").first.is_visible()


def test_the_essentials_need_no_script(browser: Any, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert page.locator("#examples article").count() >= 3
    assert page.locator("#examples del").first.is_visible()
    assert page.locator("noscript").is_visible()
    context.close()
