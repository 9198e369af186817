"""The verbs' own behaviour: previews, and wrong arguments answered with a sentence and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from onmodel.cli.demo import DemoConfig, demo_suite, run_demo
from onmodel.cli.evaluate import choice_table, choices_of, command, parse_scales, table
from onmodel.core.errors import UserError
from onmodel.evaluation.choice import choose
from onmodel.evaluation.suite import load_suite

from .made import evaluation
from .test_choice import spread
from .test_trial import lora


def onmodel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onmodel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_preview_prints_the_prompts_and_draws_nothing(tmp_path: Path) -> None:
    file = lora(tmp_path / "trial.safetensors")
    done = onmodel("evaluate", str(file), "--base", "toybox", "--trigger", "zibo", "--age", "teenage boy", "--preview")
    assert done.returncode == 0, done.stderr
    assert "p000  close-up portrait of zibo, teenage boy" in done.stdout
    assert done.stdout.count("\n  p") == 70
    assert list(tmp_path.iterdir()) == [file]


def test_wrong_arguments_are_explained(tmp_path: Path) -> None:
    done = onmodel("compare", "--models", str(tmp_path / "none"), str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("onmodel: ")
    assert "no such checkpoint" in done.stderr


def test_where_a_file_comes_from_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lora(tmp_path / "trial.safetensors", ss_epoch="3", ss_onmodel_version="0.1.0")
    command(None, explain=file)
    printed = capsys.readouterr().out
    assert "checkpoint" in printed
    assert "epoch: 3" in printed
    assert "! no config.toml lies beside it" in printed
    assert "Not traced: 3, marked ! above." in printed
    command(None, explain=file, json=True)
    assert json.loads(capsys.readouterr().out)["facts"]["epoch"] == "3"
    with pytest.raises(UserError, match="at least one LoRA file"):
        command(None)


def test_a_choice_is_shown_with_its_candidates() -> None:
    rows = np.array([[0.1, 0.32, 0.70], [0.75, 0.31, 0.74], [0.74, 0.22, 0.97]])
    console = Console(width=160)
    with console.capture() as captured:
        console.print(choice_table(choose(spread(rows, noise=0.01))))
    lines = captured.get().splitlines()
    assert "Checkpoints of trial_9" in lines[0]
    (best,) = [line for line in lines if "* trial" in line]
    assert "* trial_9-000002" in best
    assert best.rstrip(" │").endswith("all")


def test_scales_are_numbers_each_once() -> None:
    assert parse_scales("0.6,0.8,1") == [0.6, 0.8, 1.0]
    with pytest.raises(UserError, match="not numbers"):
        parse_scales("much")
    with pytest.raises(UserError, match="twice"):
        parse_scales("1,1.0")


def test_the_demo_asks_in_words_that_its_base_model_knows() -> None:
    from onmodel.toybox.wording import vocabulary

    known = set(vocabulary())
    for name in ("zibo", "mirel", "tokko"):
        suite = demo_suite(DemoConfig(character=name))
        for prompt in suite.prompts():
            assert set(prompt.text.replace(",", "").replace("-", " ").split()) <= known, prompt.text
    assert load_suite("toybox").tested == demo_suite(DemoConfig()).tested


def test_the_demo_touches_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="zibo, mirel, tokko"):
        run_demo(tmp_path / "new", DemoConfig(character="nobody"))
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not a demo's folder"):
        run_demo(tmp_path, DemoConfig())
    other = tmp_path / "other"
    other.mkdir()
    (other / "demo.json").write_text(DemoConfig(seed=1).model_dump_json())
    with pytest.raises(UserError, match="other settings"):
        run_demo(other, DemoConfig())
    assert [f.name for f in other.iterdir()] == ["demo.json"]


def test_figures_are_whole_on_a_terminal_of_80_columns() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(evaluation("trial_1", {"close_up": 1.0})))
    shown = captured.get()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "Complex background" in shown


def test_trials_that_share_a_folder_each_keep_their_choice(tmp_path: Path) -> None:
    rows = np.array([[0.1, 0.32, 0.70], [0.75, 0.31, 0.74]])
    results = [
        result.model_copy(update={"trial": trial, "trial_folder": trial, "trigger": "zibo"})
        for trial in ("a", "b")
        for result in spread(rows)
    ]
    tasks: Any = [SimpleNamespace(folder=tmp_path / str(n)) for n in range(len(results))]
    assert sorted(path.name for path in choices_of(tasks, results)) == ["a-zibo-choice.json", "b-zibo-choice.json"]
    assert list(choices_of(tasks[:2], results[:2])) == [tmp_path / "choice.json"]
