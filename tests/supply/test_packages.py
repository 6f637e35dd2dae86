"""Licences are known, allowed and written down; what is vendored is what npm has; the bill of materials is whole."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.live import CHECKOUT
from tests.some import some
from tests.supply import licences, sbom
from tests.supply.packages import LOCKS, RUNTIME_LOCK, VENDORED, UnknownLicenceError, allowed, licence, locked, vendored


def test_the_page_of_licences_is_current() -> None:
    """docs/ops/licences.md is what `make licences` would write."""
    assert licences.PAGE.read_text("utf-8") == licences.page(), "make licences, and read what has changed"


def test_every_licence_is_allowed() -> None:
    """Of each locked runtime package and of what is vendored; a copyleft one would not be."""
    found = {package.name: licence(package.name) for package in locked(RUNTIME_LOCK) if package.here}
    found |= {package.name: package.licence for package in vendored()}
    assert len(found) > 40
    assert {name: text for name, text in found.items() if not allowed(text)} == {}


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-only OR MIT", True),
        ("MIT AND GPL-2.0-only", False),
        ("MIT AND (GPL-2.0-only OR Zlib)", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
    ],
)
def test_an_expression_is_allowed_by_its_parts(expression: str, answer: bool) -> None:
    """All of an AND, one of an OR, and an exception makes another licence."""
    assert allowed(expression) is answer


def test_a_package_without_a_licence_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that says what to do, not an empty cell."""
    folder = tmp_path / "nameless-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.4\nName: nameless\nVersion: 1\nLicense: see the web page\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnknownLicenceError, match="nameless names no licence that SPDX knows; read its LICENSE"):
        licence("nameless")


def test_the_locks_are_pinned_hashed_and_agree() -> None:
    """One version of a package in all locks, with hashes; a package without one is named."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for package in locked(lock):
            versions.setdefault(package.name, set()).add(package.version)
    assert len(versions) > 80
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_a_package_without_a_hash_is_named(tmp_path: Path) -> None:
    """Such a lock is refused."""
    lock = tmp_path / "some.lock"
    lock.write_text("good==1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via x\nbad==2\n    # via x\n")
    with pytest.raises(ValueError, match=r"some\.lock: bad has no hash; make lock"):
        locked(lock)


def test_what_is_vendored_is_listed_as_it_is() -> None:
    """Every file beside vendored.toml has its package and SHA-256 there, its licence and notices among them."""
    listed = {name: sha256 for package in vendored() for name, sha256 in package.sha256.items()}
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDORED.parent.iterdir()
        if path != VENDORED and path.stem != "docs"  # our own page
    }
    assert listed == there
    assert [name for name in there if name.startswith("LICENSE-")]
    for script in some(name for name in there if name.endswith(".js")):
        told = re.search(rb"please see (\S+\.LICENSE\.txt)", (VENDORED.parent / script).read_bytes()[:500])
        assert told, script
        assert told[1].decode() in there


def test_the_bill_of_materials_is_valid_and_whole(tmp_path: Path) -> None:
    """By CycloneDX's schema; every package of the runtime lock with version, licence and the lock's hashes."""
    file = tmp_path / "build" / "bill.json"
    sbom.write(file)
    text = file.read_text("utf-8")
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    told = json.loads(text)
    assert told["metadata"]["component"]["name"] == "passbook"
    components = {component["name"]: component for component in told["components"]}
    for package in some(locked(RUNTIME_LOCK)):
        if package.here:
            component = components.pop(package.name)
            assert (component["version"], component["purl"]) == (
                package.version,
                f"pkg:pypi/{package.name}@{package.version}",
            )
            (distribution,) = component["externalReferences"]
            assert {each["content"] for each in distribution["hashes"]} == set(package.hashes)
            (named,) = component["licenses"]
            assert named.get("expression") or named["license"]["id"]
    assert set(components) == {package.name for package in vendored()}
    for component in some(components.values()):
        assert component["licenses"]
        assert all(each["hashes"] for each in some(component["components"]))


def test_the_bill_reaches_every_package_from_passbook() -> None:
    """Its graph is whole: nothing is locked that nothing needs."""
    told = json.loads(sbom.bill())
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in told["dependencies"]}
    reached, todo = set(), ["passbook"]
    while todo:
        one = todo.pop()
        if one not in reached:
            reached.add(one)
            todo += needs.get(one, [])
    assert {component["bom-ref"] for component in told["components"]} <= reached


def test_the_invalid_is_seen_by_the_validator() -> None:
    """The schema that the bill is held to is not one that takes anything."""
    told = json.loads(sbom.bill())
    told["components"][0]["licenses"] = [{"license": {"id": "No-Such-Licence"}}]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(told)) is not None


def test_the_wheels_licence_files_are_there() -> None:
    """Passbook's own licence is the one that pyproject.toml and the page name."""
    assert (CHECKOUT / "LICENSE").read_text("utf-8").startswith("MIT License")
