"""deploy/kubernetes: valid by the API's own schemas, and of one mind with the image, the settings, gunicorn and nginx.

No cluster is asked: kubernetes-validate carries the schemas. Of the files kustomize changes names and images alone.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.test_deployment import SETTINGS, instructions
from tests.support.compose import SERVICES
from todo_service.api.health import LINGER_SECONDS
from todo_service.config import ROOT, VERSION, read

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST = "1.30"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()
PREFIX = "nginx.ingress.kubernetes.io/"
# What ingress-nginx calls otherwise than nginx does.
DIRECTIVES = {
    "proxy-body-size": "client_max_body_size",
    "proxy-buffers-number": "proxy_buffers",
    "limit-connections": "limit_conn",
    "limit-conn-status-code": "limit_conn_status",
    "keep-alive": "keepalive_timeout",
    "upstream-keepalive-timeout": "keepalive_timeout",
    "enable-underscores-in-headers": "underscores_in_headers",
}
# What has no directive of its own there.
INGRESS_ALONE = {"use-regex", "use-forwarded-headers", "retry-non-idempotent", "use-gzip"}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


RESOURCES = {
    f"{document['kind']}/{document['metadata']['name']}": document
    for name in KUSTOMIZATION["resources"]
    for document in documents(FOLDER / name)
}
INGRESSES = [document for document in RESOURCES.values() if document["kind"] == "Ingress"]
DEPLOYMENT = RESOURCES["Deployment/todo-service"]
SERVICE = RESOURCES["Service/todo-service"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The templates of all pods, by the kind of what makes them."""
    for document in RESOURCES.values():
        spec = document["spec"]["jobTemplate"]["spec"] if document["kind"] == "CronJob" else document.get("spec", {})
        if "template" in spec:
            yield document["kind"], spec["template"]


PODS = dict(pods())


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", RESOURCES)
def test_resource_is_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(RESOURCES[name], version, strict=True)


def test_mistake_would_be_found() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(SERVICE | {"spec": {"selektor": {}}}, OLDEST, strict=True)


def test_every_file_is_part_of_it() -> None:
    by_itself = {"kustomization.yaml", "settings.env", "servicemonitor.yaml", "ingress-nginx.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == {*KUSTOMIZATION["resources"]} | by_itself
    kinds = {document["kind"] for document in RESOURCES.values()}
    assert kinds >= {"CronJob", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PodDisruptionBudget"}


def settings() -> dict[str, str]:
    """Of all pods."""
    lines = (FOLDER / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def secrets() -> dict[str, set[str]]:
    """The names that the page puts into each Secret."""
    page = (ROOT / "docs" / "kubernetes.md").read_text().replace("\\\n", "")
    commands = re.findall(r"secret generic (\S+)(.*)", page)
    return {name: set(re.findall(r"--from-literal=(\w+)=", rest)) for name, rest in commands}


def test_settings_exist_and_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set(settings()).union(*secrets().values())
    assert names <= SETTINGS
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", "postgresql://todo_service@database/todo")
    made, known = read(None)
    assert names <= known
    assert made.jwks_url
    assert made.workers == 2


@pytest.mark.parametrize("kind", PODS)
def test_pod_gets_its_settings(kind: str) -> None:
    generated = {made["name"]: made for made in KUSTOMIZATION["configMapGenerator"]}
    (container,) = PODS[kind]["spec"]["containers"]
    references = [source for entry in container["envFrom"] for source in entry.items()]
    config = [source["name"] for kind_of, source in references if kind_of == "configMapRef"]
    assert [generated[name]["envs"] for name in config] == [["settings.env"]]
    # A Job can't be changed, so what it refers to keeps its name.
    fixed = generated[config[0]].get("options", {}).get("disableNameSuffixHash", False)
    assert fixed == (kind == "Job")
    wanted = ["todo-service", "todo-service-owner"] if kind == "Job" else ["todo-service"]
    assert [source["name"] for kind_of, source in references if kind_of == "secretRef"] == wanted
    assert set(secrets()) == {"todo-service", "todo-service-owner"}


@pytest.mark.parametrize("kind", PODS)
def test_pod_is_closed(kind: str) -> None:
    spec = PODS[kind]["spec"]
    (user,) = (rest for name, rest in instructions() if name == "USER")
    assert f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" == user
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_image_and_job_have_the_version() -> None:
    (image,) = KUSTOMIZATION["images"]
    assert image["newTag"] == VERSION
    assert {container["image"] for pod in PODS.values() for container in pod["spec"]["containers"]} == {image["name"]}
    assert f"Job/todo-service-migrate-{VERSION.replace('.', '-')}" in RESOURCES


def test_commands_are_those_of_compose() -> None:
    (migrate,), (purge,) = PODS["Job"]["spec"]["containers"], PODS["CronJob"]["spec"]["containers"]
    assert migrate["command"] == SERVICES["migrate"]["command"]
    assert " ".join(purge["command"]) in SERVICES["purge"]["command"][2]


def number(text: str, pattern: str) -> int:
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return int(found)


def test_nobody_ends_it_before_it_has_finished() -> None:
    gunicorn = (ROOT / "gunicorn.conf.py").read_text()
    stop = LINGER_SECONDS + number(gunicorn, r"^graceful_timeout = (\d+)$")
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 2
    assert DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > pause + stop
    assert int(SERVICES["todo_service"]["stop_grace_period"].removesuffix("s")) > stop
    # It's the proxy who closes an idle connection.
    values = documents(FOLDER / "ingress-nginx.yaml")[0]["controller"]["config"]
    assert int(values["upstream-keepalive-timeout"]) < number(gunicorn, r"^keepalive = (\d+)$")


def test_probes_ask_what_they_should() -> None:
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert paths == {
        name: {"path": f"/health/{'ready' if name == 'readiness' else 'live'}", "port": "http"} for name in paths
    }
    exposed = next(rest for name, rest in instructions() if name == "EXPOSE")
    assert container["ports"] == [{"name": "http", "containerPort": int(exposed)}]


def test_they_mean_each_other() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    spread = [rule["labelSelector"] for rule in DEPLOYMENT["spec"]["template"]["spec"]["topologySpreadConstraints"]]
    (monitor,) = documents(FOLDER / "servicemonitor.yaml")
    selectors = [
        DEPLOYMENT["spec"]["selector"],
        {"matchLabels": SERVICE["spec"]["selector"]},
        RESOURCES["PodDisruptionBudget/todo-service"]["spec"]["selector"],
        *spread,
    ]
    assert all(selector == {"matchLabels": labels} for selector in selectors)
    # The Job's and the CronJob's pods get no traffic, but have the same network.
    network = RESOURCES["NetworkPolicy/todo-service"]["spec"]["podSelector"]["matchLabels"].items()
    assert all(network <= pod["metadata"]["labels"].items() for pod in PODS.values())
    assert [kind for kind, pod in PODS.items() if pod["metadata"]["labels"] == labels] == ["Deployment"]
    target = RESOURCES["HorizontalPodAutoscaler/todo-service"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", DEPLOYMENT["metadata"]["name"])
    assert "replicas" not in DEPLOYMENT["spec"]
    backends = [path["backend"]["service"] for ingress in INGRESSES for path in paths_of(ingress)]
    assert all(backend == {"name": SERVICE["metadata"]["name"], "port": {"name": "http"}} for backend in backends)
    assert SERVICE["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    # The schema of a ServiceMonitor is no part of the API.
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"] == SERVICE["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    token = endpoint["authorization"]["credentials"]
    assert token["key"] in secrets()[token["name"]] & SETTINGS


def paths_of(ingress: dict[str, Any]) -> list[dict[str, Any]]:
    (rule,) = ingress["spec"]["rules"]
    paths: list[dict[str, Any]] = rule["http"]["paths"]
    return paths


def test_connections_are_as_the_page_says() -> None:
    most = RESOURCES["HorizontalPodAutoscaler/todo-service"]["spec"]["maxReplicas"]
    surge = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    each = int(settings()["WEB_CONCURRENCY"]) * int(settings()["DB_POOL_SIZE"])
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert number(page, r"is (\d+) connections") == (most + surge) * each


def rules() -> Iterator[tuple[str, str]]:
    """What ingress-nginx is told: names and values."""
    for ingress in INGRESSES:
        yield from ingress["metadata"]["annotations"].items()
    yield from documents(FOLDER / "ingress-nginx.yaml")[0]["controller"]["config"].items()


@pytest.mark.parametrize(("name", "value"), sorted({(name.removeprefix(PREFIX), value) for name, value in rules()}))
def test_ingress_has_the_rules_of_nginx(name: str, value: str) -> None:
    if name in INGRESS_ALONE:
        return
    directive = DIRECTIVES.get(name, name.replace("-", "_"))
    there = re.findall(rf"^ *{directive} (.*);", NGINX, re.MULTILINE)
    same = {"true": "on", "false": "off"}.get(value, value)
    assert there
    # With its unit, or as one of several words: `15s`, `16 32k`, `addresses 1000`.
    assert any(same in (found, found.removesuffix("s"), *found.split()) for found in there)


def test_files_differ_from_the_rest_by_their_size_alone() -> None:
    rest, files = (dict(ingress["metadata"]["annotations"]) for ingress in INGRESSES)
    size = f"{PREFIX}proxy-body-size"
    assert (rest.pop(size), files.pop(size)) == ("2m", "17m")
    assert rest == files


@pytest.mark.parametrize(
    ("path", "ingress"),
    [
        ("/", "todo-service"),
        ("/api/docs", "todo-service"),
        ("/api/tasks", "todo-service"),
        ("/api/alice/tasks/1", "todo-service"),
        ("/health/ready", "todo-service"),
        ("/api/tasks/import", "todo-service-import"),
        ("/api/alice/tasks/import/", "todo-service-import"),
        ("/metrics", None),
        ("/metrics/", None),
    ],
)
def test_ingress_leads_each_path(path: str, ingress: str | None) -> None:
    """As ingress-nginx reads expressions: each from the start, in any case, the longest first."""
    led = [(route["path"], found["metadata"]["name"]) for found in INGRESSES for route in paths_of(found)]
    first = sorted(led, key=lambda route: -len(route[0]))
    assert next((name for route, name in first if re.match(route, path, re.IGNORECASE)), None) == ingress
