"""The page as its users use it, in Chromium: keys, mouse and touch; what it says is what is on disk."""

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.curation.session import PageOptions, Session
from onmodel.curation.store import FILE, State, Store
from onmodel.dataset.labels import read_labels

from .conftest import MANY, Serve
from .made import ask, fresh, ids

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
OpenPage = Callable[..., Any]


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as wait_for

    wait_for.set_options(timeout=30_000)
    return wait_for(locator)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def tally(page: Any, kept: int, rejected: int) -> None:
    """Waits until the page says so: then it is on disk."""
    expect(page.locator("#tally")).to_contain_text(f"{kept} kept {rejected} rejected")


def states(session: Session) -> dict[str, State]:
    """File name -> what was decided, of all that was acted on."""
    _, known = session.store.snapshot()
    names = {entry.hash: entry.path.name for entry in session.catalogue.entries}
    return {names[content]: state for content, state in known.items()}


def shown(page: Any) -> list[str]:
    return page.evaluate("page.view.items")


def folded(page: Any) -> None:
    """Waits for the stack of near-duplicates, and goes to the first picture."""
    expect(page.locator(".tile.stacked")).to_have_count(1)
    press(page, "Home")


def name_at_cursor(page: Any) -> str:
    return page.evaluate("page.model.byId.get(page.cursor).name")


def test_everything_by_keyboard(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made, background=False)
    page = open_page(listening.url)
    order = [entry.path.name for entry in session.catalogue.entries]
    assert name_at_cursor(page) == order[0]
    press(page, "k", "k", "r")
    tally(page, 2, 1)
    assert [states(session)[name].decision for name in order[:3]] == ["keep", "keep", "reject"]
    assert name_at_cursor(page) == order[3]
    press(page, "u")
    tally(page, 2, 0)
    press(page, "u")
    tally(page, 1, 0)
    press(page, "Shift+U")
    tally(page, 2, 0)
    # A range, a bulk action, and one undo for all of it.
    press(page, "Home", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown")
    columns = page.evaluate("page.grid.columns")
    expect(page.locator("#picked")).to_have_text(f"{3 + columns} selected")
    press(page, "r")
    tally(page, 0, 3 + columns)
    press(page, "u")
    tally(page, 2, 0)
    # Single pictures chosen, then moved to a cluster that is new.
    press(page, "Home", "x", "ArrowRight", "ArrowRight", "x", "m")
    page.keyboard.type("heroes")
    press(page, "Enter")
    expect(page.locator("#groups")).to_contain_text("heroes")
    assert {name for name, state in states(session).items() if state.group == "heroes"} == {order[0], order[2]}
    # Everything in one cluster.
    press(page, "]", "]")
    assert {page.evaluate(f"page.model.byId.get('{each}').cluster") for each in shown(page)} == {"cluster_01"}
    press(page, "a", "k")
    tally(page, 8, 0)
    press(page, "[", "[", "Escape", "t")
    expect(page.locator("#decisions input:checked")).to_have_value("open")
    assert len(shown(page)) == len(order) - 8
    press(page, "?")
    expect(page.locator("#helping")).to_be_visible()
    press(page, "k", "Escape")
    expect(page.locator("#helping")).to_be_hidden()
    press(page, "Space")
    expect(page.locator("#viewing")).to_be_visible()
    before = name_at_cursor(page)
    press(page, "ArrowRight", "ArrowLeft", "k")
    tally(page, 9, 0)
    assert states(session)[before].decision == "keep"
    # Caps lock, and a layout without Latin letters.
    strike = "key => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, code: 'KeyR', bubbles: true}))"
    for key in ("R", "к"):
        page.evaluate(strike, key)
    tally(page, 9, 2)
    press(page, "Space", "End", "Home", "PageDown", "PageUp", "c")
    assert page.evaluate("document.activeElement.id") == "scroller"


def test_a_corrected_label_counts_and_is_written(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made, background=False)
    page = open_page(listening.url)
    entry = session.catalogue.entries[0]
    medium = page.locator("#meter li", has_text="medium shot").locator("b")
    press(page, "k", "Home")
    expect(medium).to_have_text("0")
    press(page, "2", "o", "i")
    expect(medium).to_have_text("1")
    tile = page.locator(f"#t-{entry.id}")
    expect(tile.locator(".kinds")).to_have_text("mediumoccludedcorrected")
    assert states(session)[entry.path.name] == State("keep", None, ShotType.MEDIUM, (Attribute.OCCLUSION,))
    # The dialog does the same; a second press takes an attribute away.
    press(page, "l")
    page.locator("#traits button", has_text="occlusion").click()
    expect(page.locator("#traits button", has_text="occlusion")).to_have_attribute("aria-pressed", "false")
    press(page, "3")
    expect(page.locator("#shots button", has_text="full body")).to_have_attribute("aria-pressed", "true")
    press(page, "Escape", "w")
    page.locator("#writing-go").click()
    expect(page.locator("#writing-text")).to_contain_text("1 picture written to")
    label = read_labels(session.output_dir)[entry.hash]
    assert (label.shot_type, label.attributes) == (ShotType.FULL_BODY, ())
    press(page, "Escape", "0")
    expect(tile.locator(".corrected")).to_have_count(0)
    assert states(session)[entry.path.name] == State("keep")


def test_a_stack_is_decided_as_one(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made)
    page = open_page(listening.url)
    folded(page)
    stack = page.locator(".tile.stacked")
    expect(stack.locator(".stack")).to_have_text("3")
    total = len(session.catalogue.entries)
    assert len(shown(page)) == total - 2
    stack.locator(".frame").click(position={"x": 60, "y": 60})
    best = name_at_cursor(page)
    press(page, "k")
    tally(page, 1, 2)
    near = {name: state.decision for name, state in states(session).items()}
    assert near.pop(best) == "keep"
    assert set(near.values()) == {"reject"}
    press(page, "u")
    tally(page, 0, 0)
    stack.locator(".stack").click()
    expect(page.locator(".tile.stacked")).to_have_count(0)
    assert len(shown(page)) == total
    press(page, "f", "f")
    assert len(shown(page)) == total - 2


def test_similar_pictures_by_a_click(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made)
    page = open_page(listening.url)
    folded(page)
    near = next(entry for entry in session.catalogue.entries if entry.path.name.startswith("near_"))
    press(page, "f")
    tile = page.locator(f"#t-{near.id}")
    tile.hover()
    tile.locator(".like").click()
    expect(page.locator("#found")).to_contain_text(f"Most like {near.path.name}, by picture hash")
    assert shown(page)[0] == near.id
    alike = {session.catalogue.entry(each).path.name for each in shown(page)[1:3]}
    assert any(name.startswith("near_") for name in alike)
    press(page, "ArrowRight", "r")
    tally(page, 0, 1)
    press(page, "Escape")
    expect(page.locator("#searching")).to_be_hidden()
    assert page.evaluate("page.cursor") == near.id
    press(page, "/")
    expect(page.locator("#found")).to_be_visible()


def test_two_people_lose_nothing(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made, background=False)
    one, two = open_page(listening.url), open_page(listening.url)
    name = session.catalogue.entries[0].path.name
    press(one, "k")
    tally(two, 1, 0)
    press(two, "r", "ArrowRight", "k")
    tally(one, 1, 1)
    assert states(session)[name].decision == "reject"
    # What is latest is the other's: it is named, and turned back only when asked again.
    press(one, "u")
    expect(one.locator("#toasts")).to_contain_text("The latest is another page's: kept 1 picture")
    tally(one, 1, 1)
    press(one, "u")
    tally(two, 0, 1)
    press(two, "u")
    expect(two.locator("#toasts")).to_contain_text("Undid: rejected 1 picture")
    tally(one, 1, 0)
    assert states(session)[name].decision == "keep"
    assert [action.kind for action, _ in session.store.since(0)] == ["keep", "reject", "keep", "undo", "undo"]


def test_an_undo_that_comes_late_does_nothing(made: Path, serve: Serve, open_page: OpenPage) -> None:
    """The other page acts between what this page saw and its undo: the server refuses, nothing is lost."""
    session, listening = serve(made, background=False)
    page = open_page(listening.url, may_fail=True)
    press(page, "k")
    tally(page, 1, 0)
    # Held back, so that the page cannot know.
    page.route("**/api/changes*", lambda route: route.abort())
    session.act(ask(session, "reject", ids(session.catalogue, "cluster_01")))
    press(page, "u")
    expect(page.locator("#toasts")).to_contain_text("Another page has acted meanwhile")
    assert session.counts()["rejected"] == 6
    assert session.counts()["kept"] == 1
    page.unroute("**/api/changes*")
    tally(page, 1, 6)


Start = Callable[[Sequence[str]], tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def start_command() -> Generator[Start]:
    """Runs `onmodel curate` as a process; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(arguments: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "onmodel", "curate", *arguments, "--similarity", "hash", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        return process, json.loads(line)["url"]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_kill_9_loses_nothing(made: Path, tmp_path: Path, start_command: Start, open_page: OpenPage) -> None:
    out = tmp_path / "out"
    process, url = start_command([str(made), "--output-dir", str(out), "--port", "0"])
    page = open_page(url, may_fail=True)
    press(page, "k", "r", "k")
    tally(page, 2, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Store(tmp_path / "out.curation" / FILE) as store:
        assert sorted(state.decision or "" for state in store.snapshot()[1].values()) == ["keep", "keep", "reject"]
    # What is done meanwhile is not marked as done, and is sent once when there is a server again.
    press(page, "k")
    expect(page.locator("#alert")).to_contain_text("The server does not answer")
    tally(page, 2, 1)
    port = url.rsplit(":", 1)[1].strip("/")
    second, _ = start_command([str(made), "--output-dir", str(out), "--port", port])
    tally(page, 3, 1)
    expect(page.locator("#alert")).to_be_hidden()
    press(page, "u", "u")
    tally(page, 1, 1)
    later = open_page(url, may_fail=True)
    tally(later, 1, 1)
    press(later, "Shift+U")
    tally(page, 2, 1)
    # Ctrl-C ends in order.
    second.send_signal(signal.SIGINT)
    _, said = second.communicate(timeout=60)
    assert "2 kept, 1 rejected, 18 undecided; all is on disk." in said
    assert second.returncode == 0


def test_ten_thousand_pictures_scroll(many: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(many, background=False)
    page = open_page(listening.url)
    assert len(shown(page)) == MANY == len(session.catalogue.entries)
    frames = """async ([step, count]) => {
      const scroller = document.querySelector("#scroller");
      const times = [];
      let last = performance.now();
      for (let at = 0; at < count; at += 1) {
        scroller.scrollTop += step;
        await new Promise((resolve) => requestAnimationFrame(resolve));
        times.push(performance.now() - last);
        last = performance.now();
      }
      return times;
    }"""
    for what, step in (("slowly", 40), ("fast", 600), ("a window a frame", 3000)):
        times = sorted(page.evaluate(frames, [step, 120]))
        print(
            f"scrolling {what}: frame time median {statistics.median(times):.1f} ms, "
            f"95 % {times[int(0.95 * len(times))]:.1f} ms, longest {times[-1]:.1f} ms"
        )
        assert page.locator(".tile").count() < 200
    press(page, "End")
    last = page.locator(f"#t-{session.catalogue.entries[-1].id}")
    expect(last).to_be_in_viewport()
    expect(last.locator("img")).to_have_js_property("complete", True)
    press(page, "a", "k")
    tally_text = page.locator("#tally")
    expect(tally_text).to_contain_text(f"{MANY:,} kept")
    press(page, "u")
    expect(tally_text).to_contain_text(f"{MANY:,} undecided")
    press(page, "Home")
    expect(page.locator(f"#t-{session.catalogue.entries[0].id}")).to_be_in_viewport()


def test_by_touch_at_390_pixels(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made)
    page = open_page(
        listening.url,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        color_scheme="dark",
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tiles = page.locator(".tile")
    tiles.nth(4).tap()
    second = page.evaluate("page.cursor")
    page.locator("#actions [data-do=keep]").tap()
    tally(page, 1, 0)
    assert session.store.snapshot()[1][session.catalogue.entry(second).hash].decision == "keep"
    page.locator("#undo").tap()
    tally(page, 0, 0)
    page.locator("[data-do=selecting]").tap()
    tiles.nth(6).tap()
    tiles.nth(7).tap()
    expect(page.locator("#picked")).to_have_text("2 selected")
    page.locator("#actions [data-do=move]").tap()
    page.locator("#moving-list li", has_text="outliers").tap()
    expect(page.locator("#toasts")).to_contain_text("Moved 2 pictures to outliers")
    page.locator("[data-do=selecting]").tap()
    expect(page.locator("#side")).not_to_be_in_viewport()
    page.locator("#menu").tap()
    expect(page.locator("#side")).to_be_in_viewport()
    page.locator("#groups button", has_text="outliers").tap()
    expect(page.locator("#side")).not_to_be_in_viewport()
    assert len(shown(page)) == 5
    tiles.nth(1).tap()
    tiles.nth(1).tap()
    expect(page.locator("#viewing")).to_be_visible()
    page.locator("#viewing [data-do=reject]").tap()
    tally(page, 0, 1)
    page.locator("#viewing [data-close]").tap()
    for button in page.locator("#actions button:visible").all():
        assert button.bounding_box()["height"] >= 44


def test_missing_categories_come_first(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made, background=False, page=PageOptions(show_metadata=True, filter_mode="balanced"))
    page = open_page(listening.url)
    expect(page.locator("#balanced")).to_have_attribute("aria-pressed", "true")
    tile = page.locator(".tile.cursor")
    expect(tile.locator(".meta")).to_contain_text("% high · 96×96")

    def shots() -> list[str]:
        return [page.evaluate(f"page.model.byId.get('{each}').shotNow") for each in shown(page)]

    # Close-ups abound: once they are met, they wait behind what is still missing.
    entries = [entry for entry in session.catalogue.entries if entry.row.shot_type is ShotType.CLOSE_UP]
    goal = next(goal for goal in page.evaluate("page.model.meter()") if goal["category"] == "close_up")
    enough = entries[: int(goal["low"])]
    assert goal["low"] < len(entries)
    session.act(ask(session, "keep", [entry.id for entry in enough]))
    tally(page, len(enough), 0)
    expect(page.locator("#meter li", has_text="close-up").locator(".verdict")).to_have_text("met")
    order = shots()
    assert "close_up" in order
    first = order.index("close_up")
    assert set(order[first:]) <= {"close_up", "unclassified"}
    assert "full_body" in order[:first]


def test_a_picture_that_vanishes_is_named(made: Path, tmp_path: Path, serve: Serve, open_page: OpenPage) -> None:
    folder = fresh(made, tmp_path / "set")
    session, listening = serve(folder, background=False)
    gone = session.catalogue.entries[1]
    gone.path.unlink()
    page = open_page(listening.url, may_fail=True)
    expect(page.locator(f"#t-{gone.id} .gone")).to_be_visible()
    press(page, "k", "k")
    tally(page, 2, 0)
    press(page, "w")
    page.locator("#writing-go").click()
    expect(page.locator("#writing-text")).to_contain_text("1 picture written to")
    expect(page.locator("#writing-text")).to_contain_text(f"Left out: {gone.path}: cannot be read")


def test_roles_names_and_contrast(made: Path, serve: Serve, open_page: OpenPage) -> None:
    session, listening = serve(made, background=False)
    pairs = [("ink", "back"), ("ink", "panel"), ("ink", "raised"), ("soft", "panel"), ("soft", "raised"),
             ("soft", "back"), ("ink", "tint"), ("on-accent", "accent"), ("keep", "panel"), ("warm", "panel"),
             ("back", "reject"), ("reject", "panel")]  # fmt: skip
    for scheme in ("light", "dark"):
        page = open_page(listening.url, color_scheme=scheme)
        for ink, paper in pairs:
            assert contrast(page, ink, paper) >= 4.5, f"{ink} on {paper}, {scheme}"
        assert contrast(page, "accent", "back") >= 3
    grid = page.get_by_role("grid", name="Pictures")
    assert int(grid.get_attribute("aria-rowcount")) >= 2
    active = grid.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("role") == "gridcell"
    first = session.catalogue.entries[0]
    press(page, "k", "Home")
    expect(page.locator(f"#t-{first.id}")).to_have_attribute("aria-label", f"{first.path.name}, close-up, kept")
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(e => e.checkVisibility() && "
        "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []
    # Tab reaches the controls, and what has the focus can be seen.
    press(page, "Tab")
    assert page.evaluate("document.activeElement.dataset.do") == "keep"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def contrast(page: Any, ink: str, paper: str) -> float:
    """Ratio of two colours of the page by WCAG 2.1, 1 to 21."""

    def luminance(name: str) -> float:
        value = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        channels = [int(value[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_from_another_machine_with_the_token(made: Path, serve: Serve, open_page: OpenPage) -> None:
    _, listening = serve(made, host="0.0.0.0", background=False)
    base, token = f"http://127.0.0.1:{listening.access.port}/", listening.access.token
    page = open_page(base + f"?token={token}", may_fail=True)
    assert page.url == base
    press(page, "k")
    tally(page, 1, 0)
    stranger = page.context.browser.new_context().new_page()
    assert stranger.goto(base).status == 401
    stranger.context.close()


def test_hostile_names_and_captions_do_nothing(made: Path, tmp_path: Path, serve: Serve, open_page: OpenPage) -> None:
    folder = fresh(made, tmp_path / "set")
    evil = '"><img src=x onerror=alert(1)>'
    first = min((folder / "zibo").glob("zibo*.png"), default=min((folder / "zibo").glob("*.png")))
    first.with_suffix(".txt").unlink(missing_ok=True)
    first.rename(first.with_name(f"{evil}.png"))
    first.with_name(f"{evil}.txt").write_text("<script>alert(2)</script>")
    _, listening = serve(folder, page=PageOptions(show_metadata=True))
    page = open_page(listening.url)
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    expect(page.locator(".tile").first).to_be_visible()
    names = page.evaluate("[...page.model.byId.values()].map(each => each.name)")
    assert f"{evil}.png" in names
    page.evaluate("page.go ? page.go(0) : 0")
    press(page, "Home", "Enter")
    page.wait_for_timeout(300)
    assert page.locator("img[src=x]").count() == 0
    assert said == []
