"""Makes docs/audit-log/vectors.json: `python -m tests.audit.vectors` writes it anew, always the same."""

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.ledger.audit_chain import (
    EMPTY_ROOT,
    NO_LEAF,
    Frontier,
    commitment,
    consistency_proof,
    field,
    inclusion_proof,
    joined,
    leaf_hash,
    public_details,
)
from service.ledger.audit_export import header_line, row_line
from service.ledger.notes import COSIGNATURE, Checkpoint, InclusionProof, cosign, make_signing_key, sign
from service.ledger.sealing_rules import RULES
from tests.audit.log import DETAILS, TELEGRAM_ID, export_lines, sealed_rows
from tests.live import CHECKOUT

FILE = CHECKOUT / "docs" / "audit-log" / "vectors.json"
ORIGIN = "passbook.example/log"
LOG = make_signing_key(ORIGIN, sha256(b"the log's key of the test vectors").digest())
STRANGER = make_signing_key(ORIGIN, sha256(b"a stranger's key of the test vectors").digest())
WITNESS = make_signing_key("witness.example/w1", sha256(b"a witness's key").digest(), algorithm=COSIGNATURE)

# golang.org/x/mod/sumdb/note and c2sp.org/signed-note publish these.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = (
    f"{PETER_TEXT}\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_TEXT = "This is an example message.\n"
FOO_NOTE = (
    f"{FOO_TEXT}\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)

VALUES: list[Any] = [
    None,
    0,
    1,
    -1,
    2**53 - 1,
    -(2**53) + 1,
    2**53,
    -(2**53),
    2**63 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    1.5,
    5e-324,
    float("inf"),
    "",
    "0",
    "통장",
    "\u00e9",
    "e\u0301",
    "a\x00b",
    "\u2028\u202e\ufeff\U0001f4b0\uffff",
    '\t\n\r"\\/\x7f',
    b"",
    b"0",
    b"\x00\xff",
]


def row(audit_log_id: int, **values: Any) -> list[Any]:
    """A row of COLUMNS with nothing but an id and an action, and `values`."""
    names = (
        ("user_id", None),
        ("resource_id", None),
        ("created_at", None),
        ("request_id", None),
        ("telegram_id", None),
        ("details", None),
        ("action", "x"),
        ("resource_type", None),
        ("ip_address", None),
        ("user_agent", None),
        ("actor", None),
        ("key_prefix", None),
        ("outcome", None),
    )
    assert values.keys() <= dict(names).keys()
    return [audit_log_id, *(values.get(name, default) for name, default in names)]


USUAL = {
    "user_id": 7,
    "resource_id": 1042,
    "created_at": "2026-01-19 12:00:00.123",
    "request_id": "0198f0a2-7c11-7e3a-9a51-2f4a2b8d9c01",
    "telegram_id": "123456789",
    "details": '{"amount":10000,"balance_before":0,"balance_after":10000}',
    "action": "deposit_confirmed",
    "resource_type": "deposit_transaction",
    "ip_address": "10.0.0.1",
    "user_agent": "passbook-bot/1.4",
    "actor": "service",
    "key_prefix": "pbk_3fJ9a2Qx",
    "outcome": "success",
}
PERSONAL = '{"amount":10000,"depositor_name":"홍길동","scopes":["a"],"history":[{"memo":1}]}'
RENAMED = '{"name":"bot","prefix":"pbk_3fJ9a2Qx","scopes":["a"],"scopes_before":["a","b"]}'
ROWS = [
    row(1),
    row(2, **USUAL),
    row(3, **{**USUAL, "details": PERSONAL}),
    row(5, **{**USUAL, "actor": "caf\u00e9", "user_agent": "\ud55c\uae00"}),
    row(6, **{**USUAL, "actor": "cafe\u0301", "user_agent": "\u1112\u1161\u11ab\u1100\u1173\u11af"}),
    row(7, **{**USUAL, "user_agent": '\U0001f4b0 a\x00b \u2028\u202e\ufeff\t\n\r"\\/\x7f'}),
    row(8, user_id=1.5, resource_id=-0.0, created_at=1768824000.5, request_id=1.0),
    row(9, user_id=float("inf"), created_at=1768824000, telegram_id=123456789, details=5),
    row(10, telegram_id=b"123", details=b'{"amount":1}', resource_type=b"", actor=b"\x00\xff"),
    row(11, user_id=2**63 - 1, resource_id=-(2**63)),
    row(12, user_id=2**53 - 1, resource_id=2**53),
    row(13, user_id=-(2**53) + 1, resource_id=-(2**53)),
    row(20, details="{not JSON", telegram_id=""),
    row(21, details='["amount"]'),
    row(22, details=""),
    row(23, details="null"),
    row(24, **{**USUAL, "details": PERSONAL}),
    row(25, **USUAL),
    row(26, **{**USUAL, "details": "somebody's name"}),
    row(27, **{**USUAL, "details": None}),
    row(28, **{**USUAL, "user_agent": "x" * 300, "details": '{"memo":"' + "나" * 100 + '"}'}),
    row(2**53 - 1, **USUAL),
    row(2**53, **USUAL),
    row(2**63 - 1, **USUAL),
]
ERASED = {16, 17, 18, 19}
FIRST_KEPT = 11
"""Where the export begins from which the oldest rows were archived."""


def vectors() -> dict[str, Any]:
    """What the file holds."""
    log = sealed_rows(ROWS, ERASED)
    size = len(log)
    leaves = [sealed[-1] for sealed in log]
    roots = [root_of(leaves[:count]) for count in range(size + 1)]
    checkpoints = {count: Checkpoint(ORIGIN, count, roots[count]) for count in (0, 1, 17, size)}
    notes = {count: sign(checkpoint.text(), LOG) for count, checkpoint in checkpoints.items()}
    sizes = sorted({1, 2, 3, 4, 7, 8, 13, 16, 17, size})
    return {
        "about": "Test vectors of the audit log's format; README.md beside this file says what each list is.",
        "format": 1,
        "keys": {
            "log": {"signing": LOG.text(), "verifier": LOG.verifier.text()},
            "witness": {"signing": WITNESS.text(), "verifier": WITNESS.verifier.text()},
        },
        "fields": [{"value": json_of(value), "bytes": field(value).hex()} for value in VALUES],
        "rules": [
            {"rule": number, "public_members": sorted(rule.public_members)}
            | {"ledger_resource_types": sorted(rule.ledger_resource_types)}
            for number, rule in RULES.items()
        ],
        "public_details": [
            {"rule": rule, "resource_type": resource_type, "actor": actor, "details": json_of(details)}
            | {"public": public_details(details, rule=rule, resource_type=resource_type, actor=actor)}
            for rule in RULES
            for resource_type, actor in (
                ("deposit_transaction", "service"),
                ("import_archive", "cli:ops"),
                ("deposit_transaction", None),
                ("basket", "service"),
            )
            for details in dict.fromkeys([*(sealed[DETAILS] for sealed in ROWS), RENAMED])
        ],
        "export": {
            "header": text(export_lines(log)[0]),
            "rows": [row_vector(index, sealed) for index, sealed in enumerate(log)],
        },
        "roots": [root.hex() for root in roots],
        "exports": [
            {"about": about, "lines": [*map(text, lines)], "root": root.hex()}
            for about, lines, root in (
                ("an empty log", export_lines([]), EMPTY_ROOT),
                ("the oldest rows were archived", export_lines(log, FIRST_KEPT), roots[size]),
                ("nothing came after what was archived", export_lines(log, size), roots[size]),
            )
        ],
        "inclusion": [
            {"index": index, "size": count, "path": hexes(inclusion_proof(index, count, node_of(leaves)))}
            for count in sizes
            for index in sorted({0, 1, count // 2, count - 1} & set(range(count)))
        ],
        "consistency": [
            {"from": earlier, "to": later, "proof": hexes(consistency_proof(earlier, later, node_of(leaves)))}
            for later in sizes
            for earlier in sizes
            if earlier <= later
        ],
        "notes": [
            {"note": PETER_NOTE, "keys": [PETER], "text": PETER_TEXT},
            {"note": FOO_NOTE, "keys": [FOO], "text": FOO_TEXT},
            {"note": sign("an\n\nempty line\n", LOG), "keys": [LOG.verifier.text()], "text": "an\n\nempty line\n"},
            {
                "note": sign("known and unknown\n", LOG) + line_of("x", b"1234?"),
                "keys": [PETER, LOG.verifier.text()],
                "text": "known and unknown\n",
            },
            {
                "note": notes[17] + cosign(notes[17], WITNESS, now_s=1_768_824_000),
                "keys": [LOG.verifier.text(), WITNESS.verifier.text()],
                "text": checkpoints[17].text(),
            },
        ],
        "checkpoints": [
            {
                "note": note,
                "keys": [LOG.verifier.text()],
                "origin": ORIGIN,
                "size": count,
                "root": roots[count].hex(),
            }
            for count, note in [
                *notes.items(),
                (17, sign(Checkpoint(ORIGIN, 17, roots[17], ("an extension",)).text(), LOG)),
                (17, notes[17] + cosign(notes[17], WITNESS, now_s=1_768_824_000)),
            ]
        ],
        "proofs": [
            {"text": proof_of(leaves, index, count, notes[count], extra), "keys": [LOG.verifier.text()]}
            | {"leaf": leaves[index].hex()}
            for index, count, extra in ((0, 1, None), (0, 17, b""), (16, 17, leaves[16]), (5, size, leaves[5]))
        ],
        "receipts": [
            {"receipt": f"id={log[index][1]}, leaf=:{b64encode(leaves[index]).decode()}:"}
            | {"id": log[index][1], "leaf": leaves[index].hex()}
            for index in (0, 16)
        ],
        "refused": refused(log, roots, notes),
    }


def row_vector(index: int, sealed: list[Any]) -> dict[str, Any]:
    """A row as exported, and the bytes that are hashed on the way to its leaf; those of the commitment need a salt."""
    original, (salt, shown, kept, rule, _) = ROWS[index], sealed[-5:]
    personal = salt and b"\x02" + salt + field(original[TELEGRAM_ID]) + field(original[DETAILS])
    committed = sha256(personal).digest() if personal else kept
    previous = sealed_rows(ROWS[:index])[-1][-1] if index else NO_LEAF
    what = field(original[DETAILS]) if shown is None else b"\x05" + shown
    first, rest = (b"".join(map(field, values)) for values in (original[:5], original[7:]))
    leaf_bytes = bytes([0, rule]) + previous + committed + first + what + rest
    assert sha256(leaf_bytes).digest() == sealed[-1]
    return {
        "line": text(row_line(sealed)),
        "commitment_bytes": personal.hex() if personal else None,
        "commitment": committed.hex(),
        "leaf_bytes": leaf_bytes.hex(),
        "leaf": sealed[-1].hex(),
    }


def refused(log: list[list[Any]], roots: list[bytes], notes: dict[int, str]) -> dict[str, Any]:
    """What must not be taken: each list with what is wrong."""
    line, erased = text(row_line(log[1])), text(row_line(log[16]))
    header = text(export_lines(log)[0])
    key, size = LOG.verifier.text(), len(log)
    leaves = [sealed[-1] for sealed in log]
    path = inclusion_proof(5, 17, node_of(leaves))
    proof = consistency_proof(7, 17, node_of(leaves))
    good = proof_of(leaves, 5, 17, notes[17], leaves[5])
    root64 = b64encode(roots[17]).decode()
    wrong = line_of(ORIGIN, LOG.verifier.key_id + bytes(64))
    return {
        "values": [
            {"about": about, "value": value}
            for about, value in (
                ("a truth value", True),
                ("a list", []),
                ("an object with no member", {}),
                ("two kinds at once", {"blob": "", "real": "0000000000000000"}),
                ("an unknown kind", {"text": "a"}),
                ("an integer that has a spelling of its own", {"integer": "5"}),
                ("an integer as a number", {"integer": 9223372036854775000}),
                ("beyond 64 bits", {"integer": "9223372036854775808"}),
                ("beyond 64 bits, below zero", {"integer": "-9223372036854775809"}),
                ("a sign", {"integer": "+9223372036854775807"}),
                ("a leading zero", {"integer": "09223372036854775807"}),
                ("a trailing line feed", {"integer": "9223372036854775807\n"}),
                ("other digits", {"integer": "٩٢٢٣٣٧٢٠٣٦٨٥٤٧٧٥٨٠٧"}),
                ("a NaN", {"real": "7ff8000000000000"}),
                ("a signalling NaN", {"real": "fff0000000000001"}),
                ("too short a real", {"real": "3ff8"}),
                ("half a byte", {"blob": "0"}),
                ("large letters", {"blob": "FF"}),
                ("no hex", {"blob": "zz"}),
                ("null in a blob", {"blob": None}),
                ("too large a number", 9007199254740992),
                ("too small a number", -9007199254740992),
            )
        ],
        "headers": [
            {"about": about, "text": value}
            for about, value in (
                ("a row, no header", line),
                ("another version", header.replace('export":1', 'export":2')),
                ("a truth value for a version", header.replace('export":1', 'export":true')),
                ("a root too few", header.replace('first_index":0', 'first_index":1')),
                ("no index", header.replace('"first_index":0,', "")),
                ("an index below zero", header.replace('first_index":0', 'first_index":-1')),
                ("a fraction", header.replace('first_index":0', 'first_index":0.0')),
                ("an exponent", header.replace('first_index":0', 'first_index":0e0')),
                ("something more", header.replace("}", ',"x":1}')),
                ("a member twice", header.replace("}", ',"first_index":0}')),
                ("a leaf before the first", text(header_line(0, b"\x01" * 32, []))),
                ("a byte order mark", "\ufeff" + header),
                ("cut", header[:-1]),
            )
        ],
        "rows": [
            {"about": about, "text": value}
            for about, value in (
                ("empty", "\n"),
                ("cut, the line feed is missing", line[:-1]),
                ("cut within", line[:100]),
                ("cut within, with a line feed", line[:100] + "\n"),
                ("carriage return and line feed", line[:-1] + "\r\n"),
                ("a byte order mark", "\ufeff" + line),
                ("a space before", " " + line),
                ("two objects", line[:-1] + line),
                ("a list", "[" + line[:-1] + "]\n"),
                ("a member twice", line.replace('"id":2', '"id":3,"id":2')),
                ("a member twice, escaped", line.replace('"id":2', '"\\u0069d":2,"id":2')),
                ("a member more", line.replace('"id":2', '"id":2,"x":null')),
                ("a member less", line.replace('"actor":"service",', "")),
                ("__proto__", line.replace('"id":2', '"id":2,"__proto__":null')),
                ("a fraction", line.replace('"user_id":7', '"user_id":7.0')),
                ("an exponent", line.replace('"user_id":7', '"user_id":7e0')),
                ("a leading zero", line.replace('"user_id":7', '"user_id":07')),
                ("a plus", line.replace('"user_id":7', '"user_id":+7')),
                ("NaN", line.replace('"user_id":7', '"user_id":NaN')),
                ("Infinity", line.replace('"user_id":7', '"user_id":-Infinity')),
                ("rounded to a double it is 2^53", line.replace('"user_id":7', '"user_id":9007199254740993')),
                ("endless digits", line.replace('"user_id":7', f'"user_id":{"7" * 400}')),
                ("a comma too many", line.replace("}\n", ",}\n")),
                ("single quotes", line.replace('"id":2', "'id':2")),
                ("a comment", line.replace('"id":2', '/**/"id":2')),
                ("half a surrogate pair", line.replace('"bot', '"\\ud800bot').replace("passbook-bot", "\\udc00")),
                ("a bare control character", line.replace("passbook-bot", "a\tb")),
                ("an unknown escape", line.replace("passbook-bot", "\\x41")),
                ("short escape", line.replace("passbook-bot", "\\u12")),
                ("a space that JSON does not know", line.replace('"id":2', '"id":\u00a02')),
                ("deep", '{"id":' + "[" * 3000 + "]" * 3000 + "}\n"),
                ("no salt and no commitment", line.replace(f'"salt":"{log[1][-5].hex()}"', '"salt":null')),
                ("a commitment beside a salt", line.replace('"leaf":"', f'"commitment":"{"0" * 64}","leaf":"')),
                ("a salt too short", line.replace(log[1][-5].hex(), log[1][-5].hex()[2:])),
                ("a leaf in large letters", line.replace(log[1][-1].hex(), log[1][-1].hex().upper())),
                ("an erased row without its commitment", erased.replace(f'"commitment":"{log[16][-3].hex()}",', "")),
                ("a rule that there is not", line.replace('"leaf_index":1', '"rule":9,"leaf_index":1')),
                ("a rule of text", line.replace('"leaf_index":1', '"rule":"2","leaf_index":1')),
                ("a rule that is a truth value", line.replace('"leaf_index":1', '"rule":true,"leaf_index":1')),
                ("no rule, yet named", line.replace('"leaf_index":1', '"rule":null,"leaf_index":1')),
                (
                    "the first rule, which has another spelling",
                    line.replace('"leaf_index":1', '"rule":1,"leaf_index":1'),
                ),
                ("an index of text", line.replace('"leaf_index":1', '"leaf_index":"1"')),
                ("an index below zero", line.replace('"leaf_index":1', '"leaf_index":-1')),
            )
        ]
        + [
            {"about": "not UTF-8", "hex": line.encode().replace(b"passbook-bot", b"\xff").hex()},
            {"about": "half a surrogate pair in UTF-8", "hex": line.encode().replace(b"bot", b"\xed\xa0\x80").hex()},
            {"about": "overlong UTF-8", "hex": line.encode().replace(b"bot", b"\xc0\xaf").hex()},
            {"about": "UTF-16", "hex": line.encode("utf-16").hex()},
        ],
        "keys": [
            {"about": about, "key": value}
            for about, value in (
                ("another name", key.replace("log", "lag")),
                ("another id", "+".join([ORIGIN, "00000000", key.split("+", 2)[2]])),
                ("large letters", PETER.replace("c74f20a3", "C74F20A3")),
                ("cut", key[:-4]),
                ("too much padding", f"{key}="),
                ("another algorithm", "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"),
                ("a space", PETER.replace("Peter", "Peter ")),
                ("a line feed", PETER + "\n"),
                ("empty", ""),
                ("a signing key", LOG.text()),
            )
        ],
        "notes": [
            {"about": about, "text": value, "keys": [key]}
            for about, value in (
                ("no signature", "text\n"),
                ("no signature after the empty line", "text\n\n"),
                ("another text", notes[17].replace("17", "18")),
                ("a stranger's signature", sign("text\n", STRANGER)),
                ("cut", notes[17][:-1]),
                ("an empty line at its end", notes[17] + "\n"),
                ("carriage returns", notes[17].replace("\n", "\r\n")),
                ("a hyphen for the dash", notes[17].replace("— ", "- ")),
                ("two spaces", notes[17].replace("— ", "—  ")),
                ("a control character", "\x01" + sign("text\n", LOG)),
                ("an unknown signature that is no base64", notes[17] + "— x !!!!\n"),
                ("an unknown signature that is too short", notes[17] + "— x YWJj\n"),
                ("an unknown signature with loose bits", notes[17] + "— x YWJjZGV=\n"),
                ("a wrong and a right signature", f"\n\n{wrong}".join(notes[17].split("\n\n"))),
                ("101 signatures", notes[17] + line_of("x", b"1234?") * 100),
            )
        ]
        + [{"about": "not UTF-8", "hex": (b"\xff" + notes[17].encode()).hex(), "keys": [key]}],
        "checkpoints": [
            {"about": about, "text": sign(value, LOG), "keys": [key]}
            for about, value in (
                ("two lines", f"{ORIGIN}\n17\n"),
                ("another log", f"another.example/log\n17\n{root64}\n"),
                ("a leading zero", f"{ORIGIN}\n017\n{root64}\n"),
                ("below zero", f"{ORIGIN}\n-17\n{root64}\n"),
                ("other digits", f"{ORIGIN}\n١٧\n{root64}\n"),
                ("beyond 63 bits", f"{ORIGIN}\n{2**63}\n{root64}\n"),
                ("a space", f"{ORIGIN}\n17 \n{root64}\n"),
                ("a root too short", f"{ORIGIN}\n17\nAAAA\n"),
                ("a root without padding", f"{ORIGIN}\n17\n{root64[:-1]}\n"),
                ("an empty extension", f"{ORIGIN}\n17\n{root64}\n\n"),
            )
        ]
        + [
            {
                "about": "signed by a witness only",
                "text": notes[17].split("\n\n")[0] + "\n\n" + cosign(notes[17], WITNESS, now_s=1),
                "keys": [WITNESS.verifier.text()],
            }
        ],
        "proofs": [
            {"about": about, "text": value, "keys": [key], "leaf": leaf.hex()}
            for about, value, leaf in (
                ("of another leaf", good, leaves[6]),
                ("of another leaf, which it does not say", good.replace(good.split("\n")[1] + "\n", ""), leaves[6]),
                ("another index", good.replace("index 5", "index 4"), leaves[5]),
                ("an index with a leading zero", good.replace("index 5", "index 05"), leaves[5]),
                ("an index beyond the log", good.replace("index 5", "index 17"), leaves[5]),
                ("another version", good.replace("@v1", "@v2"), leaves[5]),
                ("no index", good.replace("index 5\n", ""), leaves[5]),
                ("a hash less", good.replace(good.split("\n")[3] + "\n", ""), leaves[5]),
                ("a hash more", good.replace("\n\n", f"\n{root64}\n\n", 1), leaves[5]),
                ("no checkpoint", good.split("\n\n")[0] + "\n\n", leaves[5]),
                ("a checkpoint of another size", good.split("\n\n")[0] + "\n\n" + notes[size], leaves[5]),
                ("an unsigned checkpoint", good.split("\n— ")[0] + "\n", leaves[5]),
            )
        ],
        "receipts": [
            {"about": about, "receipt": value}
            for about, value in (
                ("no id", f"leaf=:{root64}:"),
                ("no leaf", "id=1"),
                ("a leaf of text", f'id=1, leaf="{root64}"'),
                ("a leaf too short", "id=1, leaf=:AAAA:"),
                ("a leaf that is no base64", "id=1, leaf=:!!!!:"),
                ("an id twice", f"id=1, id=2, leaf=:{root64}:"),
                ("an id of text", f'id="1", leaf=:{root64}:'),
                ("below zero", f"id=-1, leaf=:{root64}:"),
            )
        ],
        "inclusion": [
            {"about": about, "leaf": leaf.hex(), "index": index, "size": count, "path": hexes(siblings)}
            | {"root": roots[17].hex()}
            for about, leaf, index, count, siblings in (
                ("another leaf", leaves[6], 5, 17, path),
                ("another index", leaves[5], 4, 17, path),
                ("another size", leaves[5], 5, 16, path),
                ("an index beyond the tree", leaves[5], 17, 17, path),
                ("too short", leaves[5], 5, 17, path[:-1]),
                ("too long", leaves[5], 5, 17, [*path, leaves[0]]),
                ("in another order", leaves[5], 5, 17, path[::-1]),
                ("a root for a leaf", roots[17], 0, 1, [leaves[0]]),
            )
        ],
        "consistency": [
            {"about": about, "from": earlier, "from_root": old.hex(), "to": later, "to_root": new.hex()}
            | {"proof": hexes(siblings)}
            for about, earlier, old, later, new, siblings in (
                ("another history", 7, roots[6], 17, roots[17], proof),
                ("another tree", 7, roots[7], 17, roots[16], proof),
                ("too short", 7, roots[7], 17, roots[17], proof[:-1]),
                ("too long", 7, roots[7], 17, roots[17], [*proof, leaves[0]]),
                ("none", 7, roots[7], 17, roots[17], []),
                ("none, from a whole subtree", 8, roots[8], 17, roots[17], []),
                ("smaller", 17, roots[17], 7, roots[7], proof),
                ("the same size and another root", 17, roots[16], 17, roots[17], []),
                ("the same, with a proof", 17, roots[17], 17, roots[17], [leaves[0]]),
                ("nothing, which had a root", 0, roots[1], 17, roots[17], []),
            )
        ],
        "exports": [{"about": about, "lines": lines, "row": said} for about, lines, said in tampered(log)],
    }


def tampered(log: list[list[Any]]) -> list[tuple[str, list[str], str]]:
    """Exports in which something was changed, and what must be said of the first row that is not as it was."""
    lines = [*map(text, export_lines(log))]
    edited = [*log[4]]
    edited[2] = 8
    committed = commitment(edited[-5], edited[6], edited[7])
    resealed = [*edited[:-1], leaf_hash(log[3][-1], committed, None, edited[1:15], rule=edited[-2])]
    of_first, of_second = [*log[4][:-2], 1, log[4][-1]], [*log[1][:-2], 2, log[1][-1]]
    named, renamed, swapped = [*log[16]], [*log[18]], [*log]
    named[1 + TELEGRAM_ID] = "123456789"
    renamed[1 + DETAILS] = "{}"
    swapped[6], swapped[7] = [6, *log[7][1:]], [7, *log[6][1:]]

    def put(at: int, sealed: list[Any]) -> list[str]:
        return [*lines[: at + 1], text(row_line(sealed)), *lines[at + 2 :]]

    pruned = [*map(text, export_lines(log, FIRST_KEPT))]
    return [
        ("a value was edited", put(4, edited), "row id 6 (leaf 4"),
        ("a value was edited and its leaf made anew", put(4, resealed), "row id 7 (leaf 5"),
        ("a row was deleted", lines[:5] + lines[6:], "row id 7 (leaf 5"),
        ("a row is there twice", [*lines[:6], lines[5], *lines[6:]], "row id 6 (leaf 4"),
        ("two rows changed places", [*map(text, export_lines(swapped))], "row id 9 (leaf 6"),
        ("an id goes back", put(8, [8, 8, *log[8][2:]]), "row id 8 (leaf 8"),
        ("an id that is a real", put(4, [4, 6.0, *log[4][2:]]), "(leaf 4"),
        ("NFC became NFD", put(3, [*log[3][:12], "cafe\u0301", *log[3][13:]]), "row id 5 (leaf 3"),
        ("text became a blob", put(1, [*log[1][:12], b"service", *log[1][13:]]), "row id 2 (leaf 1"),
        ("an integer became text", put(1, [*log[1][:2], "7", *log[1][3:]]), "row id 2 (leaf 1"),
        ("null became an empty text", put(0, [*log[0][:3], "", *log[0][4:]]), "row id 1 (leaf 0"),
        ("the rule of a row was left out", put(4, of_first), "row id 6 (leaf 4"),
        ("the rule of a row was put in", put(1, of_second), "row id 2 (leaf 1"),
        ("a name was put back into an erased row", put(16, named), "row id 24 (leaf 16"),
        ("what was left of an erased row was edited", put(18, renamed), "row id 26 (leaf 18"),
        ("the leaf before the first row is another one",
         [pruned[0].replace(log[FIRST_KEPT - 1][-1].hex(), "11" * 32), *pruned[1:]], "row id 13 (leaf 11"),
    ]  # fmt: skip


def proof_of(leaves: list[bytes], index: int, size: int, note: str, extra: bytes | None) -> str:
    """A .tlog-proof file."""
    return InclusionProof(index, tuple(inclusion_proof(index, size, node_of(leaves))), note, extra).text()


def node_of(leaves: list[bytes]) -> Any:
    """The function that proofs ask for subtrees."""
    return lambda level, position: root_of(leaves[position << level : (position + 1) << level])


def root_of(leaves: list[bytes]) -> bytes:
    """The root of a tree."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return joined(frontier.roots)


def json_of(value: Any) -> Any:
    """`value` as a line of the export writes it."""
    (sealed,) = sealed_rows([row(1)])
    sealed[1 + DETAILS] = value
    return json.loads(row_line(sealed))["details"]


def line_of(name: str, signature: bytes) -> str:
    """A line of a signature, whatever it is."""
    return f"— {name} {b64encode(signature).decode()}\n"


def text(line: bytes) -> str:
    """A line as a text."""
    return line.decode()


def hexes(hashes: list[bytes]) -> list[str]:
    """Hashes as hex."""
    return [value.hex() for value in hashes]


def rendered() -> str:
    """The file's text."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    Path(FILE).write_text(rendered(), "utf-8")
