"""The page stands alone, takes no caption for markup, keeps its size, and shows in a browser at both widths."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from onmodel.evaluation import report
from onmodel.evaluation.compare import Comparison, Mix, compare
from onmodel.evaluation.report import render_html, render_markdown, write_report

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
    assert not re.findall(r"url\(|@import|<script|<link|<iframe", text)
    assert text.count("data:image/jpeg;base64,") == 2 * len(comparison.evaluations[0].pictures)
    stored = Comparison.model_validate(json.loads(page.with_suffix(".json").read_text()))
    assert stored == comparison
    assert comparison.verdict.split(":")[0] in text


def test_a_hostile_caption_stays_text(comparison: Comparison, folders: dict[str, Path]) -> None:
    text = render_html(comparison, folders)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "{{ 7*7 }}" in text, "shown as it is, not worked out"
    named = comparison.model_copy(update={"models": ("trial_1", "<b>|x")})
    assert "\\<b\\>\\|x" in render_markdown(named)


def test_missing_pictures_leave_a_gap_not_an_error(comparison: Comparison, folders: dict[str, Path]) -> None:
    shutil.rmtree(folders["trial_1"])
    text = render_html(comparison, folders)
    assert text.count("data:image/jpeg;base64,") == len(comparison.evaluations[0].pictures)
    assert text.count('class="gone"') == len(comparison.evaluations[0].pictures)


def test_many_pictures_are_made_smaller(
    comparison: Comparison, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = len(render_html(comparison, folders))
    monkeypatch.setattr(report, "_BUDGET", 20_000)
    monkeypatch.setattr(report, "_SIDES", ((192, 82), (12, 60)))
    assert len(render_html(comparison, folders)) < whole


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_browser(width: int, comparison: Comparison, folders: dict[str, Path], tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    page = tmp_path / "report.html"
    write_report(comparison, folders, page)
    # The page itself has no script; the measuring one is added to a copy whose policy lets it run.
    probe = tmp_path / "probe.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    measured = "document.title=[innerWidth,document.documentElement.scrollWidth,document.images.length].join(' ')"
    probe.write_text(text.replace("</body>", f"<script>onload=()=>{{{measured}}}</script></body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="probe.html" style="width:{width}px;height:800px;border:0"></iframe>')
    script = f"""<iframe id=f src="probe.html" style="width:{width}px;height:800px;border:0"></iframe>
<script>onload=()=>setTimeout(()=>document.title=document.getElementById('f').contentDocument.title,50)</script>"""
    frame.write_text(script)
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        frame.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom)
    assert found is not None, dom[:500]
    inner, scroll, images = map(int, found.groups())
    assert inner == width
    assert scroll <= width, "nothing makes the page wider than the screen"
    assert images == 2 * len(comparison.evaluations[0].pictures)
