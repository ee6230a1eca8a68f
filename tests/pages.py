"""What stands in the pages under docs/, for tests that follow them."""

import re

from todo_service.config import ROOT


def commands(page: str) -> list[str]:
    """A page's blocks of shell commands."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
