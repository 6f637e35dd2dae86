"""The lock: one holder for a file under all its names, who says who it is, and whose death lets go of it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.storage import lock
from tests.live import CHECKOUT
from tests.waiting import until

_HOLDER = """
import subprocess, sys, time
from pathlib import Path
from service.storage import lock

CHILD = (
    "import sys, time; from service.storage import lock;"
    " lock.sign_as_writer(int(sys.argv[1])); print(flush=True); time.sleep(600)"
)
with lock.exclusive(Path(sys.argv[1]), purpose="serve") as held:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(held.lock_file)], pass_fds=held.descriptors, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        print(child.pid, flush=True)
        time.sleep(600)
"""


def test_whoever_inherits_the_lock_holds_it_and_is_named(tmp_path: Path) -> None:
    """The one that took it, with its command and since when; when that has ended, the other, under any name."""
    database = tmp_path / "a.db"
    database.touch()
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            told = lock.holder(database)
            assert told is not None
            assert re.fullmatch(rf"process {holder.pid} \(passbook serve, since 20\S+Z\)", told)
            assert not lock.is_left_behind(database)
            holder.kill()
            holder.wait()
            assert lock.is_left_behind(database)
            refused = rf"process {child}, which finishes the last writes of process {holder.pid} \(passbook serve"
            with pytest.raises(lock.DatabaseInUse, match=refused), lock.exclusive(database):
                raise AssertionError
            other = tmp_path / "elsewhere" / "b.db"
            other.parent.mkdir()
            other.hardlink_to(database)
            with pytest.raises(lock.DatabaseInUse, match=f"under the name {database}"), lock.exclusive(other):
                raise AssertionError
        finally:
            os.kill(child, signal.SIGKILL)
    until(lambda: not (Path(f"/proc/{child}").exists() and lock.holder(database)), "the killed process has ended")
    with lock.exclusive(database):
        assert lock.holder(database) is not None
    assert lock.holder(database) is None


def test_a_lock_file_of_an_earlier_version_names_its_process(tmp_path: Path) -> None:
    """It holds a number alone."""
    database = tmp_path / "a.db"
    with lock.exclusive(database):
        (tmp_path / "a.db.lock").write_text(f"{os.getpid()}\n")
        with pytest.raises(lock.DatabaseInUse, match=f"in use by process {os.getpid()} "), lock.exclusive(database):
            raise AssertionError
        assert not lock.is_left_behind(database)


def test_the_lock_of_a_file_outlasts_the_closing_of_other_descriptors(tmp_path: Path) -> None:
    """Unlike a POSIX lock, which any close of the file in the process would drop."""
    database = tmp_path / "a.db"
    database.touch()
    with lock.exclusive(database):
        database.read_bytes()
        other = tmp_path / "b.db"
        other.hardlink_to(database)
        with pytest.raises(lock.DatabaseInUse), lock.exclusive(other):
            raise AssertionError


def test_a_database_that_is_not_there_yet_has_one_holder(tmp_path: Path) -> None:
    """Two imports or two first starts at once: there is no file to be locked by its inode, and the lock file counts."""
    database = tmp_path / "new.db"
    with lock.exclusive(database, purpose="import") as held:
        assert held.database is None
        assert "passbook import" in str(lock.holder(database))
        with pytest.raises(lock.DatabaseInUse, match="passbook import"), lock.exclusive(database):
            raise AssertionError
    with lock.exclusive(database):
        assert not database.exists()
