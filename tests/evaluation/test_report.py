"""The page stands alone, takes no caption for markup, keeps its size, and shows in a browser at both widths."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from onmodel.evaluation import thumbnails
from onmodel.evaluation.compare import Comparison, Mix, compare
from onmodel.evaluation.report import chip_view, render_html, render_markdown, write_report

from .made import SCENARIOS, evaluation

HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(2)> {{ 7*7 }} | a_b https://example.com/x'


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {"trial_1": tmp_path / "one", "trial_2": tmp_path / "two"}


@pytest.fixture
def comparison(folders: dict[str, Path]) -> Comparison:
    first = evaluation("trial_1", dict.fromkeys(SCENARIOS, 0.2), folders["trial_1"], texts=[HOSTILE])
    second = evaluation("trial_2", dict.fromkeys(SCENARIOS, 0.9), folders["trial_2"], seed=1, texts=[HOSTILE])
    mixes = {"trial_1": Mix(pictures=10, shares={"close_up": 41.0}), "trial_2": Mix(pictures=20, shares={})}
    return compare([first, second], mixes=mixes, recommended={"full_body": (25, 30)})


def test_the_page_stands_alone(comparison: Comparison, folders: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    write_report(comparison, folders, page)
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:image/jpeg;base64,|#)""", text)
    assert not re.findall(r"url\(|@import|<link|<iframe|https?:", text.replace("https://example.com/x", ""))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text and text.count("<script") == 1
    assert text.count("data:image/jpeg;base64,") == 2 * len(comparison.evaluations[0].pictures)
    stored = Comparison.model_validate(json.loads(page.with_suffix(".json").read_text()))
    assert stored == comparison
    assert comparison.verdict.split(":")[0] in text


def test_a_hostile_caption_stays_text(comparison: Comparison, folders: dict[str, Path]) -> None:
    text = render_html(comparison, folders)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script") == 1, "the page's own"
    assert "<img src=x" not in text
    assert "{{ 7*7 }}" in text, "shown as it is, not worked out"
    named = comparison.model_copy(update={"models": ("trial_1", "<b>|x")})
    assert "\\<b\\>\\|x" in render_markdown(named)


@pytest.mark.parametrize(("metric", "shown"), [("on_model", "+0 points"), ("prompt_fidelity", "+0.00")])
def test_a_difference_that_rounds_to_nothing_has_no_minus(comparison: Comparison, metric: str, shown: str) -> None:
    pair = next(pair for pair in comparison.pairs if pair.metric == metric)
    assert chip_view(pair.model_copy(update={"difference": -0.001}))["value"] == shown


def test_missing_pictures_leave_a_gap_not_an_error(comparison: Comparison, folders: dict[str, Path]) -> None:
    shutil.rmtree(folders["trial_1"])
    text = render_html(comparison, folders)
    assert text.count("data:image/jpeg;base64,") == len(comparison.evaluations[0].pictures)
    assert text.count('class="gone"') == len(comparison.evaluations[0].pictures)


def test_many_pictures_are_made_smaller(
    comparison: Comparison, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = len(render_html(comparison, folders))
    monkeypatch.setattr(thumbnails, "_BUDGET", 20_000)
    monkeypatch.setattr(thumbnails, "_SIDES", ((192, 82), (12, 60)))
    assert len(render_html(comparison, folders)) < whole


def test_three_models_of_a_whole_suite_stay_below_15_mb(tmp_path: Path) -> None:
    """Noise, which compresses worst: 3 models x 70 prompts x 4 variations."""
    names = ("trial_1", "trial_2", "trial_3")
    folders = {name: tmp_path / name for name in names}
    rates = dict.fromkeys(SCENARIOS, 0.5)
    found = [
        evaluation(name, rates, folders[name], seed=n, side=192, prompts_each=14, variations=4)
        for n, name in enumerate(names)
    ]
    text = render_html(compare(found), folders)
    assert text.count("data:image/jpeg;base64,") == 3 * 70 * 4
    assert len(text.encode()) < 15e6


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of three models, one with epochs and strengths, as an address."""
    root = tmp_path_factory.mktemp("page")
    folders = {name: root / name for name in ("trial_1", "trial_2", "trial_3")}
    rates = {s: 0.2 * (1 + n) for n, s in enumerate(SCENARIOS)}
    found = [evaluation(name, rates, folder, seed=n) for n, (name, folder) in enumerate(folders.items())]
    changes = [{"epoch": 2, "checkpoint_hash": "ef" * 32}, {"scale": 0.6}]
    beside = [found[1], *(evaluation("trial_2", rates, seed=7).model_copy(update=change) for change in changes)]
    write_report(compare(found, others=[[], beside, []]), folders, root / "report.html")
    return (root / "report.html").as_uri()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_browser(width: int, page: str, browser: Any) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: asked.append(str(error)))
    opened.goto(page)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width, "nothing makes it wider than the screen"
    assert opened.evaluate("document.images.length") >= 3 * 60
    assert opened.locator(".curves svg").count() == 2 * (len(SCENARIOS) + 3)
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    opened.close()


@pytest.mark.browser
def test_filters_leave_what_was_asked_for_and_can_be_linked(page: str, browser: Any) -> None:
    opened = browser.new_page()
    opened.goto(page)
    opened.select_option("select[name=scenario]", "full_body")
    opened.check("input[name=differs]")
    shown = opened.locator(".prompt:visible")
    assert 0 < shown.count() <= 4
    assert all(e.get_attribute("data-differs") == "1" for e in shown.element_handles())
    address, count = opened.url, opened.text_content("#filter-count")
    other = browser.new_page()
    other.goto(address)
    assert other.text_content("#filter-count") == count and count.endswith("of 20 prompts")
    other.click("#filters button[type=reset]")
    other.wait_for_function("document.getElementById('filter-count').textContent === 'all 20 prompts'")
    for each in (opened, other):
        each.close()


@pytest.mark.browser
def test_two_models_lie_over_each_other_under_a_slider(page: str, browser: Any) -> None:
    opened = browser.new_page()
    opened.goto(page)
    opened.click('figure[data-model="2"][data-place="p001v01"] a')
    assert opened.url.endswith("#p001v01")
    picture = opened.locator('figure[data-model="2"][data-place="p001v01"] img').get_attribute("src")
    assert opened.locator("#viewer-second-picture").get_attribute("src") == picture
    assert opened.locator("#viewer-first-picture").get_attribute("src") != picture
    before = opened.evaluate("getComputedStyle(document.getElementById('viewer-second-picture')).clipPath")
    opened.focus("#viewer-cut")
    opened.keyboard.press("Home")
    after = opened.evaluate("getComputedStyle(document.getElementById('viewer-second-picture')).clipPath")
    assert before != after
    opened.focus("#viewer-close")
    opened.keyboard.press("ArrowRight")
    assert opened.url.endswith("#p001v02")
    opened.keyboard.press("Escape")
    assert not opened.locator("#viewer").is_visible()
    linked = browser.new_page()
    linked.goto(f"{page}#p003v00")
    assert linked.locator("#viewer").is_visible()
    for each in (opened, linked):
        each.close()
