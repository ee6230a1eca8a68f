"""What the README and the pages under docs/ say: links lead somewhere, and the API's examples can be pasted."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SECRET, token
from tests.support.live import Service
from tests.support.pages import commands
from todo_service.config import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "examples" / "nextjs" / "README.md"]
# What stands for a shell's own: fails where the service says that something is wrong.
CURL = 'set -euo pipefail; curl() { command curl --silent --show-error --fail-with-body --noproxy "*" "$@"; }\n'
# What a reader fills in, from the answer before.
FILLED_IN = {
    "ID=…": r"""ID=$(curl -H "$auth" $API/tasks | sed -E 's/.*"id":"([^"]+)".*/\1/')""",
    "NEXT=…": r"""NEXT=$(curl -H "$auth" $API/tasks/changes | sed -E 's/.*"next":"([^"]+)".*/\1/')""",
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]+`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in link:
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.fixture(scope="module")
def service(database_url: str) -> Iterator[Service]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian package: curl)")
    with Service(database_url, SECRET) as service:
        yield service


@pytest.mark.parametrize("page", ["../README.md", "api.md"])
def test_examples_can_be_pasted(service: Service, tmp_path: Path, page: str) -> None:
    """Each in its turn, as one script."""
    [script] = [block for block in commands(page) if "API=" in block]
    script = script.replace("http://localhost:8000", service.url)
    script = re.sub(r"^TOKEN=\$\(.*\)", f"TOKEN={token(page, SECRET)}", script, flags=re.MULTILINE)
    for blank, command in FILLED_IN.items():
        script = script.replace(blank, command)
    done = subprocess.run(["bash", "-c", CURL + script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    assert done.stdout.count('"Buy milk"') > 1
