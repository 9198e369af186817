"""The audit of the pinned dependencies; an auditor that finds something is played by a script."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def auditor(tmp_path: Path) -> Path:
    """Prints what lies in answer.json beside it, as pip-audit would."""
    program = tmp_path / "uvx"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer.json 2>/dev/null || {{ echo no network >&2; exit 1; }}\n")
    program.chmod(0o755)
    return program


def audit(auditor: Path, dependencies: list[dict[str, Any]] | None) -> subprocess.CompletedProcess[str]:
    if dependencies is not None:
        (auditor.parent / "answer.json").write_text(json.dumps({"dependencies": dependencies}))
    argv = [sys.executable, str(ROOT / "scripts" / "audit.py"), str(auditor)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_vulnerable_pin_fails_and_is_named(auditor: Path) -> None:
    known = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"]}
    done = audit(
        auditor, [{"name": "good", "version": "1", "vulns": []}, {"name": "bad", "version": "1", "vulns": [known]}]
    )
    assert done.returncode == 1
    assert "bad 1 has PYSEC-2026-1; mended in 2.0" in done.stdout
    assert "2 pins audited, 1 with known vulnerabilities" in done.stdout


def test_pins_that_cannot_be_asked_about_are_counted_and_are_no_failure(auditor: Path) -> None:
    done = audit(auditor, [{"name": "good", "version": "1", "vulns": []}, {"name": "own", "skip_reason": "not there"}])
    assert done.returncode == 0
    assert done.stdout == "constraints.txt: 1 pins audited, 0 with known vulnerabilities; 1 could not be asked about\n"


def test_without_a_network_nothing_fails_and_nothing_is_claimed(auditor: Path) -> None:
    done = audit(auditor, None)
    assert done.returncode == 0
    assert done.stderr == "constraints.txt: not audited (no network)\n"
    assert not done.stdout
