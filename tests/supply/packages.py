"""What Passbook is made of: the locked packages, what is vendored, and the licence of each."""

import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from license_expression import LicenseSymbol, get_spdx_licensing
from packaging.requirements import Requirement

from tests.live import CHECKOUT

RUNTIME_LOCK = CHECKOUT / "requirements.lock"
LOCKS = (RUNTIME_LOCK, CHECKOUT / "requirements-dev.lock", CHECKOUT / "requirements-build.lock")
VENDORED = CHECKOUT / "service" / "api" / "static" / "vendored.toml"

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""Licences that ask for no more than their text and notices, and of MPL-2.0 that changes to its own files stay open."""

SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX for what packages wrote before there was `License-Expression`."""

READ = {"pysqlite3": "Zlib"}
"""Packages whose metadata name no licence: what their LICENSE file is."""

_LICENSING = get_spdx_licensing()


class UnknownLicenceError(Exception):
    """A package's metadata name no licence that SPDX knows. The text names the package and what to do."""


@dataclass(frozen=True)
class Locked:
    """A package of a lock: its whole requirement, name==version with a marker, and the SHA-256 of each of its files."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the lock spells it."""
        return self.requirement.name

    @property
    def version(self) -> str:
        """The one version."""
        (only,) = self.requirement.specifier
        return only.version

    @property
    def here(self) -> bool:
        """Whether it is installed on this platform."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


@dataclass(frozen=True)
class Vendored:
    """A package of npm of which files are in the package's tree, with their SHA-256."""

    name: str
    version: str
    licence: str
    sha256: dict[str, str]


def locked(lock: Path) -> list[Locked]:
    """The packages of a lock that pip-compile wrote, in its order; ValueError where one has no hash."""
    found = []
    for entry in re.findall(r"^\w.*(?:\n[ \t].*)*", lock.read_text("utf-8"), re.MULTILINE):
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
        requirement = Requirement(entry.partition("\n")[0].removesuffix("\\").strip())
        if not hashes:
            raise ValueError(f"{lock.name}: {requirement.name} has no hash; make lock")
        found.append(Locked(requirement, hashes))
    return found


def vendored() -> list[Vendored]:
    """What VENDORED lists."""
    return [Vendored(**package) for package in tomllib.loads(VENDORED.read_text("utf-8"))["package"]]


def licence(package: str) -> str:
    """The SPDX expression of an installed package, from its metadata. UnknownLicenceError names one that has none."""
    told = metadata.metadata(package)
    classifiers = [text.split(" :: ")[-1] for text in told.get_all("Classifier") or [] if text.startswith("License")]
    if len(classifiers) > 1:
        classifiers = [" OR ".join(sorted(SPELLINGS.get(text, text) for text in classifiers))]
    for text in (
        told["License-Expression"],
        *classifiers,
        (told["License"] or "").partition("\n")[0],
        READ.get(package),
    ):
        expression = SPELLINGS.get(text, text) if text else None
        if expression and not _LICENSING.validate(expression).errors:
            return str(_LICENSING.parse(expression))
    raise UnknownLicenceError(f"{package} names no licence that SPDX knows; read its LICENSE and add it to READ")


def allowed(expression: str) -> bool:
    """Whether ALLOWED has what is needed: all of an AND, one of an OR."""

    def needed(part: Any) -> bool:
        if isinstance(part, _LICENSING.AND):
            return all(needed(each) for each in part.args)
        if isinstance(part, _LICENSING.OR):
            return any(needed(each) for each in part.args)
        return isinstance(part, LicenseSymbol) and part.key in ALLOWED  # "… WITH …" is another licence

    return needed(_LICENSING.parse(expression, validate=True))
