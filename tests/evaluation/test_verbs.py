"""The verbs' own behaviour: previews, and wrong arguments answered with a sentence and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from onmodel.cli.demo import DemoConfig, demo_suite, run_demo
from onmodel.cli.evaluate import parse_scales
from onmodel.core.errors import UserError
from onmodel.evaluation.suite import load_suite

from .test_trial import lora


def onmodel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onmodel.cli.main", *arguments]
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
