#!/usr/bin/env python3
"""Checks an export of Passbook's audit log without Passbook: Python 3.9 or newer and the package cryptography.

Written from the format in README.md beside it, and shares no code with the service or with verify.mjs.

    passbook audit export --sealed | python3 verify.py --key "$KEY" --checkpoint july.checkpoint
    python3 verify.py log.ndjson --key "$KEY" --checkpoint june.checkpoint --checkpoint july.checkpoint \
        --receipts receipts.txt --proof row-1042.tlog-proof
    python3 verify.py --proof row-1042.tlog-proof --key "$KEY"
    python3 verify.py --vectors vectors.json

Exit code 0: sound. 1: tampered with; the first row that is not as it was is named. 2: it cannot be told.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import struct
import sys
import time
import traceback

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    print("UNREADABLE: the package cryptography is missing: pip install cryptography")
    sys.exit(2)

SOUND, TAMPERED, UNREADABLE = 0, 1, 2

COLUMNS = [
    "id", "user_id", "resource_id", "created_at", "request_id", "telegram_id", "details",
    "action", "resource_type", "ip_address", "user_agent", "actor", "key_prefix", "outcome",
]  # fmt: skip
NAMES = COLUMNS[7:]
SEALED = {"leaf_index", *COLUMNS, "salt", "public_details", "leaf"}
RULES = {1, 2, 3}  # a line that names none is of rule 1
HEADER = {"passbook_audit_export", "first_index", "previous_leaf", "frontier"}
EXACT = 2**53 - 1
LINE_MAX = 64 * 1024 * 1024
NOTE_MAX = 1_000_000


class Unreadable(Exception):
    """What was given is not in the format, or cannot be used."""


class Tampered(Exception):
    """What was given is in the format and is not what was sealed or signed."""


def sha256(data):
    return hashlib.sha256(data).digest()


# The bytes of a row.


class Real(bytes):
    """The 8 bytes of a REAL."""


INTEGER, SIZE = struct.Struct(">q").pack, struct.Struct(">I").pack


def field(value):
    if value is None:
        return b"\x00"
    if isinstance(value, str):
        text = value.encode("utf-8")
        return b"\x03" + SIZE(len(text)) + text
    if isinstance(value, int):
        return b"\x01" + INTEGER(value)
    if isinstance(value, Real):
        return b"\x02" + value
    return b"\x04" + SIZE(len(value)) + value


def commitment_bytes(salt, telegram_id, details):
    return b"\x02" + salt + field(telegram_id) + field(details)


def leaf_bytes(previous, commitment, row):
    public = row["public_details"]
    return b"".join(
        [
            bytes([0, row["rule"]]),
            previous,
            commitment,
            *[field(row[name]) for name in ("id", "user_id", "resource_id", "created_at", "request_id")],
            field(row["details"]) if public is None else b"\x05" + public,
            *[field(row[name]) for name in NAMES],
        ]
    )


def commitment_of(row):
    """Raises Tampered where an erased row still has what it should not, or has lost what was left of it."""
    if row["salt"] is not None:
        return sha256(commitment_bytes(row["salt"], row["telegram_id"], row["details"]))
    if row["telegram_id"] is not None:
        raise Tampered("its personal values are erased, yet it has a telegram_id")
    public, details = row["public_details"], row["details"]
    if public is not None and (not isinstance(details, str) or sha256(details.encode("utf-8")) != public):
        raise Tampered("what is left of its details after the erasure was changed")
    return row["commitment"]


# The lines of an export.


def members_of(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable("a member is there twice")
    return members


def no_fraction(_):
    raise Unreadable("a number is not an integer")


DECODER = json.JSONDecoder(object_pairs_hook=members_of, parse_float=no_fraction, parse_constant=no_fraction)


def read_object(line):
    if not line.endswith(b"\n"):
        raise Unreadable("the line does not end in a line feed: the file was cut")
    if not line.startswith(b"{") or not line.endswith(b"}\n"):
        raise Unreadable("the line is not one JSON object and a line feed")
    try:
        return DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the line is not JSON: {error}") from error


def require_members(members, names):
    missing, more = names - members.keys(), members.keys() - names
    if missing:
        raise Unreadable(f'"{min(missing)}" is missing')
    if more:
        raise Unreadable(f'"{min(more)}" does not belong there')


def count(value, name):
    if type(value) is not int or not 0 <= value <= EXACT:
        raise Unreadable(f"{name} is not a number from 0 on")
    return value


HEX, SURROGATE = re.compile("(?:[0-9a-f]{2})*"), re.compile("[\ud800-\udfff]")


def unhex(text, length, name):
    if not isinstance(text, str) or not HEX.fullmatch(text):
        raise Unreadable(f"{name} is not hex")
    if length is not None and len(text) != 2 * length:
        raise Unreadable(f"{name} is not {length} bytes")
    return bytes.fromhex(text)


def value_of(value, name):
    if isinstance(value, str):
        if not value.isascii() and SURROGATE.search(value):
            raise Unreadable(f"{name} is not Unicode")
        return value
    if value is None or (type(value) is int and -EXACT <= value <= EXACT):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        if kind == "integer" and isinstance(text, str) and re.fullmatch(r"-?[1-9][0-9]{0,18}", text, re.ASCII):
            number = int(text)
            if abs(number) > EXACT and -(2**63) <= number < 2**63:
                return number
        if kind == "blob":
            return unhex(text, None, name)
        if kind == "real":
            real = Real(unhex(text, 8, name))
            if struct.unpack(">d", real)[0] == struct.unpack(">d", real)[0]:  # a NaN is not equal to itself
                return real
    raise Unreadable(f"{name} is not a value")


def read_row(line):
    members = read_object(line)
    erased = members.get("salt") is None
    rule = read_rule(members.pop("rule")) if "rule" in members else 1
    require_members(members, SEALED | {"commitment"} if erased else SEALED)
    row = {name: value_of(members[name], name) for name in COLUMNS}
    row["leaf_index"] = count(members["leaf_index"], "leaf_index")
    row["leaf"] = unhex(members["leaf"], 32, "leaf")
    public = members["public_details"]
    row["public_details"] = None if public is None else unhex(public, 32, "public_details")
    row["salt"] = None if erased else unhex(members["salt"], 16, "salt")
    row["commitment"] = unhex(members["commitment"], 32, "commitment") if erased else None
    row["rule"] = rule
    return row


def read_rule(value):
    if type(value) is not int or value not in RULES:
        raise Unreadable(f"a row is sealed by rule {value!r}, which this program does not know: take a newer one")
    if value == 1:
        raise Unreadable("rule 1 is written by leaving it out")
    return value


# The tree.


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


class Log:
    """The rows so far: how many, the last leaf and id, and the roots of the whole subtrees that they make up."""

    def __init__(self, size=0, previous=bytes(32), roots=()):
        self.size, self.previous, self.roots = size, previous, list(roots)
        self.last_id = None

    @classmethod
    def of_header(cls, line):
        header = read_object(line)
        if "passbook_audit_export" not in header:
            raise Unreadable("this is no sealed export: its first line does not say passbook_audit_export")
        if type(header["passbook_audit_export"]) is not int or header["passbook_audit_export"] != 1:
            raise Unreadable("this export is of another version")
        require_members(header, HEADER)
        size = count(header["first_index"], "first_index")
        previous = unhex(header["previous_leaf"], 32, "previous_leaf")
        if not isinstance(header["frontier"], list):
            raise Unreadable("frontier is not a list")
        roots = [unhex(root, 32, "frontier") for root in header["frontier"]]
        if len(roots) != bin(size).count("1"):
            raise Unreadable(f"the frontier of {size} leaves does not have {len(roots)} roots")
        if size == 0 and previous != bytes(32):
            raise Unreadable("previous_leaf is not 64 zeros, yet nothing is left out before the first row")
        return cls(size, previous, roots)

    def add(self, row):
        """Raises Tampered unless `row` comes next and is as it was sealed."""
        if row["leaf_index"] != self.size:
            raise Tampered(f"leaf {row['leaf_index']} stands where leaf {self.size} should")
        if type(row["id"]) is not int:
            raise Tampered("its id is not an integer")
        if self.last_id is not None and row["id"] <= self.last_id:
            raise Tampered(f"its id does not come after {self.last_id}, that of the row before it")
        leaf = sha256(leaf_bytes(self.previous, commitment_of(row), row))
        if leaf != row["leaf"]:
            raise Tampered("its leaf is not that of its values after the row before it: one of them was changed")
        self.previous, self.last_id = leaf, row["id"]
        position, self.size = self.size, self.size + 1
        while position & 1:
            leaf = node_hash(self.roots.pop(), leaf)
            position >>= 1
        self.roots.append(leaf)

    def root(self):
        if not self.roots:
            return sha256(b"")
        root = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            root = node_hash(left, root)
        return root


def root_of_inclusion(leaf, index, size, path):
    """RFC 9162, section 2.1.3.2."""
    if not 0 <= index < size:
        raise Tampered(f"leaf {index} is not in a tree of {size}")
    fn, sn, root = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            raise Tampered("the path is too long")
        if fn & 1 or fn == sn:
            root = node_hash(sibling, root)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = node_hash(root, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Tampered("the path is too short")
    return root


def check_consistency(first, first_root, second, second_root, proof):
    """RFC 9162, section 2.1.4.2."""
    if first > second:
        raise Tampered(f"the tree shrank from {first} leaves to {second}")
    if first in (0, second):
        if proof or first_root != (second_root if first else sha256(b"")):
            raise Tampered("the proof is too long or the roots differ")
        return
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise Tampered("the proof is too short")
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            raise Tampered("the proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if fr != first_root or sr != second_root or sn:
        raise Tampered("the proof does not lead to both roots")


# Signed notes, checkpoints, proofs and receipts.


def unbase64(text, what):
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable(f"{what} is not base64") from error
    if base64.b64encode(value).decode() != text:
        raise Unreadable(f"{what} is not base64 as it is written")
    return value


def unbase64_hash(text, what):
    value = unbase64(text, what)
    if len(value) != 32:
        raise Unreadable(f"{what} is not 32 bytes")
    return value


def decimal(text, what):
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII) or int(text) >= 2**63:
        raise Unreadable(f"{what} is not a number")
    return int(text)


def require_name(name):
    # \s is Unicode's in Python but for the four separators of ASCII, which are control characters here.
    if not name or re.search(r"[\s+\x00-\x1f]", name):
        raise Unreadable("the name of a key is empty or has a space or a plus")


def read_key(text):
    """(name, key id, kind, public key) of a verifier key."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not re.fullmatch("[0-9a-f]{8}", parts[1]):
        raise Unreadable("a key is <name>+<8 hex>+<base64>")
    name, key_id, key = parts[0], bytes.fromhex(parts[1]), unbase64(parts[2], "the key")
    require_name(name)
    if len(key) != 33 or key[0] not in (1, 4):
        raise Unreadable("the key is not one of Ed25519 (01 or 04 and 32 bytes)")
    if sha256(name.encode("utf-8") + b"\n" + key)[:4] != key_id:
        raise Unreadable("the id of the key is not that of its name and its bytes: it was mistyped or changed")
    return name, key_id, key[0], key[1:]


def open_note(note, keys):
    """(text, names of those of `keys` that signed it as a log). Raises Unreadable."""
    if len(note) > NOTE_MAX:
        raise Unreadable(f"a note has at most {NOTE_MAX} bytes")
    try:
        whole = note.decode("utf-8")
    except UnicodeError as error:
        raise Unreadable("a note is UTF-8") from error
    if re.search(r"[\x00-\x09\x0b-\x1f]", whole):
        raise Unreadable("a note has no control characters")
    text, blank, signatures = whole.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise Unreadable("a note is a text, an empty line and lines of signatures, and ends in a line feed")
    text, lines = text + "\n", signatures[:-1].split("\n")
    if len(lines) > 100:
        raise Unreadable("a note has at most 100 signatures")
    signers, logs = set(), []
    for line in lines:
        name, key_id, signature = read_signature(line)
        for key in keys:
            if key[:2] == (name, key_id) and key not in signers:
                require_signature(key, text, signature)
                signers.add(key)
                logs += [name] if key[2] == 1 else []
    if not signers:
        raise Unreadable("no key that was given has signed it")
    return text, logs


def read_signature(line):
    """(name, key id, signature)."""
    if not line.startswith("— "):
        raise Unreadable("a line of a signature begins with — and a space")
    name, _, encoded = line[2:].partition(" ")
    require_name(name)
    signature = unbase64(encoded, "a signature")
    if len(signature) < 5:
        raise Unreadable("a signature is too short")
    return name, signature[:4], signature[4:]


def require_signature(key, text, signature):
    name, _, kind, public = key
    message, at = text.encode("utf-8"), 0
    if kind == 4:  # c2sp.org/tlog-cosignature
        at, signature = int.from_bytes(signature[:8], "big"), signature[8:]
        message = b"cosignature/v1\ntime %d\n" % at + message
    try:
        if at >= 2**63:
            raise ValueError
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Unreadable(f"the signature of {name} is wrong: it or the text was changed") from error


def read_checkpoint(note, keys):
    """(origin, size, root)."""
    text, signers = open_note(note, keys)
    lines = text[:-1].split("\n")
    if len(lines) < 3 or "" in lines:
        raise Unreadable("a checkpoint has at least three lines and none is empty")
    origin, size, root = lines[:3]
    if origin not in signers:
        raise Unreadable(f"the key of {origin}, whose checkpoint it is, has not signed it")
    return origin, decimal(size, "the size"), unbase64_hash(root, "the root")


def read_proof(data, keys):
    """(index, path, size, root, leaf or None) of a .tlog-proof."""
    try:
        head, blank, note = data.decode("utf-8").partition("\n\n")
    except UnicodeError as error:
        raise Unreadable("a proof is UTF-8") from error
    lines = head.split("\n")
    if lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Unreadable("the first line is not c2sp.org/tlog-proof@v1")
    if not blank:
        raise Unreadable("the checkpoint is missing")
    leaf = None
    if lines and lines[0].startswith("extra "):
        extra = unbase64(lines.pop(0)[6:], "extra")
        leaf = extra if len(extra) == 32 else None
    if not lines or not lines[0].startswith("index "):
        raise Unreadable("the index is missing")
    index = decimal(lines.pop(0)[6:], "the index")
    if len(lines) > 63:
        raise Unreadable("the path has more than 63 hashes")
    path = [unbase64_hash(line, "a hash of the path") for line in lines]
    _, size, root = read_checkpoint(note.encode("utf-8"), keys)
    return index, path, size, root, leaf


def read_receipt(line):
    """(id, leaf) of a value of Passbook-Receipt: a dictionary of RFC 9651 with the members id and leaf."""
    text = re.sub(r"(?i)^passbook-receipt:", "", line).strip(" \t\r")
    members = members_of([member.strip(" \t").partition("=")[::2] for member in text.split(",")])
    if not re.fullmatch("[0-9]{1,15}", members.get("id", ""), re.ASCII):
        raise Unreadable("a receipt has a member id, a number")
    if not re.fullmatch(":.*:", members.get("leaf", "")):
        raise Unreadable("a receipt has a member leaf, :base64:")
    return int(members["id"]), unbase64_hash(members["leaf"][1:-1], "the leaf")


# The check.


class Evidence:
    """What was kept outside of the log, to compare it with."""

    def __init__(self, keys=(), checkpoints=(), receipts=(), proofs=()):
        self.checkpoints, self.receipts, self.proofs = {}, {}, {}
        read_keys = [read_key(key) for key in keys]
        if (checkpoints or proofs) and not read_keys:
            raise Unreadable("a checkpoint or a proof says nothing without --key, the log's verifier key")
        for path in checkpoints:
            with reading(path) as data:
                _, size, root = read_checkpoint(data, read_keys)
            self.checkpoints.setdefault(size, []).append((path, root))
        for path in proofs:
            with reading(path) as data:
                proof = read_proof(data, read_keys)
            self.proofs.setdefault(proof[0], []).append((path, proof))
        for path in receipts:
            with reading(path) as data:
                try:
                    lines = data.decode("utf-8").split("\n")
                except UnicodeError as error:
                    raise Unreadable("it is not UTF-8") from error
                for line in lines:
                    if line.strip():
                        audit_log_id, leaf = read_receipt(line)
                        self.receipts.setdefault(audit_log_id, []).append((path, leaf))


class reading:  # noqa: N801 - reads as `with reading(path)`
    """The bytes of a file; what is wrong with them is said with its name."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise Unreadable(f"{self.path}: {error.strerror}") from error

    def __exit__(self, _kind, error, _trace):
        if isinstance(error, (Unreadable, Tampered)):
            raise type(error)(f"{self.path}: {error}") from error


class Check:
    """One run over an export. `wrong` and `open` collect sentences; `open` is what could not be told."""

    def __init__(self, evidence):
        self.evidence, self.wrong, self.open, self.right = evidence, [], [], []
        self.first_id, self.first_index, self.agreed = None, 0, None

    def run(self, lines, progress):
        header = lines.readline(LINE_MAX + 1)
        if not header:
            raise Unreadable("the export is empty; even one of an empty log has a first line")
        try:
            log = Log.of_header(header)
        except Unreadable as error:
            raise Unreadable(f"line 1: {error}") from error
        self.first_index = log.size
        self.compare_root(log)
        number = 1
        while line := lines.readline(LINE_MAX + 1):
            number += 1
            try:
                if len(line) > LINE_MAX:
                    raise Unreadable(f"it has more than {LINE_MAX} bytes")
                row = read_row(line)
            except Unreadable as error:
                raise Unreadable(f"line {number}: {error}") from error
            try:
                log.add(row)
            except Tampered as error:
                self.wrong.append(f"row id {row['id']} (leaf {row['leaf_index']}, line {number}): {error}.")
                return log
            if self.first_id is None:
                self.first_id = row["id"]
            self.compare_row(row)
            self.compare_root(log)
            if number % 1024 == 0:
                progress(log.size - self.first_index)
        self.compare_end(log)
        return log

    def compare_root(self, log):
        for path, root in self.evidence.checkpoints.pop(log.size, ()):
            if root == log.root():
                self.right.append(f"the first {log.size} rows are those of {path}.")
                self.agreed = log.size
            else:
                since = f"those up to {self.agreed} are" if self.agreed else "where they begin to differ is not known"
                self.wrong.append(f"the first {log.size} rows are not those of {path}; {since}.")

    def compare_row(self, row):
        for path, leaf in self.evidence.receipts.pop(row["id"], ()):
            if leaf != row["leaf"]:
                self.wrong.append(f"row id {row['id']}: the receipt in {path} is of another row or history.")
            else:
                self.right.append(f"row id {row['id']} is that of its receipt in {path}.")
        for path, proof in self.evidence.proofs.pop(row["leaf_index"], ()):
            self.compare_proof(path, proof, row["leaf"], f"row id {row['id']}")

    def compare_proof(self, path, proof, leaf, what):
        index, siblings, size, root, told = proof
        try:
            if told not in (None, leaf):
                raise Tampered("it is of another leaf")
            if root_of_inclusion(leaf, index, size, siblings) != root:
                raise Tampered("its path does not lead to the root that was signed")
        except Tampered as error:
            self.wrong.append(f"{what}: the proof {path} does not hold: {error}.")
        else:
            self.right.append(f"{what} is in the log of {size} rows that was signed, by {path}.")

    def compare_end(self, log):
        evidence = self.evidence
        for size, checkpoints in sorted(evidence.checkpoints.items()):
            for path, _ in checkpoints:
                if size < self.first_index:
                    self.open.append(
                        f"{path} is of the first {size} rows; this export begins after {self.first_index}."
                    )
                else:
                    self.wrong.append(f"{path} is of {size} rows, but there are {log.size}: the end is missing.")
        for audit_log_id, receipts in sorted(evidence.receipts.items()):
            for path, _ in receipts:
                if self.first_index and (self.first_id is None or audit_log_id < self.first_id):
                    self.open.append(f"row id {audit_log_id}, of which {path} has a receipt, is before this export.")
                else:
                    self.wrong.append(f"row id {audit_log_id} is missing, of which {path} has a receipt.")
        for index, proofs in sorted(evidence.proofs.items()):
            for path, _ in proofs:
                if index < self.first_index:
                    self.open.append(f"leaf {index}, which {path} proves, is before this export.")
                else:
                    self.wrong.append(f"leaf {index} is missing, which {path} proves.")

    def without_export(self):
        for proofs in self.evidence.proofs.values():
            for path, proof in proofs:
                if proof[4] is None:
                    self.open.append(f"{path} does not say which leaf it is of; give the export too.")
                else:
                    self.compare_proof(path, proof, proof[4], f"leaf {proof[0]}")
        proved = {proof[4] for proofs in self.evidence.proofs.values() for _, proof in proofs}
        for audit_log_id, receipts in self.evidence.receipts.items():
            for path, leaf in receipts:
                if leaf in proved:
                    self.right.append(f"the receipt of row id {audit_log_id} in {path} is of the leaf that is proved.")
                else:
                    self.open.append(
                        f"no proof is of the leaf of row id {audit_log_id} in {path}; give the export too."
                    )


def verify(options):
    check = Check(Evidence(options.key, options.checkpoint, options.receipts, options.proof))
    log = None
    if options.export is None and options.proof and not options.checkpoint:
        check.without_export()
    else:
        stdin = options.export in (None, "-")
        try:
            with open(0 if stdin else options.export, "rb", closefd=not stdin) as lines:
                log = check.run(lines, progress_on_terminal())
        except OSError as error:
            raise Unreadable(f"{options.export or 'standard input'}: {error.strerror}") from error
        finally:
            clear_progress()
    return say(check, log, options.quiet)


def say(check, log, quiet):
    for sentence in check.wrong:
        print(f"TAMPERED: {sentence}")
    for sentence in check.open:
        print(f"UNKNOWN: {sentence}")
    if not quiet:
        for sentence in check.right:
            print(f"ok: {sentence}")
    if check.wrong:
        if log and log.last_id is not None:
            print(f"The rows fit together up to row id {log.last_id} (leaf {log.size - 1}).")
        return TAMPERED
    if check.open:
        return UNREADABLE
    if log:
        rows = log.size - check.first_index
        print(f"{rows} rows fit together. Of {log.size} leaves the root is {base64.b64encode(log.root()).decode()}")
        if check.agreed is None:
            print("No checkpoint was compared: that the log was not made anew, or cut at its end, is not proved.")
        elif check.agreed < log.size:
            print(f"The last {log.size - check.agreed} rows are newer than the newest checkpoint that was compared.")
    return SOUND


def progress_on_terminal():
    if not sys.stderr.isatty():
        return lambda _: None
    began = last = time.monotonic()

    def show(rows):
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.5:
            last = now
            print(f"\r{rows:,} rows, {rows / (now - began):,.0f} a second", end="", file=sys.stderr, flush=True)

    return show


def clear_progress():
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# The published test vectors.


def check_vectors(path):
    """Whether this program says of every vector what vectors.json says of it."""
    with reading(path) as data:
        try:
            vectors = json.loads(data)
        except ValueError as error:
            raise Unreadable("it is not JSON") from error
    failed = []
    total = 0
    for name, index, holds in vector_checks(vectors):
        total += 1
        try:
            as_published = holds()
        except (Unreadable, Tampered) as error:
            as_published, said = False, f": {error}"
        else:
            said = ""
        if not as_published:
            failed.append(f"{name}[{index}]{said}")
    for name in failed:
        print(f"FAILED: {name}")
    print(f"{total - len(failed)} of {total} vectors are as published.")
    return TAMPERED if failed else SOUND


def vector_checks(v):
    for i, c in enumerate(v["fields"]):
        yield "fields", i, lambda c=c: field(value_of(c["value"], "value")).hex() == c["bytes"]
    log = Log.of_header(v["export"]["header"].encode())
    roots = [log.root().hex()]
    for i, c in enumerate(v["export"]["rows"]):
        yield "export.rows", i, lambda c=c: row_is(log, roots, c)
    yield "roots", 0, lambda: roots == v["roots"]
    for i, c in enumerate(v["exports"]):
        yield "exports", i, lambda c=c: run_lines(c["lines"]) == ([], c["root"])
    leaves = [bytes.fromhex(c["leaf"]) for c in v["export"]["rows"]]
    tree = [bytes.fromhex(root) for root in v["roots"]]
    for i, c in enumerate(v["inclusion"]):
        yield (
            "inclusion",
            i,
            lambda c=c: (
                root_of_inclusion(leaves[c["index"]], c["index"], c["size"], hashes(c["path"])) == tree[c["size"]]
            ),
        )
    for i, c in enumerate(v["consistency"]):
        yield (
            "consistency",
            i,
            lambda c=c: (
                check_consistency(c["from"], tree[c["from"]], c["to"], tree[c["to"]], hashes(c["proof"])) is None
            ),
        )
    for i, c in enumerate(v["notes"]):
        yield "notes", i, lambda c=c: open_note(c["note"].encode(), keys_of(c))[0] == c["text"]
    for i, c in enumerate(v["checkpoints"]):
        yield (
            "checkpoints",
            i,
            lambda c=c: (
                read_checkpoint(c["note"].encode(), keys_of(c)) == (c["origin"], c["size"], bytes.fromhex(c["root"]))
            ),
        )
    for i, c in enumerate(v["proofs"]):
        yield "proofs", i, lambda c=c: proof_holds(c)
    for i, c in enumerate(v["receipts"]):
        yield "receipts", i, lambda c=c: read_receipt(c["receipt"]) == (c["id"], bytes.fromhex(c["leaf"]))
    refused = v["refused"]
    for name, attempt in (
        ("values", lambda c: value_of(c["value"], "value")),
        ("headers", lambda c: Log.of_header(given(c))),
        ("rows", lambda c: read_row(given(c))),
        ("keys", lambda c: read_key(c["key"])),
        ("notes", lambda c: open_note(given(c), keys_of(c))),
        ("checkpoints", lambda c: read_checkpoint(given(c), keys_of(c))),
        ("proofs", lambda c: proof_holds(c) or fail()),
        ("receipts", lambda c: read_receipt(c["receipt"])),
        ("inclusion", lambda c: included(c) or fail()),
        ("consistency", lambda c: check_consistency(
            c["from"], bytes.fromhex(c["from_root"]), c["to"], bytes.fromhex(c["to_root"]), hashes(c["proof"]))),
    ):  # fmt: skip
        for i, c in enumerate(refused[name]):
            yield f"refused.{name}", i, lambda attempt=attempt, c=c: refuses(attempt, c)
    for i, c in enumerate(refused["exports"]):
        yield "refused.exports", i, lambda c=c: c["row"] in "".join(run_lines(c["lines"])[0])


def given(c):
    """The bytes of a vector: as text, or as hex where they are not UTF-8."""
    return bytes.fromhex(c["hex"]) if "hex" in c else c["text"].encode()


def keys_of(c):
    return [read_key(key) for key in c["keys"]]


def hashes(texts):
    return [bytes.fromhex(text) for text in texts]


def row_is(log, roots, c):
    row = read_row(c["line"].encode())
    committed = commitment_of(row)
    sealed = leaf_bytes(log.previous, committed, row)
    personal = row["salt"] and commitment_bytes(row["salt"], row["telegram_id"], row["details"]).hex()
    log.add(row)
    roots.append(log.root().hex())
    return (committed.hex(), sealed.hex(), row["leaf"].hex(), personal) == (
        c["commitment"],
        c["leaf_bytes"],
        c["leaf"],
        c["commitment_bytes"],
    )


class Lines:
    """Lines as `Check.run` reads them."""

    def __init__(self, lines):
        self.lines = iter(lines)

    def readline(self, _limit):
        return next(self.lines, "").encode()


def run_lines(lines):
    check = Check(Evidence())
    log = check.run(Lines(lines), lambda _: None)
    return check.wrong, log.root().hex()


def proof_holds(c):
    index, path, size, root, told = read_proof(given(c), keys_of(c))
    leaf = bytes.fromhex(c["leaf"])
    return told in (None, leaf) and root_of_inclusion(leaf, index, size, path) == root


def included(c):
    leaf, root = bytes.fromhex(c["leaf"]), bytes.fromhex(c["root"])
    return root_of_inclusion(leaf, c["index"], c["size"], hashes(c["path"])) == root


def fail():
    raise Tampered("it does not hold")


def refuses(attempt, c):
    try:
        attempt(c)
    except (Unreadable, Tampered):
        return True
    return False


def main():
    parser = argparse.ArgumentParser(
        description="Check an export of Passbook's audit log.",
        epilog="Exit code 0: sound. 1: tampered with. 2: it cannot be told, or was asked wrongly.",
    )
    parser.add_argument("export", nargs="?", help="the sealed export; standard input when it is - or left out")
    parser.add_argument("--key", action="append", default=[], metavar="VKEY", help="the log's verifier key")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="a signed checkpoint")
    parser.add_argument(
        "--receipts", action="append", default=[], metavar="FILE", help="Passbook-Receipt values, a line each"
    )
    parser.add_argument("--proof", action="append", default=[], metavar="FILE", help="a .tlog-proof of one row")
    parser.add_argument("--vectors", metavar="FILE", help="check this program itself with vectors.json")
    parser.add_argument("--quiet", action="store_true", help="leave out what was found to be right")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return check_vectors(options.vectors) if options.vectors else verify(options)
    except Unreadable as error:
        print(f"UNREADABLE: {error}")
    except Tampered as error:
        print(f"TAMPERED: {error}")
        return TAMPERED
    except OSError as error:
        print(f"UNREADABLE: {error}")
    except KeyboardInterrupt:
        print("UNKNOWN: it was stopped.")
    except Exception:  # the interpreter's own exit code for it is that of a log that was tampered with
        traceback.print_exc()
    return UNREADABLE


if __name__ == "__main__":
    sys.exit(main())
