"""Says what pip-audit found, and how much of it was really checked. Exit status 1 where there is a finding.

python deploy/audit_summary.py audit.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def summary(report: dict[str, Any]) -> tuple[list[str], int]:
    """The lines to print, and the exit status. A package that was skipped is not one without vulnerabilities."""
    packages = report["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    status = 1 if lines else 0
    lines.append(f"checked {len(packages) - len(skipped)} of {len(packages)} packages, {len(lines)} findings")
    if skipped:
        lines.append(f"not checked, since the advisory service does not answer for them: {len(skipped)}")
    return lines, status


if __name__ == "__main__":
    lines, status = summary(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.exit(status)
