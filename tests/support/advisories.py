"""Known vulnerabilities in what is pinned: `python -m tests.support.advisories requirements.txt …` (`make audit`).

pip-audit alone has nothing to say about an empty file, or where the service that it asks has no advisories at all. So
here it also gets a package whose vulnerabilities are long known: an audit that doesn't find them has audited nothing.
Reading the requirements and asking for each of them is left to pip-audit.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Not installed, nor downloaded.
CANARY = ("django", "2.0")
CANARY_HASH = "sha256:af18618ce3291be5092893d8522fe3919661bf3a1fb60e3858ae74865a4f07c2"
PIN = re.compile(r"^([\w.-]+)(?:\[.*?\])?==([^\s;\\]+)", re.MULTILINE)


def pins(files: Sequence[Path]) -> set[tuple[str, str]]:
    """Name and version of all that is pinned, names as pip-audit writes them (PEP 503)."""
    found = (pin for file in files for pin in PIN.findall(file.read_text()))
    return {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found}


def problems(files: Sequence[Path], options: Sequence[str] = ()) -> list[str]:
    """What is wrong with the pins in `files`, or with the audit itself. `options` go to pip-audit."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as canary:
        canary.write(f"{CANARY[0]}=={CANARY[1]} --hash={CANARY_HASH}\n")
        canary.flush()
        listed = [word for file in (*files, canary.name) for word in ("-r", str(file))]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes", *options, *listed,
             "--format=json", "--progress-spinner=off"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    if not done.stdout:
        return [f"pip-audit failed (exit code {done.returncode})"]
    dependencies = json.loads(done.stdout)["dependencies"]
    audited = {(one["name"], one["version"]): [vuln["id"] for vuln in one["vulns"]] for one in dependencies}
    missed = [f"{name} {version} was not audited" for name, version in sorted(pins(files) - audited.keys())]
    if not pins(files):
        missed.append("nothing is pinned")
    if not audited.pop(CANARY, None):
        missed.append(f"the advisories lack those for {' '.join(CANARY)}, so they may lack any")
    return missed + [f"{name} {version}: {', '.join(ids)}" for (name, version), ids in audited.items() if ids]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.advisories", description="Look for known vulnerabilities."
    )
    parser.add_argument("files", nargs="+", type=Path, help="requirements with hashes")
    files: list[Path] = parser.parse_args().files
    found = problems(files)
    print("\n".join(found) or f"{len(pins(files))} packages, no known vulnerability")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
