"""The key that signs the audit log's checkpoints, and the last one signed: two files that are no part of the database.

So somebody who can change only the database cannot forge a checkpoint. If an earlier state of the database is put in
its place, this is found: nothing is signed that does not continue what was signed before.
"""

import contextlib
import os
import threading
from pathlib import Path

from service.ledger import notes
from service.ledger.audit_chain import check_consistency, consistency_proof, root_at
from service.ledger.notes import Checkpoint, NoteError, SigningKey
from service.storage import audit_chain, private_files, sqlite
from service.storage.audit_chain import Tree
from service.storage.sqlite import Connection

_LAST_SUFFIX = ".checkpoint"
_ORIGIN_BYTES = 4


class KeyUnusable(Exception):
    """The signing key cannot be read or made. The text says why and what to do."""


class Contradiction(Exception):
    """The audit log is not what was signed. The text says in what."""


class Signer:
    """Signs trees, each a continuation of the one before. Lifetime: any; one for each key file at a time.

    made: whether the key is new.
    """

    def __init__(self, file: Path, key: SigningKey, last: Checkpoint | None, note: str, *, made: bool) -> None:
        self.key = key
        self.last = last
        self.made = made
        self.last_file = last_file_of(file)
        self._note = note
        self._turn = threading.Lock()

    @classmethod
    def open(cls, file: Path, *, origin: str = "") -> "Signer":
        """The signer of the key in `file`. Where there is no file the key is made, for a log of the name `origin`.

        Raises KeyUnusable.
        """
        try:
            made = not file.exists()
            if made:
                require_not_lost(file)
            key = _make(file, origin) if made else notes.read_signing_key(file.read_text("utf-8").strip())
        except (OSError, UnicodeError, NoteError) as error:
            raise KeyUnusable(f"{file} is no key to sign the audit log with: {_said(error)}.") from error
        if origin and key.verifier.name != origin:
            raise KeyUnusable(f"The key in {file} is that of the log {key.verifier.name}, not of {origin}.")
        signer = cls(file, key, None, "", made=made)
        signer._read_last()
        return signer

    def _read_last(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                self._note = self.last_file.read_text("utf-8")
                self.last = notes.open_checkpoint(self._note, [self.key.verifier])
            except (NoteError, UnicodeError) as error:
                raise KeyUnusable(f"{self.last_file} holds no checkpoint of this key: {_said(error)}.") from error

    def check(self, tx: Connection) -> Tree:
        """The tree as it stands: what its leaves and nodes make up. Raises Contradiction when it is not, or does not
        continue the last one that was signed.
        """
        tree, last, node = audit_chain.tree(tx), self.last, audit_chain.nodes(tx)
        if last is not None and tree.size < last.size:
            raise Contradiction(f"it has {tree.size:,} rows, and had {last.size:,} when its last checkpoint was signed")
        try:
            root = tree.root()
            proof = consistency_proof(last.size, tree.size, node) if last is not None and last.size else []
            if last is not None:
                check_consistency(last.size, last.root, tree.size, root, proof)
            if root_at(tree.size, node) != root:
                raise Contradiction("its tree is not that of its leaves; `passbook audit verify` names the first row")
        except (LookupError, ValueError) as error:
            raise Contradiction(f"it does not continue the last checkpoint that was signed: {error}") from error
        return tree

    def sign(self, tree: Tree) -> str:
        """The signed note of `tree`, which `check` gave; on disk before it is returned. Raises OSError.

        From any thread. Where a larger tree was signed since, by somebody who did not wait for this one, it stays the
        last, and its note is returned.
        """
        with self._turn:
            if self.last is None or tree.size > self.last.size:
                checkpoint = Checkpoint(self.key.verifier.name, tree.size, tree.root())
                note = notes.sign(checkpoint.text(), self.key)
                private_files.write(self.last_file, note.encode())
                self.last, self._note = checkpoint, note
            return self._note


def last_file_of(key_file: Path) -> Path:
    """Where the last checkpoint lies that was signed with the key in `key_file`."""
    return key_file.with_name(key_file.name + _LAST_SUFFIX)


def require_not_lost(file: Path) -> None:
    """Raises KeyUnusable where the key in `file` has signed and is gone: no new one could go on from there."""
    last = last_file_of(file)
    if last.exists():
        raise KeyUnusable(
            f"{file} is not there, and {last.name} was signed with it: put it back from a backup. To go on with a new"
            f" key, on record as another log, move {last.name} away."
        )


def _make(file: Path, origin: str) -> SigningKey:
    name = origin or f"passbook-{os.urandom(_ORIGIN_BYTES).hex()}"
    key = notes.make_signing_key(name, os.urandom(notes.SEED_BYTES))
    sqlite.make_folder(file.parent)
    private_files.write(file, f"{key.text()}\n".encode())
    return key


def _said(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
