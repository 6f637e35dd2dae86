"""`make sbom`: writes build/passbook.cdx.json, a CycloneDX 1.6 bill of what runs with Passbook."""

import tomllib
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service import __version__
from tests.live import CHECKOUT
from tests.supply.packages import RUNTIME_LOCK, Locked, Vendored, licence, locked, vendored

FILE = CHECKOUT / "build" / "passbook.cdx.json"

_LICENCES = LicenseFactory()


def bill() -> str:
    """JSON: Passbook, every package that the runtime lock has for this platform, what is vendored, and who needs whom.

    A locked package may be any of its release's files: their SHA-256 stand at its reference `distribution`.
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    passbook = Component(
        name=project["name"],
        version=__version__,
        type=ComponentType.APPLICATION,
        description=project["description"],
        licenses=[_LICENCES.make_from_string(project["license"])],
        bom_ref=project["name"],
    )
    packages = {package.name: _package(package) for package in locked(RUNTIME_LOCK) if package.here}
    carried = [_vendored(package) for package in vendored()]
    bom = Bom(components=[*packages.values(), *carried])
    bom.metadata.component = passbook
    needs = {name: _needs(name, packages) for name in packages}
    direct = [packages[canonicalize_name(Requirement(text).name)] for text in _here(project["dependencies"])]
    bom.register_dependency(passbook, [*direct, *carried])
    for name, component in packages.items():
        bom.register_dependency(component, needs[name])
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _package(package: Locked) -> Component:
    purl = PackageURL("pypi", name=package.name, version=package.version)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256) for sha256 in package.hashes]
    return Component(
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[_LICENCES.make_from_string(licence(package.name))],
        external_references=[
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(purl.to_string()), hashes=hashes)
        ],
    )


def _vendored(package: Vendored) -> Component:
    purl = PackageURL("npm", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[_LICENCES.make_from_string(package.licence)],
        components=[
            Component(
                name=name,
                type=ComponentType.FILE,
                bom_ref=f"{purl.to_string()}#{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
            )
            for name, sha256 in package.sha256.items()
        ],
    )


def _needs(name: str, packages: dict[str, Component]) -> list[Component]:
    needed = {canonicalize_name(Requirement(text).name) for text in _here(metadata.requires(name) or [])}
    return [packages[each] for each in sorted(needed & packages.keys())]


def _here(requirements: list[str]) -> list[str]:
    """Those whose marker holds on this platform without any extra."""
    return [
        text for text in requirements if (marker := Requirement(text).marker) is None or marker.evaluate({"extra": ""})
    ]


def write(file: Path) -> None:
    """The bill as a file; the folder is made."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(bill(), "utf-8")


if __name__ == "__main__":
    write(FILE)
    print(FILE.relative_to(CHECKOUT))
