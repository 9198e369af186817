"""Counts, shares, deficits, words; kept facts; a second run that computes nothing."""

import json
from pathlib import Path

import pytest

from onmodel.common.convert import ModelInfo
from onmodel.core.config import load
from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.analysis import Analysis, Row, analyze, summarize
from onmodel.dataset.facts import FILE, Facts
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.recommended import MEASURED, RECOMMENDED, Recommended, load_recommended
from onmodel.dataset.report import page, table

from .conftest import Trial


def test_the_table_says_what_is_in_the_pictures(trial: Trial) -> None:
    analysis = analyze(trial.dataset, trial.services())
    assert analysis.pictures == 20
    truth = trial.truth
    for row in analysis.rows:
        assert row.shot_type is truth[row.file].shot_type, row.file
        assert set(row.attributes) == {a.value for a in truth[row.file].attributes}
        assert row.caption
    assert analysis.counts["close_up"] == 8
    assert analysis.shares["full_body"] == pytest.approx(25.0)
    assert analysis.counts["medium"] == 0
    assert analysis.unclassified == 6
    assert tuple(analysis.categories) == CATEGORIES


def test_deficits_reach_the_range(trial: Trial) -> None:
    analysis = analyze(trial.dataset, trial.services())
    for name, result in analysis.categories.items():
        low, _ = RECOMMENDED.range(name)
        count = result.count + result.deficit
        assert count / (analysis.pictures + result.deficit) * 100 >= low - 1e-9
        if result.deficit:
            assert (count - 1) / (analysis.pictures + result.deficit - 1) * 100 < low
    assert analysis.categories["medium"].deficit_at_target == 119


def test_the_conclusion_names_what_is_missing_and_the_next_command(trial: Trial) -> None:
    analysis = analyze(trial.dataset, trial.services())
    assert "Nothing shows medium shot" in analysis.conclusion
    assert "multi-character" in analysis.conclusion
    assert "6 of 20 pictures are of no known shot type" in analysis.conclusion
    assert analysis.next_command.startswith("onmodel augment ")
    assert analysis.categories["medium"].impact == "no mid-range reference"
    assert analysis.categories["close_up"].status == "within"


def test_a_second_run_computes_nothing(trial: Trial) -> None:
    services = trial.services()
    info = services.detection.model_info()
    first = analyze(trial.dataset, services)
    assert (trial.path / FILE).is_file()
    again = trial.services()
    assert analyze(trial.dataset, again, model=info) == first
    assert not again.started
    assert again.detection.asked == 0


def test_a_changed_picture_is_the_only_one_asked_about(trial: Trial) -> None:
    analyze(trial.dataset, trial.services())
    names = sorted(trial.truth)
    (trial.path / names[0]).write_bytes((trial.path / names[1]).read_bytes())
    (trial.path / names[2]).rename(trial.path / "renamed.png")
    services = trial.services()
    analyze(trial.dataset, services)
    assert services.detection.asked == 0  # a copy and a new name are known content
    (trial.path / "new.png").write_bytes((trial.path / names[3]).read_bytes() + b"\0")
    analyze(trial.dataset, services)
    assert services.detection.asked == 1


def test_other_settings_are_other_facts(trial: Trial) -> None:
    services = trial.services()
    info = services.detection.model_info()
    analyze(trial.dataset, services)
    asked = services.detection.asked
    analyze(trial.dataset, services, model=type(info)(info.name, info.hash, "1" * 64))
    assert services.detection.asked == 2 * asked
    analyze(trial.dataset, services, model=info)
    assert services.detection.asked == 2 * asked


def test_an_interrupted_run_keeps_what_it_has(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onmodel.dataset.facts.complete.__kwdefaults__", {"chunk": 5, "advance": lambda n: None})
    services = trial.services()
    services.detection.fail_after = 12
    with pytest.raises(KeyboardInterrupt):
        analyze(trial.dataset, services)
    assert [p.name for p in trial.path.iterdir() if p.suffix == ".part"] == []
    again = trial.services()
    analyze(trial.dataset, again)
    assert again.detection.asked == 10


def test_repeats_weigh_the_shares(trial: Trial) -> None:
    folder = trial.path / "5_zibo"
    folder.mkdir()
    for name, truth in trial.truth.items():
        if truth.shot_type is ShotType.FULL_BODY:
            for file in (trial.path / name, (trial.path / name).with_suffix(".txt")):
                file.rename(folder / file.name)
    result = analyze(trial.dataset, trial.services()).categories["full_body"]
    assert result.count == 5
    assert result.picture_share == pytest.approx(25.0)
    assert result.share == pytest.approx(100 * 25 / 40)
    assert result.status == "above"


def test_a_read_only_folder_keeps_its_facts_elsewhere(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    write = Facts._write  # pyright: ignore[reportPrivateUsage]

    def refuse(self: Facts, rows: object) -> None:
        if self.path.name == FILE:
            raise UserError("cannot be written")
        write(self, rows)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Facts, "_write", refuse)
    facts = Facts.open(trial.path)
    analyze(trial.dataset, trial.services(), facts=facts)
    assert facts.note is not None
    assert "cannot be written" in facts.note
    assert not (trial.path / FILE).exists()
    again = trial.services()
    analyze(trial.dataset, again)
    assert again.detection.asked == 0


def test_damaged_facts_are_made_anew(trial: Trial) -> None:
    (trial.path / FILE).write_bytes(b"PAR1 but not really")
    facts = Facts.open(trial.path)
    assert facts.note is not None
    analyze(trial.dataset, trial.services(), facts=facts)
    assert Facts.open(trial.path).note is None


def test_analysis_survives_its_file(trial: Trial, tmp_path: Path) -> None:
    analysis = analyze(trial.dataset, trial.services())
    path = tmp_path / "analysis.json"
    path.write_text(analysis.model_dump_json(), encoding="utf-8")
    assert load(Analysis, path) == analysis


def test_other_ranges(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "ranges.toml"
    path.write_text("close_up = [10, 20]\ntarget_size = 100\n", encoding="utf-8")
    analysis = analyze(trial.dataset, trial.services(), recommended=load_recommended(path))
    assert analysis.categories["close_up"].status == "above"
    assert analysis.target_size == 100
    path.write_text("closeup = [10, 20]\n", encoding="utf-8")
    with pytest.raises(UserError, match="did you mean `close_up`"):
        load_recommended(path)
    with pytest.raises(ValueError, match="lowest first"):
        Recommended(far=(10, 5))


def test_the_page_holds_everything_and_escapes(trial: Trial) -> None:
    name = sorted(trial.truth)[0]
    (trial.path / name).with_suffix(".txt").write_text("<script>alert('x')</script>", encoding="utf-8")
    analysis = analyze(trial.dataset, trial.services())
    made = page(analysis, trial.dataset)
    assert "<script>" not in made
    assert "&lt;script&gt;" in made
    assert 'src="http' not in made
    assert 'href="http' not in made
    assert made.count("data:image/jpeg;base64,") >= 20
    assert 'name="viewport"' in made


def test_the_terminal_table_has_all_categories(trial: Trial) -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(table(analyze(trial.dataset, trial.services())))
    text = console.export_text()
    for word in ("close-up", "medium shot", "full body", "far / wide", "multi-character", "30–40 %", "unclassified"):
        assert word in text


def test_the_file_is_plain_json(trial: Trial) -> None:
    raw = json.loads(analyze(trial.dataset, trial.services()).model_dump_json())
    assert raw["schema_version"] == 1
    assert raw["rows"][0]["file"].endswith(".png")
    assert raw["model"]["name"] == "exact"


def test_hostile_names_and_captions_stay_text(trial: Trial) -> None:
    first = min(trial.truth)
    evil = '"><img src=x onerror=alert(1)>{{ 7*7 }}'
    (trial.path / first).rename(trial.path / f"{evil}.png")
    (trial.path / first).with_suffix(".txt").unlink(missing_ok=True)
    (trial.path / f"{evil}.txt").write_text("<script>alert(2)</script>, close-up")
    dataset = load_dataset(trial.path)
    shown = page(analyze(dataset, trial.services()), dataset)
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in shown
    assert "<img src=x" not in shown and "<script" not in shown
    assert "{{ 7*7 }}" in shown, "shown as it is, not worked out"


def test_measured_ranges_begin_where_the_curves_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "experiment" / "dose_response.json"
    least = json.loads(page.read_text(encoding="utf-8"))["least"]
    assert {name: MEASURED.range(name)[0] for name in CATEGORIES} == least
    assert load_recommended(Path("measured")) == MEASURED
    assert load_recommended(None) == load_recommended(Path("received")) == RECOMMENDED


def _rows(shot: ShotType, count: int, *attributes: str) -> list[Row]:
    return [Row(file=f"{shot}_{n}.png", hash=None, shot_type=shot, attributes=attributes) for n in range(count)]


@pytest.mark.parametrize(("company_in_medium", "told"), [(0, True), (2, True), (10, False)])
def test_what_never_comes_together_is_told(trial: Trial, company_in_medium: int, told: bool) -> None:
    """Enough company, all of it in full bodies: the shares are right, and medium shots are learned to show none."""
    rows = [
        *_rows(ShotType.CLOSE_UP, 60), *_rows(ShotType.MEDIUM, 70 - company_in_medium),
        *_rows(ShotType.MEDIUM, company_in_medium, "multi_character"), *_rows(ShotType.FULL_BODY, 40),
        *_rows(ShotType.FULL_BODY, 40 - company_in_medium, "multi_character"),
    ]  # fmt: skip
    analysis = summarize(trial.dataset, tuple(rows), ModelInfo("made", "0", "0"))
    sentence = f"Multi-character and medium shot hardly ever come together ({company_in_medium} of 70 shown"
    assert (sentence in analysis.conclusion) is told
    assert "Multi-character and full body" not in analysis.conclusion
    # More of what is missing comes first: of things in front nothing is said.
    assert "Occlusion and" not in analysis.conclusion
