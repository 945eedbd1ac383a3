"""How long from a slider's move to its picture, in JupyterLab in headless Chromium: median and p95, in milliseconds.

Drives every explorer of every lecture as the browser tests do, and prints what they measured beside the aims: 25 ms
where the states are scrubbed, 80 ms where each picture is asked of the kernel. Run it on an idle machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Drive the explorers, print the table; the exit status is that of the tests."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/browser"], cwd=ROOT, check=False)
    measured = json.loads((ROOT / "test-artifacts" / "latency.json").read_text())
    print(f"\n{'explorer':64s}{'kind':10s}{'median':>8s}{'p95':>8s}{'aim':>6s}")
    for name, row in measured.items():
        print(f"{name:64.63s}{row['kind']:10s}{row['median_ms']:8.1f}{row['p95_ms']:8.1f}{row['limit_p95_ms']:6d}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
