"""Signed texts about the audit log, in the formats that verifiers and witnesses of other transparency logs read.

- c2sp.org/signed-note: a text and under it a line for each signature, `— <key's name> base64(key id || signature)`.
  Keys are spelled as Go's sumdb/note does: `<name>+<key id, hex>+base64(01 || public key)` to verify with,
  `PRIVATE+KEY+<name>+<key id, hex>+base64(01 || seed)` to sign with. key id = SHA-256(name || 0A || 01 || public)[:4].
- c2sp.org/tlog-cosignature, Ed25519: the same with 04 for 01; a witness signs a checkpoint together with the time.
- c2sp.org/tlog-checkpoint: a note about a whole tree: its log's name (the origin), its size and its root.
- c2sp.org/tlog-proof@v1: a checkpoint and the path from one leaf to its root.

Base64 is that of RFC 4648, section 4, in the one spelling that each value has there.
"""

import binascii
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
PATH_LENGTH_MAX = 63
"""Hashes in a proof: as many as a tree of 2^63 leaves is high."""
SIZE_MAX = 2**63 - 1
"""Leaves, and seconds of a cosignature."""
SEED_BYTES = 32
ED25519: Final = 1
"""The algorithm of a key that signs notes."""
COSIGNATURE: Final = 4
"""The algorithm of a key that a witness signs checkpoints with."""

_PRIVATE = "PRIVATE+KEY+"
_PROOF = "c2sp.org/tlog-proof@v1"
_SIGNATURE = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


class NoteError(ValueError):
    """A key, note, checkpoint or proof that is not well-formed or not signed as it must be. The text says why."""


class VerifierKey(Struct, frozen=True):
    """What a signature is verified with. key_id: 4 bytes; algorithm: ED25519 or COSIGNATURE; public: 32 bytes."""

    name: str
    key_id: bytes
    algorithm: int
    public: bytes

    def text(self) -> str:
        """The key as `read_verifier_key` reads it; public."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([self.algorithm]) + self.public)}"


class SigningKey:
    """A key to sign with. Its repr shows the public half only."""

    __slots__ = ("_private", "verifier")

    def __init__(self, verifier: VerifierKey, private: Ed25519PrivateKey) -> None:
        self.verifier = verifier
        self._private = private

    def __repr__(self) -> str:
        return f"SigningKey({self.verifier.text()})"

    def text(self) -> str:
        """The key as `read_signing_key` reads it: a secret."""
        key = self.verifier
        secret = bytes([key.algorithm]) + self._private.private_bytes_raw()
        return f"{_PRIVATE}{key.name}+{key.key_id.hex()}+{_base64(secret)}"

    def signature(self, message: bytes) -> bytes:
        """64 bytes, always the same for the same `message`."""
        return self._private.sign(message)


class Note(Struct, frozen=True):
    """A note of which at least one signature was verified. signers: by whom, in the order of their lines."""

    text: str
    signers: tuple[VerifierKey, ...]


class Checkpoint(Struct, frozen=True):
    """What a log signs about itself: at `size` leaves its root was `root`, 32 bytes. extensions: further lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text to be signed."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, _base64(self.root), *self.extensions))


class InclusionProof(Struct, frozen=True):
    """That a leaf is in the log: `path` leads from leaf `index` to the root in `checkpoint`, a signed note.

    path: 32 bytes each, as `audit_chain.inclusion_proof` gives them. extra: signed by nobody.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def text(self) -> str:
        """The proof as a .tlog-proof file holds it."""
        extra = "" if self.extra is None else f"extra {_base64(self.extra)}\n"
        path = "".join(f"{_base64(sibling)}\n" for sibling in self.path)
        return f"{_PROOF}\n{extra}index {self.index}\n{path}\n{self.checkpoint}"


def make_signing_key(name: str, seed: bytes, *, algorithm: int = ED25519) -> SigningKey:
    """The key of `seed`, SEED_BYTES random bytes. Raises NoteError for a name that cannot stand in a signature."""
    _require_name(name)
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    return SigningKey(VerifierKey(name, _key_id(name, algorithm, public), algorithm, public), private)


def read_signing_key(text: str) -> SigningKey:
    """The key that `SigningKey.text` gives. Raises NoteError, which does not repeat the key."""
    if not text.startswith(_PRIVATE):
        raise NoteError(f"a signing key begins with {_PRIVATE}")
    name, key_id, algorithm, seed = _read_key(text.removeprefix(_PRIVATE))
    key = make_signing_key(name, seed, algorithm=algorithm)
    _require_key_id(key.verifier, key_id)
    return key


def read_verifier_key(text: str) -> VerifierKey:
    """The key that `VerifierKey.text` gives. Raises NoteError."""
    if text.startswith(_PRIVATE):
        raise NoteError("this is a signing key; to verify with there is its public half")
    name, key_id, algorithm, public = _read_key(text)
    key = VerifierKey(name, _key_id(name, algorithm, public), algorithm, public)
    _require_key_id(key, key_id)
    return key


def _read_key(text: str) -> tuple[str, str, int, bytes]:
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise NoteError("a key is <name>+<key id>+<base64>")
    name, key_id, encoded = parts
    _require_name(name)
    if not _KEY_ID.fullmatch(key_id):
        raise NoteError("a key's id is 8 digits, 0-9 and a-f")
    key = _from_base64(encoded, "the key")
    if key[:1] not in {bytes([ED25519]), bytes([COSIGNATURE])}:
        raise NoteError(f"keys of kind {key[:1].hex() or 'none'} are not supported, only 01 and 04 (Ed25519)")
    if len(key) != 33:
        raise NoteError(f"an Ed25519 key has 32 bytes, not {len(key) - 1}")
    return name, key_id, key[0], key[1:]


def _key_id(name: str, algorithm: int, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:4]


def _require_key_id(key: VerifierKey, key_id: str) -> None:
    if key.key_id.hex() != key_id:
        raise NoteError(f"the id of the key {key.name} is {key.key_id.hex()}, not {key_id}: it was changed or mistyped")


def _require_name(name: str) -> None:
    if not name or "+" in name or any(c.isspace() for c in name) or _CONTROL.search(name) or not _is_unicode(name):
        raise NoteError("a key's name is not empty and has no spaces, no plus and no control characters")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def sign(text: str, key: SigningKey) -> str:
    """The note of `text`. Raises NoteError when `text` does not end in a newline or holds what a note may not."""
    if key.verifier.algorithm != ED25519:
        raise NoteError(f"{key.verifier.name} is the key of a witness; it signs checkpoints of others")
    _require_text(text)
    return f"{text}\n{_signature_line(key, key.signature(text.encode()))}"


def cosign(note: str, key: SigningKey, *, now_s: int) -> str:
    """The signature line of a witness under `note`, a verified checkpoint; now_s: seconds since 1970.

    Raises NoteError.
    """
    if key.verifier.algorithm != COSIGNATURE:
        raise NoteError(f"{key.verifier.name} is no witness's key (04)")
    text, _ = _split(note)
    return _signature_line(key, now_s.to_bytes(8) + key.signature(_cosigned(text, now_s)))


def _signature_line(key: SigningKey, signature: bytes) -> str:
    return f"{_SIGNATURE}{key.verifier.name} {_base64(key.verifier.key_id + signature)}\n"


def _cosigned(text: str, now_s: int) -> bytes:
    return f"cosignature/v1\ntime {now_s}\n{text}".encode()


def open_note(note: str | bytes, keys: Iterable[VerifierKey]) -> Note:
    """The text of `note` and who of `keys` signed it. Signatures of other keys are passed over.

    Raises NoteError when it is malformed, when a signature of one of `keys` is wrong, or when none has signed.
    """
    known = {(key.name, key.key_id): key for key in keys}
    text, lines = _split(note)
    signers: dict[VerifierKey, None] = {}
    for line in lines:
        name, key_id, signature = _read_signature(line)
        key = known.get((name, key_id))
        if key is None or key in signers:
            continue
        if not _is_signature(key, text, signature):
            raise NoteError(f"the signature of {name}+{key_id.hex()} is wrong: the text or the signature was changed")
        signers[key] = None
    if not signers:
        raise NoteError("none of its signatures is of a key that is trusted here")
    return Note(text, tuple(signers))


def _split(note: str | bytes) -> tuple[str, list[str]]:
    """The text and the lines of signatures."""
    try:
        text = note.decode() if isinstance(note, bytes) else note
        size = len(text.encode())
    except UnicodeError as error:
        raise NoteError("a note is UTF-8") from error
    if size > NOTE_BYTES_MAX:
        raise NoteError(f"a note has at most {NOTE_BYTES_MAX} bytes, not {size}")
    _require_text(text)
    text, blank, signatures = text.rpartition("\n\n")
    if not blank or not signatures:
        raise NoteError("there are no signatures: a note is a text, an empty line, and a line for each signature")
    lines = signatures.removesuffix("\n").split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteError(f"a note has at most {SIGNATURES_MAX} signatures, not {len(lines)}")
    return text + "\n", lines


def _require_text(text: str) -> None:
    control = _CONTROL.search(text)
    if control:
        raise NoteError(f"a note has no control characters; U+{ord(control[0]):04X} is one")
    if not _is_unicode(text):
        raise NoteError("a note is UTF-8")
    if not text.endswith("\n"):
        raise NoteError("the last line does not end in a newline")


def _read_signature(line: str) -> tuple[str, bytes, bytes]:
    if not line.startswith(_SIGNATURE):
        raise NoteError("a signature is a line: —, a space, the key's name, a space, base64")
    name, _, encoded = line.removeprefix(_SIGNATURE).partition(" ")
    _require_name(name)
    signature = _from_base64(encoded, f"the signature of {name}")
    if len(signature) < 5:
        raise NoteError(f"the signature of {name} is too short")
    return name, signature[:4], signature[4:]


def _is_signature(key: VerifierKey, text: str, signature: bytes) -> bool:
    message = text.encode()
    if key.algorithm == COSIGNATURE:
        now_s, signature = int.from_bytes(signature[:8]), signature[8:]
        if now_s > SIZE_MAX:
            return False
        message = _cosigned(text, now_s)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's `text`. Raises NoteError."""
    lines = text.split("\n")
    if lines.pop() != "":
        raise NoteError("the last line does not end in a newline")
    if len(lines) < 3 or "" in lines:
        raise NoteError("a checkpoint has at least three lines and none is empty: origin, size, root")
    origin, size, root, *extensions = lines
    return Checkpoint(origin, _read_number(size, "the size"), _read_hash(root, "the root"), tuple(extensions))


def open_checkpoint(note: str | bytes, keys: Iterable[VerifierKey]) -> Checkpoint:
    """The checkpoint in `note`, signed by a key of `keys` that has its origin for a name. Raises NoteError.

    So that one key never speaks for another log.
    """
    opened = open_note(note, keys)
    checkpoint = read_checkpoint(opened.text)
    if not any(key.name == checkpoint.origin and key.algorithm == ED25519 for key in opened.signers):
        raise NoteError(f"it is a checkpoint of {checkpoint.origin}, which {opened.signers[0].name} does not sign for")
    return checkpoint


def read_proof(text: str | bytes) -> InclusionProof:
    """The proof of a .tlog-proof file; its checkpoint is not verified yet. Raises NoteError."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeError as error:
        raise NoteError("a proof is UTF-8") from error
    head, blank, checkpoint = text.partition("\n\n")
    first, *lines = head.split("\n")
    if first != _PROOF:
        raise NoteError(f"the first line of a proof is {_PROOF}")
    if not blank:
        raise NoteError("the checkpoint is missing: it follows an empty line")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = _from_base64(lines.pop(0).removeprefix("extra "), "extra")
    if not lines or not lines[0].startswith("index "):
        raise NoteError("the line index is missing")
    index = _read_number(lines.pop(0).removeprefix("index "), "index")
    if len(lines) > PATH_LENGTH_MAX:
        raise NoteError(f"a path has at most {PATH_LENGTH_MAX} hashes, not {len(lines)}")
    return InclusionProof(index, tuple(_read_hash(line, "a hash of the path") for line in lines), checkpoint, extra)


def _read_number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > SIZE_MAX:
        raise NoteError(f"{what} is a whole number up to {SIZE_MAX} without leading zeros, not {text[:40]!r}")
    return int(text)


def _read_hash(text: str, what: str) -> bytes:
    value = _from_base64(text, what)
    if len(value) != 32:
        raise NoteError(f"{what} has 32 bytes, not {len(value)}")
    return value


def base64_hashes(hashes: Sequence[bytes]) -> list[str]:
    """`hashes` as JSON carries them."""
    return [_base64(value) for value in hashes]


def hashes_of_base64(texts: Sequence[str]) -> list[bytes]:
    """What `base64_hashes` was given. Raises NoteError."""
    return [_read_hash(text, "a hash of the proof") for text in texts]


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _from_base64(text: str, what: str) -> bytes:
    try:
        value = binascii.a2b_base64(text.encode(), strict_mode=True)
    except (binascii.Error, UnicodeError) as error:
        raise NoteError(f"{what} is not base64") from error
    if _base64(value) != text:
        raise NoteError(f"{what} is not base64 as it is written: its last character or padding differs")
    return value
