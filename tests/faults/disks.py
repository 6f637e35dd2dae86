"""Disks that are soon full, and disks that do not answer."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str = "3m") -> Iterator[Path]:
    """A disk of `size`, as mount spells it, at `folder`; skips the test where the system lets nobody mount one."""
    with small_disk_or_none(folder, size) as disk:
        if disk is None:
            pytest.skip("a small disk can be mounted by root only, outside most containers")
        yield disk


@contextmanager
def small_disk_or_none(folder: Path, size: str) -> Iterator[Path | None]:
    """The same; None where the system lets nobody mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(filler: Path) -> None:
    """A file that takes what space there is."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


@contextmanager
def freezable_disk(folder: Path, *, mib: int = 64) -> Iterator[Path]:
    """An ext4 of its own at `folder`, which `frozen` can freeze; skips the test where nobody may mount one."""
    folder.mkdir()
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(mib * 2**20)
    made = os.geteuid() == 0 and shutil.which("mkfs.ext4") and shutil.which("fsfreeze")
    for command in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        if not made or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("a file system can be made, mounted and frozen by root only, outside most containers")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """For the block nothing is written to `disk`: whoever tries waits, and not even SIGKILL ends that."""
    subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
