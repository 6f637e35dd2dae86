"""The container of the Containerfile is built and run: an unprivileged user, a read-only root, and data that stays."""

import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import service
from tests.container import BASE, USER_ID, ContainerService, Image, require_tools
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT
from tests.waiting import until

OPS = (CHECKOUT / "docs" / "ops" / "README.md").read_text("utf-8")
ROUNDING_MB = 5


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built once, in a store of its own below .cache."""
    require_tools()
    cache = CHECKOUT / ".cache"
    cache.mkdir(exist_ok=True)
    image = Image(Path(tempfile.mkdtemp(prefix="container-", dir=cache)))
    try:
        yield image.build()
    finally:
        image.remove()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A volume: a folder that belongs to the image's user."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, USER_ID, USER_ID)
    return folder


@pytest.fixture
def contained(image: Image, data: Path) -> Iterator[ContainerService]:
    """The image, not running yet, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    live = ContainerService(data / "passbook.db", {"PASSBOOK_PORT": str(port)}, image=image)
    yield live
    if live.process is not None:
        live.kill()


def test_it_serves_stops_and_keeps_what_it_has(contained: ContainerService) -> None:
    """Probes, a deposit and the documentation page; SIGTERM ends it with 0; with the same /data the balance is kept."""
    began = time.monotonic()
    contained.start()
    client = contained.client()
    until(lambda: client.get("/readyz").status_code == 200, "the container is ready")
    print(f"ready after {time.monotonic() - began:.2f} s")
    assert client.get("/livez").status_code == 200
    assert client.credit("1", 5000)["balance_after"] == 5000
    page = client.get("/docs")
    assert page.status_code == 200
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(assets) >= 3
    assert [client.get(asset).status_code for asset in assets] == [200] * len(assets)
    assert contained.stop() == 0, contained.said
    contained.start()
    assert contained.client().get("/v1/users/1/balance").json()["balance"] == 5000
    assert contained.stop() == 0, contained.said
    assert broken_invariants(contained.database) == []
    assert {(path.stat().st_uid, path.stat().st_gid) for path in contained.database.parent.iterdir()} == {
        (USER_ID, USER_ID)
    }


def test_it_runs_without_rights_and_writes_only_its_data(contained: ContainerService) -> None:
    """No capability, none to be had; nothing can be written but /data; no setuid program, no pip, no compiler."""
    contained.start()
    assert contained.process is not None
    status = Path(f"/proc/{contained.process.pid}/status").read_text("utf-8")
    told = dict(re.findall(r"^(\w+):\t(.*)$", status, re.MULTILINE))
    assert told["Uid"].split() == told["Gid"].split() == [str(USER_ID)] * 4
    assert (told["Groups"].strip(), told["NoNewPrivs"]) == ("", "1")
    assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}

    places = ("/", "/opt/passbook", "/usr", "/tmp", "/var/tmp", "/data")
    probe = (
        "import sys\nfor place in sys.argv[1:]:\n try: open(f'{place}/written', 'w').close(); print(place)\n"
        " except OSError as error: print(place, error.strerror)"
    )
    written = contained.image.run(contained.database.parent, "python3", "-c", probe, *places)
    refused = {f"{place} Read-only file system" for place in places[:-1]}
    assert set(written.stdout.splitlines()) == {*refused, "/data"}, written.stdout + written.stderr

    root = contained.image.root
    ours = root / "opt" / "passbook"
    files = [path for path in ours.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 1000
    assert [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)] == []
    assert [path for path in files if path.stat().st_uid == USER_ID] == []
    for module in ("pip", "ensurepip"):
        for python in ("/usr/bin/python3", "/opt/passbook/bin/python3"):
            found = contained.image.run(contained.database.parent, python, "-m", module)
            assert f"No module named {module}" in found.stderr
    tools = ("pip", "pip3", "cc", "gcc", "make", "curl", "wget")
    assert [tool for tool in tools for folder in ("usr/bin", "usr/local/bin") if (root / folder / tool).exists()] == []


def test_the_health_check_follows_livez_and_is_cheap(contained: ContainerService) -> None:
    """0 while /livez says 200, 1 when nothing answers; it costs less than half of an HTTP client's import."""
    check = contained.image.config["Healthcheck"]
    kind, *command = check["Test"]
    assert kind == "CMD"
    data, environment = contained.database.parent, contained.environment
    assert contained.image.run(data, *command, **environment).returncode == 1
    contained.start()
    assert contained.image.run(data, *command, **environment).returncode == 0

    def spent(*command: str) -> float:
        before = os.times()
        assert contained.image.run(data, *command, **environment).returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    tries = [(spent("true"), spent(*command), spent("python3", "-c", "import urllib.request")) for _ in range(5)]
    nothing, checking, importing = (min(costs) for costs in zip(*tries, strict=True))
    print(f"health check: {(checking - nothing) * 1000:.0f} ms of the processor")
    assert checking - nothing < (importing - nothing) / 2
    assert contained.stop() == 0


def test_the_image_says_what_it_is(image: Image) -> None:
    """Labels of the OCI, the version of the package, the signal that stops it, its volume and port; and its size."""
    labels = image.config["Labels"]
    assert {name.removeprefix("org.opencontainers.image."): text for name, text in labels.items()}.items() >= {
        "title": "Passbook",
        "version": service.__version__,
        "licenses": "MIT",
        "base.name": BASE,
    }.items()
    assert labels["org.opencontainers.image.description"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["User"] == f"{USER_ID}:{USER_ID}"
    assert list(image.config["Volumes"]) == ["/data"]
    assert list(image.config["ExposedPorts"]) == ["8000/tcp"]
    added = image.size_mb() - image.size_mb(BASE)
    print(f"{added:.0f} MB on top of the base")
    documented = re.search(r"^\| adds to its base \| (\d+) MB \|$", OPS, re.MULTILINE)
    assert documented, "docs/ops/README.md says how large the image is"
    assert abs(added - int(documented[1])) <= ROUNDING_MB


def test_the_base_is_pinned_and_the_version_is_the_packages() -> None:
    """The default base names a whole version; both locks that are installed have hashes."""
    text = (CHECKOUT / "Containerfile").read_text("utf-8")
    assert re.search(r"^ARG BASE_IMAGE=docker\.io/library/python:\d+\.\d+\.\d+-slim-[a-z]+$", text, re.MULTILINE)
    assert f'image.version="{service.__version__}"' in text
