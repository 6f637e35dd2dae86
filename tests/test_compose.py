"""docs/ops/compose.yml runs what the Containerfile builds, confined, beside a collector that it reaches."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import service
from service.config import PREFIX, Config
from tests.live import CHECKOUT
from tests.some import some

OPS = CHECKOUT / "docs" / "ops"
README = (OPS / "README.md").read_text("utf-8")
CONTAINERFILE = (CHECKOUT / "Containerfile").read_text("utf-8")
SERVICES: dict[str, Any] = yaml.safe_load((OPS / "compose.yml").read_text("utf-8"))["services"]
COLLECTOR: dict[str, Any] = yaml.safe_load((OPS / "otel-collector.yml").read_text("utf-8"))


def seconds(text: str) -> int:
    """60 of "60s"."""
    assert text.endswith("s")
    return int(text[:-1])


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined_and_pinned(name: str) -> None:
    """A read-only root, no capability and none to be had, a version, and ports for this machine alone."""
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert re.search(r":\d+\.\d+\.\d+$", one["image"])
    assert all(port.startswith("127.0.0.1:") for port in some(one["ports"]))
    assert not one.keys() & {"privileged", "cap_add", "network_mode", "pid", "user"}


def test_passbook_is_what_the_containerfile_builds() -> None:
    """Its version, the port and volume that the image has, and its health check word for word."""
    passbook = SERVICES["passbook"]
    assert passbook["image"] == f"passbook:{service.__version__}"
    built = (OPS / passbook["build"]["context"]).resolve()
    assert built == CHECKOUT
    assert (built / passbook["build"]["dockerfile"]).read_text("utf-8") == CONTAINERFILE
    exposed = re.search(r"^EXPOSE (\d+)$", CONTAINERFILE, re.MULTILINE)
    volume = re.search(r"^VOLUME (\S+)$", CONTAINERFILE, re.MULTILINE)
    assert exposed
    assert volume
    assert passbook["ports"] == [f"127.0.0.1:{Config().port}:{exposed[1]}"]
    assert int(exposed[1]) == Config().port
    assert passbook["volumes"] == [f"data:{volume[1]}"]
    check = re.search(r"^HEALTHCHECK (.*) \\\n  CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    assert check
    told = dict(re.findall(r"--([a-z-]+)=(\S+)", check[1]))
    written = passbook["healthcheck"]
    assert ["CMD", *json.loads(check[2])] == written["test"]
    # Whoever restarts what is unhealthy must not do so for a full disk, which /readyz tells of.
    assert "GET /livez " in written["test"][-1]
    assert {name.replace("_", "-"): str(value) for name, value in written.items() if name != "test"} == told


def test_every_variable_is_one_that_passbook_takes() -> None:
    """PASSBOOK_ ones are settings with a value that the start accepts; OTEL_ ones are documented beside it."""
    variables: dict[str, str] = SERVICES["passbook"]["environment"]
    image = dict(re.findall(r"\b(PASSBOOK_[A-Z_]+)=(\S+)", CONTAINERFILE))
    ours = {name: value for name, value in {**image, **variables}.items() if name.startswith(PREFIX)}
    assert len(ours) >= 3
    assert Config.from_env(ours) != Config()
    assert {name for name in variables if name not in ours} == {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    for name in some(variables):
        assert f"`{name}`" in README or f"`{name}`" in (CHECKOUT / "docs/operating.md").read_text("utf-8"), name


def test_it_has_time_to_stop() -> None:
    """Longer than the delay, the grace and the last export together."""
    grace = seconds(SERVICES["passbook"]["stop_grace_period"])
    assert grace > Config().shutdown_delay_s + Config().shutdown_grace_s + 4


def test_passbook_sends_to_where_the_collector_listens() -> None:
    """The host is the collector's name, the port is its receiver's for OTLP over HTTP."""
    endpoint = urlsplit(SERVICES["passbook"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert endpoint.hostname in SERVICES
    listens = COLLECTOR["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert listens == f"0.0.0.0:{endpoint.port}"
    (config,) = SERVICES["collector"]["volumes"]
    source, place, mode = config.split(":")
    assert (OPS / source).resolve() == OPS / "otel-collector.yml"
    assert SERVICES["collector"]["command"] == [f"--config={place}"]
    assert mode == "ro"


def test_the_collectors_pipelines_are_whole() -> None:
    """Traces and metrics each come in, are bounded in memory first, and go out; nothing is defined without use."""
    pipelines = COLLECTOR["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics"}
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == set(COLLECTOR[kind]), kind
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in some(pipelines.values()))
    port = COLLECTOR["exporters"]["prometheus"]["endpoint"].removeprefix("0.0.0.0:")
    assert SERVICES["collector"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}" in README
