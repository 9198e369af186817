"""The command's frame: quick help, exit codes, errors as one line."""

import subprocess
import sys

import pytest

from onmodel.cli import main as cli
from onmodel.core.errors import ResourceError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "onmodel", *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_verb() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in cli.VERBS:
        assert verb in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv=['onmodel','--help']\n"
        "from onmodel.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy={'torch','ray','diffusers','transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["onmodel", verb, "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "Usage: onmodel " + verb in capsys.readouterr().out


def test_unknown_verb_is_a_usage_error() -> None:
    done = run("analize")
    assert done.returncode == 2
    assert "analize" in done.stderr and "Traceback" not in done.stderr


def test_errors_become_one_line_and_a_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ResourceError("disk: full; free some space")

    monkeypatch.setattr(cli, "load_verb", lambda name: cli._single(name, fails, "fails"))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(sys, "argv", ["onmodel", "analyze"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 3
    assert capsys.readouterr().err == "onmodel: disk: full; free some space\n"
