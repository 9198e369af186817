"""The whole loop at small size: every file is there, and a second run makes nothing anew."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onmodel.core.errors import NotFoundError
from onmodel.toybox.models import bundled

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def demo(out: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onmodel", "demo", "--quick", "--out", str(out)]
    environment = {**os.environ, "ONMODEL_CACHE": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, timeout=850, check=False, env=environment)


def test_the_whole_loop_runs_and_is_resumed(tmp_path: Path) -> None:
    for name in ("diffusion", "clip", "detector"):
        try:
            bundled(name)
        except NotFoundError:
            pytest.skip(f"the bundled {name} model is not in this checkout")
    out = tmp_path / "demo"
    done = demo(out, tmp_path / "cache")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == str(out / "report.html")
    found = json.loads((out / "report.json").read_text())
    assert found["models"] == ["trial_1", "trial_2"]
    assert set(found["mixes"]) == {"trial_1", "trial_2"}
    assert len(found["evaluations"][0]["scenarios"]) == 7
    assert found["evaluations"][0]["checkpoint_hash"] != found["evaluations"][1]["checkpoint_hash"]
    first_lines = (out / "runs" / "trial_1" / "metrics.jsonl").read_text().count("\n")
    second_lines = (out / "runs" / "trial_2" / "metrics.jsonl").read_text().count("\n")
    assert first_lines == second_lines, "both trials take as many steps"

    made = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.suffix in (".png", ".safetensors")}
    again = demo(out, tmp_path / "cache")
    assert again.returncode == 0, again.stderr[-3000:]
    assert made == {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.suffix in (".png", ".safetensors")}
    assert json.loads((out / "report.json").read_text())["mixes"] == found["mixes"]
