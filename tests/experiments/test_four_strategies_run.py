"""The experiment in its reduced form, from renders to the report: every step works, and claims nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onmodel.core.vocabulary import CATEGORIES
from onmodel.evaluation.record import RESULT_FILE
from onmodel.experiments.four_strategies import main
from onmodel.experiments.judge import read_figures
from onmodel.experiments.make import do, jobs_of, read_made
from onmodel.experiments.plan import DOSES, Layout, Settings, claim, trials_of
from onmodel.experiments.rate import RATES, choose, tried, try_rate, with_rate
from onmodel.training.config import load_train_config

BARRED = (
    "ray", "open_clip", "ultralytics", "av", "pyarrow", "onnxruntime", "scenedetect", "matplotlib", "fastapi", "grpc",
    "google.protobuf", "pooch", "jinja2", "sklearn", "imagehash", "uvicorn", "cryptography", "typer", "tensorboardX",
    "pytorch_optimizer",
)  # fmt: skip
"""What a machine that only trains and draws need not have."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment in its reduced form, prepared."""
    work = tmp_path_factory.mktemp("experiment") / "work"
    assert main([str(work), "--step", "prepare", "--reduced"]) == 0
    return work


@pytest.fixture(scope="module")
def made(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its trials made from the packed sets alone, by a Python without Ray, services and tables."""
    there = tmp_path_factory.mktemp("there") / "work"
    assert main([str(there), "--step", "unpack", str(work / "sets.tar.xz")]) == 0
    barred = tmp_path_factory.mktemp("barred")
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in BARRED)
    (barred / "sitecustomize.py").write_text(f"import sys\n{lines}")
    command = [sys.executable, "-m", "onmodel.experiments.four_strategies", str(there), "--step", "make"]
    path = f"{Path(__file__).parents[2] / 'services'}:{barred}"
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = there.parent / "tars"
    assert main([str(there), "--step", "pack", str(out)]) == 0
    assert main([str(work), "--step", "unpack", str(out)]) == 0
    return work


def test_sets_are_what_the_plan_says(work: Path) -> None:
    layout, settings = Layout(work), claim(work, None)
    (first, last) = trials_of(settings)
    captions = {
        trial.kind: [f.read_text() for f in sorted((layout.sets(trial.unit) / trial.dataset).rglob("*.txt"))]
        for trial in (first, last)
    }
    assert len(captions["baseline"]) == settings.pictures
    assert not any("busy" in text or "with another" in text for text in captions["baseline"])
    assert any("detailed background" in text for text in captions["b_d"]), "nothing came from the film"
    assert all(text.startswith("zibo") or "nobody" in text or "no people" in text for text in captions["b_d"])


def test_the_base_rate_is_the_one_with_the_least_loss(work: Path) -> None:
    layout, settings = Layout(work), claim(work, None).model_copy(update={"steps": 2, "batch_size": 2})
    assert with_rate(settings, layout).learning_rate == settings.learning_rate
    found = try_rate(settings, layout, RATES[0])
    assert found == tried(layout, RATES[0])
    assert 0 < found.loss < 2
    worse = work / "rates" / f"{RATES[1]:g}.json"
    worse.write_text(json.dumps({"rate": RATES[1], "loss": found.loss + 0.1}))
    assert choose(layout).rate == RATES[0]
    assert with_rate(settings, layout).learning_rate == RATES[0]
    (work / "rate.json").unlink()


@pytest.mark.ray
def test_the_reduced_form_runs_to_its_report(made: Path) -> None:
    layout, settings = Layout(made), claim(made, None)
    for trial in trials_of(settings):
        record = read_made(layout, trial)
        assert record is not None
        assert record.steps == settings.steps
    staged = load_train_config(layout.trial(trials_of(settings)[1]) / "config.toml")
    assert [stage.name for stage in staged.stage] == ["balanced", "weak_areas", "original"]
    before = {f: f.stat().st_mtime_ns for f in made.rglob("img_*.png")}
    assert len(before) == 3 * 14

    assert main([str(made), "--step", "judge"]) == 0
    assert {f: f.stat().st_mtime_ns for f in made.rglob("img_*.png")} == before, "judging drew pictures"
    figures = read_figures(layout)
    assert len(figures.pictures) == 2 * 14
    assert {(row.trial, row.scenario) for row in figures.scenarios} == {
        (trial, scenario) for trial in ("baseline", "b_d") for scenario in CATEGORIES
    }
    assert len(list(made.rglob(RESULT_FILE))) == 2

    assert main([str(made), "--step", "report"]) == 0
    written = {f.name: f.read_bytes() for f in layout.report.iterdir()}
    assert written.keys() == {"four_strategies.md", "four_strategies.json", "shares.svg", "pictures.png"}
    claims = {row["name"]: row["verdicts"]["95"] for row in json.loads(written["four_strategies.json"])["claims"]}
    assert claims.keys() == {f"H{n}" for n in range(1, 8)}
    assert claims["H3"] == "not measured"
    assert claims["H6"] != "not measured"
    assert main([str(made), "--step", "report"]) == 0
    assert {f.name: f.read_bytes() for f in layout.report.iterdir()} == written


def test_nothing_is_made_twice(made: Path) -> None:
    layout = Layout(made)
    records = {f: f.read_bytes() for f in layout.work.glob("trials/*/made.json")}
    assert main([str(made), "--step", "make"]) == 0
    assert main([str(made), "--step", "prepare"]) == 0
    assert main([str(made), "--step", "prepare", "--seeds", "3"]) == 2, "other settings than those of the folder"
    assert {f: f.read_bytes() for f in layout.work.glob("trials/*/made.json")} == records


@pytest.mark.ray
def test_a_trial_made_over_a_cluster_is_the_same(made: Path, tmp_path: Path) -> None:
    settings = Settings.reduced().model_copy(
        update={"strategies": ("baseline",), "steps": 2, "sampling_steps": 1, "prompts": 1}
    )
    losses: list[float] = []
    for name in ("here", "ray"):
        work = tmp_path / name
        claim(work, settings)
        (work / "sets").symlink_to(made / "sets")
        if name == "ray":
            assert main([str(work), "--step", "make", "--ray"]) == 0
        else:
            for job in jobs_of(settings, Layout(work)):
                do(job)
        record = read_made(Layout(work), trials_of(settings)[0])
        assert record is not None
        losses.append(record.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_curve_is_of_its_own_scenario_and_of_the_truth(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "dose")
    small = {"pictures": 8, "held_back": 4, "steps": 2, "batch_size": 2, "prompts": 1, "sampling_steps": 1}
    settings = Settings.dose_response().model_copy(update={"seeds": (1,), "dose": ("medium",), **small})
    claim(layout.work, settings)
    assert main([str(layout.work), "--step", "prepare"]) == 0
    assert main([str(layout.work), "--step", "make"]) == 0
    assert main([str(layout.work), "--step", "judge"]) == 0
    figures = read_figures(layout)
    assert {(row.trial, row.scenario) for row in figures.pictures} == {(f"medium_{n}", "medium") for n in DOSES}
    assert len(figures.pictures) == len(DOSES) * settings.variations
    assert not figures.scenarios and not list(layout.work.rglob(RESULT_FILE))
    assert main([str(layout.work), "--step", "report"]) == 0
    assert "| medium shot |" in (layout.report / "dose_response.md").read_text()
