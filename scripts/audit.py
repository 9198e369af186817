"""Ask PyPI's vulnerability data about every pin of constraints.txt: `python scripts/audit.py UVX`.

Exit code 1 when a pin has a known vulnerability. What cannot be asked (no network, an index without that data) is said
and is no failure: a machine without a network must be able to check everything else.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# In an environment of its own: what it depends on is no part of OnModel's.
FROM = ("--quiet", "--from", "pip-audit>=2.7,<3")
COMMAND = ("pip-audit", "--no-deps", "--disable-pip", "--progress-spinner=off")


def main(uvx: str) -> int:
    """Audit, and print one line for each vulnerable pin and one in all."""
    pins = ROOT / "constraints.txt"
    done = subprocess.run(
        [uvx, *FROM, *COMMAND, "--format=json", "--requirement", str(pins)], capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{pins.name}: not audited ({reason})", file=sys.stderr)
        return 0
    found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    vulnerable = [entry for entry in found if entry.get("vulns")]
    for entry in vulnerable:
        for known in entry["vulns"]:
            mended = ", ".join(known["fix_versions"]) or "no version yet"
            print(f"{pins.name}: {entry['name']} {entry['version']} has {known['id']}; mended in {mended}")
    skipped = sum("skip_reason" in entry for entry in found)
    unknown = f"; {skipped} could not be asked about" if skipped else ""
    print(f"{pins.name}: {len(found) - skipped} pins audited, {len(vulnerable)} with known vulnerabilities{unknown}")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
