"""What stands in the pages under docs/, for tests that follow them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import SECRET
from tests.support.live import KEPT
from tests.support.servers import postgres_programs
from todo_service.config import ROOT


def commands(page: str) -> list[str]:
    """The blocks of shell commands of a page under docs/."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def shell(block: str, environment: dict[str, str], folder: Path = ROOT) -> str:
    """Run a block, as somebody does who copies it; what it says, all of which is well."""
    given = {name: os.environ[name] for name in KEPT if name in os.environ} | {
        "PATH": os.pathsep.join([str(postgres_programs()), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "BETTER_AUTH_SECRET": SECRET,
    }
    done = subprocess.run(
        ["sh", "-e"],
        input=block, cwd=folder, env=given | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout
