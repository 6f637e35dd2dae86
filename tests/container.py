"""The image of the Containerfile, built by buildah on a Debian of the moment and run in a chroot, without any daemon.

The base has what `python:…-slim` has, a Debian with Python, and is made by mmdebstrap out of the packages that this
system's apt knows; nothing is fetched from a registry of images. The build sees no network: its wheels are downloaded
before, by the lock's hashes.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.live import CHECKOUT, LiveService

BASE = "localhost/debian-python"
PACKAGES = "base-files,base-passwd,ca-certificates,coreutils,dash,findutils,grep,libc-bin,python3,python3-venv,sed"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
IMAGE = "localhost/passbook"
USER_ID = 10001
TOOLS = ("buildah", "mmdebstrap", "mount", "unshare", "setpriv", "chroot")


def require_tools() -> None:
    """AssertionError that says what is missing; nothing here is skipped unseen."""
    assert os.geteuid() == 0, "the image is built and run in a chroot by root: run this as root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    assert not missing, f"install {', '.join(missing)} first (on Debian: apt-get install buildah mmdebstrap mount)"


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(
        command, cwd=CHECKOUT, input=given, capture_output=True, text=True, encoding="utf-8", timeout=600, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@dataclass
class Image:
    """The built image and a container of it, mounted at `root`. Lifetime: from `build` to `remove`."""

    folder: Path
    container: str = ""
    root: Path = field(default_factory=Path)

    def buildah(self, *arguments: str, before: tuple[str, ...] = ()) -> str:
        """buildah with a store of its own; vfs needs nothing of the kernel."""
        store = ("--storage-driver", "vfs", "--root", str(self.folder / "store"), "--runroot", str(self.folder / "run"))
        return _run(*before, "buildah", *store, *arguments)

    def build(self) -> "Image":
        """Makes the base, downloads the wheels, and builds the Containerfile with both."""
        base, wheels, settings = self.folder / "base.tar", self.folder / "wheels", self.folder / "pip.conf"
        with open("/etc/os-release", encoding="utf-8") as file:
            suite = next(line.split("=")[1].strip() for line in file if line.startswith("VERSION_CODENAME="))
        listed = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(SITE) $(COMPONENT)", "Identifier: Packages")
        sources = {tuple(line.split()) for line in listed.splitlines() if line.startswith(suite)}
        given = "".join(f"deb {site} {release} {component}\n" for release, site, component in sorted(sources))
        make_base = ("mmdebstrap", "--variant=extract", f"--include={PACKAGES}", f"--keyring={KEYRING}")
        _run(*make_base, suite, str(base), "-", given=given)
        empty = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", empty, str(base), "/")
        self.buildah("commit", "--quiet", "--rm", empty, BASE)
        for lock in ("requirements.lock", "requirements-build.lock"):
            _run(
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--only-binary=:all:", "--dest", str(wheels), "--requirement", lock),
            )
        settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        self.buildah(
            *("bud", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never"),
            *("--build-arg", f"BASE_IMAGE={BASE}", "--tag", IMAGE),
            *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{settings}:/etc/pip.conf:ro", "."),
            before=("unshare", "--net"),
        )
        self.container = self.buildah("from", "--pull-never", IMAGE).strip()
        self.root = Path(self.buildah("mount", self.container).strip())
        return self

    def remove(self) -> None:
        """Takes the store away. vfs keeps plain folders: nothing is mounted when no command runs."""
        shutil.rmtree(self.folder)

    @cached_property
    def inspected(self) -> dict[str, Any]:
        """What the image says of itself, in Docker's format."""
        answer: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", IMAGE))["Docker"]
        return answer

    @property
    def config(self) -> dict[str, Any]:
        """Its user, environment, command, labels, health check."""
        found: dict[str, Any] = self.inspected["config"]
        return found

    def size_mb(self, image: str = IMAGE) -> float:
        """What `buildah images` says, in megabytes."""
        (listed,) = json.loads(self.buildah("images", "--json", image))
        number, unit = listed["size"].split()
        return float(number) * {"KB": 0.001, "MB": 1, "GB": 1000}[unit]

    def command(self, data: Path, *arguments: str, environment: dict[str, str]) -> list[str]:
        """`arguments` as an engine runs them with --read-only, --security-opt no-new-privileges and `data` at /data.

        The process that is started becomes the command: signals reach it.
        """
        mounts = [
            ("--bind", str(self.root), str(self.root)),
            ("--bind", str(data), str(self.root / "data")),
            ("--types", "proc", "proc", str(self.root / "proc")),
            ("--options", "remount,bind,ro", str(self.root)),
        ]
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        inside = [
            "/usr/bin/env",
            "--ignore-environment",
            f"--chdir={self.config['WorkingDir']}",
            *variables,
            *arguments,
        ]
        change = ["chroot", f"--userspec={self.config['User']}", "--groups=", str(self.root)]
        script = [shlex.join(["mount", *mount]) for mount in mounts]
        script.append(f"exec {shlex.join(['setpriv', '--no-new-privs', *change, *inside])}")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script)]

    def run(self, data: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command beside the service; a failure is an answer."""
        return subprocess.run(
            self.command(data, *arguments, environment=environment),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )


@dataclass
class ContainerService(LiveService):
    """The image's own entry point and command, with the folder of `database` at /data."""

    image: Image = field(kw_only=True)

    def command(self) -> list[str]:
        """What an engine would start."""
        config = self.image.config
        started = [*config["Entrypoint"], *config["Cmd"]]
        return self.image.command(self.database.parent, *started, environment=dict(self.environment))
