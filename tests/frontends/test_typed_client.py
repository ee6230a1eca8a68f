"""A TypeScript client with types made from the API's document: it compiles strictly, wrong uses don't, and it runs.

The client is `typed_client/` beside this module; the module it calls the service with is that of `docs/frontends.md`,
word for word.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import SECRET, token
from tests.support.live import Service
from tests.support.npm import install, program, run
from todo_service.config import ROOT

CLIENT = Path(__file__).with_name("typed_client")
ADDRESS = "http://localhost:8000"


def readme(language: str) -> str:
    """The code in this language in the section of docs/frontends.md on the typed client."""
    _, _, rest = (ROOT / "docs" / "frontends.md").read_text().partition("## Typed client\n")
    section, _, _ = rest.partition("\n## ")
    [block] = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def service(database_url: str) -> Iterator[Service]:
    install(CLIENT)
    with Service(database_url, SECRET) as service:
        yield service


@pytest.fixture(scope="module")
def project(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, that module, and the types made from the document that the service serves."""
    folder = tmp_path_factory.mktemp("typed-client")
    for source in [*CLIENT.glob("*.ts"), CLIENT / "tsconfig.json", CLIENT / "package.json"]:
        shutil.copy(source, folder)
    (folder / "node_modules").symlink_to(CLIENT / "node_modules")
    assert ADDRESS in readme("ts")
    (folder / "tasks.ts").write_text(readme("ts").replace(ADDRESS, service.url))
    types_of(service, folder)
    return folder


def types_of(service: Service, folder: Path) -> None:
    """Make the types of the document that the service serves, as that page says."""
    with urlopen(f"{service.url}/api/openapi.json", timeout=10) as response:
        (folder / "openapi.json").write_bytes(response.read())
    npx, generator, source_address, *options = shlex.split(readme("sh"))
    assert (npx, generator, source_address) == ("npx", "openapi-typescript", f"{ADDRESS}/api/openapi.json")
    made = run(str(folder / "node_modules" / ".bin" / generator), "openapi.json", *options, cwd=folder)
    assert made.returncode == 0, made.stderr


def compiled(project: Path, *options: str) -> str:
    """What the compiler has against the project: nothing, if all is well."""
    tsc = str(project / "node_modules" / ".bin" / "tsc")
    done = run(tsc, "--project", ".", "--strict", "--noUncheckedIndexedAccess", *options, cwd=project)
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout


def test_it_compiles_and_wrong_uses_do_not(project: Path) -> None:
    """In `wrong.ts` each `@ts-expect-error` fails where the line below compiles; `fields.ts` compares all types."""
    assert compiled(project, "--noEmit") == ""


def test_every_schema_is_compared(project: Path) -> None:
    document = json.loads((project / "openapi.json").read_text())
    checked = re.findall(r'Equal<Schemas\["(\w+)"\]', (project / "fields.ts").read_text())
    assert sorted(checked) == sorted(document["components"]["schemas"])


def test_nothing_is_left_untyped(project: Path) -> None:
    """`unknown` stands for headers that the document doesn't name, and for nothing else; `any` for nothing at all."""
    types = re.sub(r"/\*.*?\*/", "", (project / "api.d.ts").read_text(), flags=re.DOTALL)
    nothing = "Record<string, never>"
    for harmless in ("[name: string]: unknown;", f"type webhooks = {nothing};", f"type $defs = {nothing};"):
        assert harmless in types
        types = types.replace(harmless, "")
    assert re.findall(r".*\b(?:any\b|unknown\b|object\b|Record<).*", types) == []


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("due_date: string | null;", "due_date: unknown;", "fields.ts"),
        ("due_date: string | null;", "due_date: string;", "fields.ts"),
        ('priority: "low" | "medium" | "high";', "priority: string;", "Unused '@ts-expect-error' directive"),
        ('repeat_from?: "due" | "completion" | null;', "repeat_from?: any;", "fields.ts"),
        ("purged: true;", "purged: boolean;", "client.ts"),
        ("id: string;", "id?: string;", "wrong.ts"),
        ("tag?: string[];", "tag?: string;", "client.ts"),
    ],
)
def test_worse_types_are_noticed(project: Path, tmp_path: Path, was: str, becomes: str, complaint: str) -> None:
    shutil.copytree(project, tmp_path, symlinks=True, dirs_exist_ok=True)
    types = (tmp_path / "api.d.ts").read_text()
    assert was in types
    (tmp_path / "api.d.ts").write_text(types.replace(was, becomes))
    assert complaint in compiled(tmp_path, "--noEmit")


def test_it_runs(project: Path) -> None:
    assert compiled(project, "--outDir", "out") == ""
    done = run(program("node"), "out/client.js", cwd=project, TOKEN=token("typed"))
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result == {
        "created": ["Milk", "high", "2026-12-31", "weekly", None],
        "replayed": ["true", True],
        "changed": ["Oat milk", "Two", "medium", ["shop"]],
        "stale": [412, "precondition-failed"],
        "done": [True, "string", False, None],
        "batch": [
            ["create", "Bread", False, None, "due"],
            ["complete", "Oat milk", True, "2026-12-31", "due"],
            ["update", "Oat milk", True, "2026-12-31T17:00:00Z", "completion"],
        ],
        "failed": [422, ["operations.0.id"]],
        "list": [["Bread"], "1"],
        "open": ["Oat milk", "Bread"],
        # The first next occurrence went when its task was opened again.
        "sync": [0, [[None, True], ["Bread", False], ["Oat milk", False], ["Oat milk", False]], False],
        "stats": [3, 1, 3, 3, None],
    }


DIALECT = (
    "list=tasks one=task done=state:open/done verbs=toggle paths=/api/todos tags=, error=error none=NONE "
    "title=description priority=P3/P2/P1 names=title:text,due_date:dueDate url=url sweep=completed"
)


def test_a_client_of_a_dialect_compiles_and_runs(database_url: str, tmp_path: Path) -> None:
    install(CLIENT)
    shared = {"auth-client.ts": "auth-client.ts", "package.json": "package.json", "tsconfig.json": "tsconfig.base.json"}
    for name, copy in shared.items():
        shutil.copy(CLIENT / name, tmp_path / copy)
    shutil.copytree(CLIENT / "dialect", tmp_path, dirs_exist_ok=True)
    (tmp_path / "node_modules").symlink_to(CLIENT / "node_modules")
    with Service(database_url, SECRET, API_DIALECT=DIALECT) as service:
        types_of(service, tmp_path)
        assert compiled(tmp_path, "--outDir", "out") == ""
        done = run(program("node"), "out/client.js", cwd=tmp_path, TOKEN=token("typed-in-dialect"), API=service.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "created": ["Buy milk", "Buy milk", "home,shop", "P1", "2026-12-31", "open"],
        "changed": "Buy tea",
        "done": "done",
        "list": [["Buy tea"], 1],
        "batch": [["create", "Bread", "open"], ["complete", "Buy tea", "open"]],
        "stats": [1, 1],
        "swept": 0,
        # A request that the types refuse: the contract's own words are taken all the same.
        "lenient": 201,
        "failed": ["invalid", ["text"]],
    }
