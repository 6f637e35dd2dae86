"""`make licences`: writes docs/ops/licences.md anew."""

from tests.live import CHECKOUT
from tests.supply.packages import ALLOWED, RUNTIME_LOCK, Locked, licence, locked, vendored

PAGE = CHECKOUT / "docs" / "ops" / "licences.md"

HEAD = """\
# Licences

What runs with Passbook, by `requirements.lock`, and what its wheel carries from elsewhere, with the licence that each
names in its metadata (SPDX). `make licences` writes this page; a test holds it to the lock and to the list of licences
that are allowed: {allowed}.

Passbook itself is MIT ([LICENSE](../../LICENSE)).

| package | version | licence |
|---|---|---|
"""

TAIL = """
## In the wheel

The files of the page at `/docs`, in `service/api/static` beside their licences and notices, unchanged from npm:

| package | version | licence |
|---|---|---|
"""


def page() -> str:
    """The whole page. UnknownLicenceError, or PackageNotFoundError where the lock is not installed."""
    return (
        HEAD.format(allowed=", ".join(sorted(ALLOWED)))
        + "".join(_row(package) for package in locked(RUNTIME_LOCK))
        + TAIL
        + "".join(f"| {package.name} | {package.version} | {package.licence} |\n" for package in vendored())
    )


def _row(package: Locked) -> str:
    return f"| {package.name} | {package.version} | {licence(package.name)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
