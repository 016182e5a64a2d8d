"""What the files of `deploy/` and the pages of `docs/deploy/` say, held against what there is."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from deploy.proxies import DEPLOY
from live import DEADLINE, LiveServer, running, serve_command
from ssepool import config
from ssepool.cli import app
from ssepool.cli.drain import GRACE_SECONDS
from ssepool.config import PoolConfig, ServerConfig
from ssepool.server.place import SYSTEM_FOLDER
from tools import require

ROOT = DEPLOY.parent
PAGES = ROOT / "docs" / "deploy"
FILES = sorted(path for folder in (DEPLOY, PAGES) for path in folder.rglob("*") if path.is_file())
UNIT = (DEPLOY / "systemd" / "ssepool.service").read_text("utf-8")
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text("utf-8")
VARIABLES = {item.env for item in config.settings()} | {"SSEPOOL_URL", "SSEPOOL_TOKEN"}


def load(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / file).read_text("utf-8")))


def of_kind(kind: str) -> dict[str, Any]:
    """The only manifest of a kind."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    [found] = [item for file in files for item in load(f"kubernetes/{file.name}") if item["kind"] == kind]
    return found


POD = of_kind("Deployment")["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]
COMPOSE = load("docker/compose.yaml")[0]


def check_command(words: list[str]) -> dict[str, Any]:
    """The options of an `ssepool ...`, which must be ones that there are."""
    program, name, *options = words
    assert program in ("ssepool", "/opt/ssepool/bin/ssepool")
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    return dict(command.make_context(name, options).params)


def hosts_of(variables: dict[str, str]) -> set[str]:
    """The names under which a node with this environment may be reached."""
    return set(config.load(env=variables)[0].access.allowed_hosts)


def check_environment(variables: dict[str, str]) -> tuple[PoolConfig, ServerConfig]:
    """The configurations that an environment makes; raises for a value that is not allowed."""
    assert set(variables) <= VARIABLES
    hub, server = config.load(env=variables)
    return hub.pool, server


# Names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_variable_that_is_named_is_a_setting(file: Path) -> None:
    assert set(re.findall(r"SSEPOOL_[A-Z_]*[A-Z]", file.read_text("utf-8"))) <= VARIABLES


def test_the_links_of_the_pages_lead_somewhere() -> None:
    pages = {page: page.read_text("utf-8") for page in PAGES.glob("*.md")}
    links = [(page, link) for page, text in pages.items() for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text)]
    assert links
    assert [link for page, link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_file_is_explained() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES.glob("*.md"))
    files = [file for file in DEPLOY.rglob("*") if file.is_file()]
    assert [file.name for file in files if f"deploy/{file.relative_to(DEPLOY).as_posix()}" not in pages] == []


# Time-outs


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("nginx/ssepool.conf", r"proxy_read_timeout (\d+)s"),
        ("haproxy/haproxy.cfg", r"timeout client (\d+)s"),
        ("haproxy/haproxy.cfg", r"timeout server (\d+)s"),
    ],
)
def test_proxies_bear_more_silence_than_there_is(file: str, pattern: str) -> None:
    [seconds] = map(int, re.findall(pattern, (DEPLOY / file).read_text("utf-8")))
    assert seconds > 2 * PoolConfig().heartbeat_interval
    assert seconds > 2 * PoolConfig().acquire_timeout


def longest_stop(seconds: float) -> float:
    return seconds + GRACE_SECONDS + ServerConfig().shutdown_timeout


def test_nobody_is_killed_before_a_drain_can_end() -> None:
    [stop] = re.findall(r"(?m)^ExecStop=-(.*)$", UNIT)
    [limit] = re.findall(r"(?m)^TimeoutStopSec=(\d+)$", UNIT)
    assert int(limit) > longest_stop(check_command(shlex.split(stop))["seconds"])
    drain = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert POD["spec"]["terminationGracePeriodSeconds"] > longest_stop(check_command(drain)["seconds"])
    for name, service in COMPOSE["services"].items():
        if name.startswith("ssepool-"):
            assert int(service["stop_grace_period"].removesuffix("s")) > ServerConfig().shutdown_timeout


# systemd


def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "ssepool.service"
    unit.write_text(UNIT.replace("/opt/ssepool/bin/ssepool", sys.executable))
    activation = tmp_path / "ssepool.socket"
    activation.write_text((DEPLOY / "systemd" / "ssepool.socket").read_text("utf-8"))
    command = [require("systemd-analyze"), "verify", str(unit), str(activation)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_runs_commands_that_there_are() -> None:
    for line in re.findall(r"(?m)^Exec\w+=-?(.*)$", UNIT):
        check_command(shlex.split(line))


def test_the_environment_of_the_unit_is_allowed() -> None:
    lines = re.findall(r"(?m)^#?(SSEPOOL_.*)$", (DEPLOY / "systemd" / "ssepool.env").read_text("utf-8"))
    assert lines
    check_environment(dict(line.split("=", 1) for line in lines))


# The image and the compose file


def test_the_image_serves_to_others_than_itself() -> None:
    variables = dict(re.findall(r"(SSEPOOL_\w+)=(\S+)", DOCKERFILE))
    _, server = check_environment(variables)
    assert (server.host, server.dev) == ("0.0.0.0", False)
    assert re.findall(r"(?m)^EXPOSE (\d+)$", DOCKERFILE) == [str(server.port)]


def test_the_image_is_made_of_files_that_there_are() -> None:
    for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", DOCKERFILE):
        assert [name for name in line.split()[:-1] if not (ROOT / name).exists()] == []


def test_the_image_can_drain_and_speak_to_its_broker() -> None:
    kept_in = {"redis": "redis", "nats": "nats-py", "postgres": "psycopg"}
    locked = re.findall(r"(?m)^([a-z0-9-]+)(?:\[.*\])?==", (ROOT / "requirements" / "image.txt").read_text("utf-8"))
    assert {"httpx2", *kept_in.values()} <= set(locked)
    for broker in (
        next(item["value"] for item in CONTAINER["env"] if item["name"] == "SSEPOOL_BROKER"),
        COMPOSE["services"]["ssepool-1"]["environment"]["SSEPOOL_BROKER"],
    ):
        assert urlsplit(broker).scheme in kept_in


def test_the_services_fit_together() -> None:
    services = COMPOSE["services"]
    nodes = {name for name in services if name.startswith("ssepool-")}
    upstream = (DEPLOY / "nginx" / "ssepool.conf").read_text("utf-8")
    assert set(re.findall(r"server (\S+):8000", upstream)) == nodes == set(services["nginx"]["depends_on"])
    for name in nodes:
        _, server = check_environment(services[name]["environment"])
        assert services[name]["expose"] == [str(server.port)]
        assert hosts_of(services[name]["environment"]) == nodes
        assert "ports" not in services[name]
        assert urlsplit(services[name]["environment"]["SSEPOOL_BROKER"]).hostname in services
    for source in (volume.split(":")[0] for volume in services["nginx"]["volumes"]):
        assert source == "./tls" or (DEPLOY / "docker" / source).is_file()
    build = services["ssepool-1"]["build"]
    assert (DEPLOY / "docker" / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


# Kubernetes


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A node with the settings of the Deployment, but for what needs a cluster."""
    env = {item["name"]: item["value"] for item in CONTAINER["env"]}
    check_environment(env)
    socket = tmp_path_factory.mktemp("run") / "admin.sock"
    env |= {"SSEPOOL_BROKER": "memory://", "SSEPOOL_PORT": "0", "SSEPOOL_ADMIN": f"unix:{socket}"}
    with running([sys.executable, "-m", "ssepool", *CONTAINER["args"]], r"serving on (http\S*)", env) as server:
        yield server


def test_probes_and_metrics_are_where_the_manifests_look(node: LiveServer) -> None:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert node.request("GET", CONTAINER[name]["httpGet"]["path"])[0] == 200, name
    annotations = POD["metadata"]["annotations"]
    status, metrics = node.operate("GET", annotations["prometheus.io/path"])
    assert status == 200
    [scaler] = [metric["pods"] for metric in of_kind("HorizontalPodAutoscaler")["spec"]["metrics"] if "pods" in metric]
    assert f"\n{scaler['metric']['name']} " in metrics
    pages = "".join(file.read_text("utf-8") for file in FILES if file.suffix in (".md", ".yaml"))
    assert [name for name in re.findall(r"\bssepool_(?!tls)[a-z_]+", pages) if f"\n{name}" not in metrics] == []


def test_a_node_answers_to_the_names_of_its_route_and_its_service(node: LiveServer) -> None:
    names = {*of_kind("HTTPRoute")["spec"]["hostnames"], of_kind("Service")["metadata"]["name"]}
    assert hosts_of({item["name"]: item["value"] for item in CONTAINER["env"]}) == names
    for name in names:
        assert node.request("GET", "/ssepool.js", headers={"Host": f"{name}:8000"})[0] == 200
    assert node.request("GET", "/ssepool.js", headers={"Host": "evil.example"})[0] == 421


def test_ports_are_those_of_the_server() -> None:
    port, admin = CONTAINER["ports"]
    assert port == {"name": "http", "containerPort": ServerConfig().port}
    assert {CONTAINER[name]["httpGet"]["port"] for name in CONTAINER if name.endswith("Probe")} == {"http"}
    [service] = of_kind("Service")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (ServerConfig().port, "http")
    [backend] = of_kind("HTTPRoute")["spec"]["rules"][0]["backendRefs"]
    assert (backend["name"], backend["port"]) == (of_kind("Service")["metadata"]["name"], service["port"])
    # The settings of tokens, without which no hub has administration at a port, are the reader's own.
    assert (admin["name"], POD["metadata"]["annotations"]["prometheus.io/port"]) == (
        "admin",
        str(admin["containerPort"]),
    )
    assert f"0.0.0.0:{admin['containerPort']}" in (DEPLOY / "kubernetes" / "node.yaml").read_text("utf-8")
    world, operators = of_kind("NetworkPolicy")["spec"]["ingress"]
    assert ([each["port"] for each in world["ports"]], [each["port"] for each in operators["ports"]]) == (
        ["http"],
        ["admin"],
    )


def test_administration_is_where_commands_look_for_it() -> None:
    [place] = [item["value"] for item in CONTAINER["env"] if item["name"] == "SSEPOOL_ADMIN"]
    [volume] = CONTAINER["volumeMounts"]
    assert volume["name"] in [each["name"] for each in POD["spec"]["volumes"]]
    assert Path(place.removeprefix("unix:")).parent == Path(volume["mountPath"])
    assert check_command(CONTAINER["lifecycle"]["preStop"]["exec"]["command"])["admin"] == place
    assert re.findall(r"(?m)^RuntimeDirectory=(.*)$", UNIT) == [SYSTEM_FOLDER.name]
    assert SYSTEM_FOLDER.parent == Path("/run")
    [stop] = re.findall(r"(?m)^ExecStop=-(.*)$", UNIT)
    assert check_command(shlex.split(stop))["admin"] is None


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = POD["metadata"]["labels"]
    deployment = of_kind("Deployment")
    target = of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels


def test_only_what_is_public_is_routed() -> None:
    matches = of_kind("HTTPRoute")["spec"]["rules"][0]["matches"]
    assert {(match["method"], match["path"]["type"], match["path"]["value"]) for match in matches} == {
        ("GET", "Exact", "/events"),
        ("GET", "Exact", "/ssepool.js"),
        ("POST", "RegularExpression", "/connections/[A-Za-z0-9_-]+/messages"),
    }


def test_a_pod_that_drains_is_alive_and_not_ready_and_ends_in_time() -> None:
    drain = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    with serve_command("--public-topics", "news") as node:
        place = next(word for word in drain if word.startswith("unix:"))
        command = [sys.executable, "-m", *(f"unix:{node.admin}" if word == place else word for word in drain)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=ROOT, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert node.request("GET", CONTAINER["livenessProbe"]["httpGet"]["path"])[0] == 200
        assert node.request("GET", CONTAINER["readinessProbe"]["httpGet"]["path"])[0] == 503
        assert node.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
