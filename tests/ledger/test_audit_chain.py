"""The audit log's tree against RFC 6962 as it is written there, and the fast way against the plain one."""

import contextlib
import json
import struct
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.ledger.audit_chain import (
    COLUMNS,
    EMPTY_ROOT,
    NO_LEAF,
    Fault,
    Frontier,
    ProofError,
    Verifier,
    check_consistency,
    commitment,
    consistency_proof,
    field,
    inclusion_proof,
    leaf_hash,
    node_hash,
    public_details,
    root_at,
    root_of_inclusion,
    seal,
    subtrees,
)
from service.ledger.sealing_rules import LATEST, RULES
from tests.audit.log import sealed_rows, usual_rows
from tests.some import some

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.none() | INTEGERS | st.floats(allow_nan=False) | TEXTS | st.binary(max_size=12)
HASHES = st.binary(min_size=32, max_size=32)


def leaves_of(count: int) -> list[bytes]:
    return [sha256(b"leaf %d" % index).digest() for index in range(count)]


# RFC 6962, section 2.1, word for word; k is the largest power of two smaller than n.


def split(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def node_of(leaves: list[bytes]) -> Any:
    return lambda level, position: mth(leaves[position << level : (position + 1) << level])


SIZES = st.integers(1, 300)


@given(st.integers(0, 600), st.data())
def test_a_frontier_has_the_rfcs_root_however_it_is_fed(size: int, data: st.DataObject) -> None:
    """Leaf by leaf, in parts, or stored and taken up again."""
    leaves = leaves_of(size)
    one, parts = Frontier(), Frontier()
    completed, told = [], []
    for leaf in leaves:
        completed += one.append(leaf)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    for start, end in pairwise([0, *cuts, size]):
        parts.extend(leaves[start:end], lambda *node: told.append(node))
        parts = Frontier(parts.size, parts.stored())
    assert one.root() == parts.root() == mth(leaves)
    assert one.roots == parts.roots
    assert [node for node in completed if node[0] % 8 == 0] == told
    for level, position, root in completed[:20]:
        assert root == mth(leaves[position << level : (position + 1) << level])


def test_higher_nodes_are_told_of_too() -> None:
    """Level 16 has 65,536 leaves below it."""
    leaves = leaves_of(1 << 16)
    told = []
    frontier = Frontier()
    frontier.extend(leaves[:100], lambda *node: told.append(node))
    frontier.extend(leaves[100:], lambda *node: told.append(node))
    assert told[-1] == (16, 0, frontier.root())
    assert [position for level, position, _ in told if level == 8] == list(range(256))


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_range_is_its_whole_subtrees(start: int, length: int) -> None:
    """From the left, without gap or overlap, each at a multiple of its own size."""
    at = start
    for level, position in subtrees(start, start + length):
        assert position << level == at
        at += 1 << level
    assert at == start + length


@given(SIZES, st.data())
def test_proofs_are_the_rfcs(size: int, data: st.DataObject) -> None:
    """Inclusion and consistency, made and followed."""
    leaves = leaves_of(size)
    node, root = node_of(leaves), mth(leaves)
    assert root_at(size, node) == root
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, node)
    assert proof == path(index, leaves)
    assert root_of_inclusion(leaves[index], index, size, proof) == root
    earlier = data.draw(st.integers(1, size))
    proof = consistency_proof(earlier, size, node)
    assert proof == subproof(earlier, leaves, True)
    check_consistency(earlier, mth(leaves[:earlier]), size, root, proof)
    check_consistency(0, EMPTY_ROOT, size, root, [])


@given(SIZES, st.data())
def test_every_other_proof_of_inclusion_leads_elsewhere(size: int, data: st.DataObject) -> None:
    """Another leaf, index or hash, one hash more or less: another root or none."""
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    proof = path(index, leaves)
    other_index = data.draw(st.integers(0, size))
    leaf = leaves[index]
    wrong: list[tuple[bytes, int, list[bytes]]] = [
        (flipped(leaf), index, proof),
        (leaf, index, [*proof, NO_LEAF]),
        (leaf, index, proof[:-1]),
        (leaf, index, [NO_LEAF, *proof]),
        (leaf, other_index, proof),
        (leaf, -1, proof),
    ]
    for at in range(len(proof)):
        wrong.append((leaf, index, [*proof[:at], flipped(proof[at]), *proof[at + 1 :]]))
        wrong.append((leaf, index, [*proof[:at], *proof[at + 1 :]]))
    for this_leaf, this_index, this_proof in wrong:
        if (this_leaf, this_index, this_proof) == (leaf, index, proof):
            continue
        with contextlib.suppress(ProofError):
            assert root_of_inclusion(this_leaf, this_index, size, this_proof) != mth(leaves)


@given(SIZES, st.data())
def test_every_other_proof_of_consistency_is_refused(size: int, data: st.DataObject) -> None:
    """Another root, size or hash, one hash more or less."""
    leaves = leaves_of(size)
    earlier = data.draw(st.integers(1, size))
    old, new, proof = mth(leaves[:earlier]), mth(leaves), subproof(earlier, leaves, True)
    wrong = [
        (earlier, flipped(old), size, new, proof),
        (earlier, old, size, flipped(new), proof),
        (earlier, old, size, new, [*proof, NO_LEAF]),
        (earlier, old, size, new, [NO_LEAF, *proof]),
        (size + 1, old, size, new, proof),
    ]
    for at in range(len(proof)):
        wrong.append((earlier, old, size, new, [*proof[:at], flipped(proof[at]), *proof[at + 1 :]]))
        wrong.append((earlier, old, size, new, [*proof[:at], *proof[at + 1 :]]))
    for case in wrong:
        with pytest.raises(ProofError):
            check_consistency(*case)


def test_a_tree_that_shrank_or_differs_is_named() -> None:
    """The words that people read."""
    five, six = mth(leaves_of(5)), mth(leaves_of(6))
    with pytest.raises(ProofError, match="shrank from 6 leaves to 5"):
        check_consistency(6, six, 5, five, [])
    with pytest.raises(ProofError, match="the first 5 leaves are not those that they were"):
        check_consistency(5, six, 5, five, [])
    with pytest.raises(ProofError, match="the first 0 leaves"):
        check_consistency(0, six, 5, five, [])


def flipped(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def same(one: Any, other: Any) -> bool:
    """Whether SQLite would hold the same value for both: 1 is not 1.0, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    return struct.pack(">d", one) == struct.pack(">d", other) if isinstance(one, float) else one == other


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
@example([1], [1.0])
@example([""], [b""])
@example([None], [])
@example(["\u00e9"], ["e\u0301"])
def test_no_two_rows_are_the_same_bytes(one: list[Any], other: list[Any]) -> None:
    """Fields can be joined: where one ends is in its first bytes."""
    equal = len(one) == len(other) and all(map(same, one, other))
    assert (b"".join(map(field, one)) == b"".join(map(field, other))) == equal


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "00"),
        (0, "01 0000000000000000"),
        (-1, "01 ffffffffffffffff"),
        (-(2**63), "01 8000000000000000"),
        (2**63 - 1, "01 7fffffffffffffff"),
        (1.5, "02 3ff8000000000000"),
        (-0.0, "02 8000000000000000"),
        ("", "03 00000000"),
        ("통장", "03 00000006 ed86b5ec9ea5"),
        (b"\x00\xff", "04 00000002 00ff"),
    ],
)
def test_a_field_is_its_storage_class_and_value(value: Any, written: str) -> None:
    """As the head of the module says."""
    assert field(value) == bytes.fromhex(written)


@pytest.mark.parametrize(("value", "error"), [(2**63, struct.error), ("\ud800", UnicodeEncodeError)])
def test_what_sqlite_cannot_store_has_no_field(value: Any, error: type[Exception]) -> None:
    """Nothing is rounded or replaced."""
    with pytest.raises(error):
        field(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


PUBLIC_MEMBERS = RULES[LATEST].public_members


def shown(details: Any, rule: int = LATEST, *, resource_type: Any = "user", actor: Any = "bot") -> str | None:
    return public_details(details, rule=rule, resource_type=resource_type, actor=actor)


@given(st.dictionaries(st.sampled_from(sorted(PUBLIC_MEMBERS)) | TEXTS, JSON, max_size=5), st.sampled_from([*RULES]))
def test_public_details_keep_public_values_only(members: dict[str, Any], rule: int) -> None:
    """By each rule every name stays; None when nothing had to go; and what is left is public as it is."""
    public = RULES[rule].public_members
    text = shown(json.dumps(members, ensure_ascii=False), rule)
    if text is None:
        assert all(value is None or name in public for name, value in members.items())
        return
    left = json.loads(text)
    assert list(left) == list(members)
    for name, value in left.items():
        assert value is None or (name in public and value == members[name])
    assert shown(text, rule) is None


@pytest.mark.parametrize(
    ("details", "public"),
    [
        (None, None),
        ("{}", None),
        ('{"amount":5}', None),
        ('{"amount":5,"depositor_name":"홍길동"}', '{"amount":5,"depositor_name":null}'),
        ('{"depositor_name":null}', None),
        ('{"scopes":["a"],"history":[{"a":1}]}', '{"scopes":["a"],"history":null}'),
        ("[]", "null"),
        ("null", "null"),
        ("not JSON", "null"),
        ('"\ud800"', "null"),
        ("[" * 100_000, "null"),
        (5, "null"),
        (b"{}", "null"),
    ],
)
def test_what_is_no_json_object_is_personal_as_a_whole(details: Any, public: str | None) -> None:
    """An old row may hold anything."""
    assert all(shown(details, rule) == public for rule in some(RULES))


def test_of_what_others_wrote_only_the_names_are_public() -> None:
    """A caller's event and the bot's rows: a number under a name that the ledger uses may be a telegram id."""
    details = '{"user_id":777,"status":"kim","amount":5}'
    assert shown(details) is None
    for others in ({"actor": None}, {"resource_type": "basket"}, {"resource_type": None}):
        assert shown(details, **others) == '{"user_id":null,"status":null,"amount":null}'
        assert shown(None, **others) is None
        assert shown("{}", **others) is None


ROWS = st.tuples(
    st.none() | INTEGERS,
    st.none() | INTEGERS,
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.none() | st.just("123456789") | TEXTS,
    st.none() | st.sampled_from(['{"amount":5}', '{"amount":5,"memo":"이름"}', "text"]) | TEXTS | st.just("x" * 2000),
    *[st.none() | st.sampled_from(["user", "10.0.0.1", ""]) | st.binary(max_size=2)] * 7,
)
ODD_ROWS = st.tuples(VALUES, VALUES, VALUES, VALUES, VALUES, VALUES, *[st.none() | TEXTS | st.binary(max_size=2)] * 7)


def numbered(rows: list[tuple[Any, ...]], gaps: list[int]) -> list[list[Any]]:
    ids, last = [], 0
    for gap in gaps:
        last += gap
        ids.append(last)
    return [[audit_log_id, *row] for audit_log_id, row in zip(ids, rows, strict=False)]


@given(
    st.lists(ROWS, max_size=20) | st.lists(ROWS | ODD_ROWS, max_size=20),
    st.lists(st.integers(1, 3), min_size=20, max_size=20),
    st.sets(st.integers(0, 19)),
    st.integers(0, 20),
)
def test_the_verifier_takes_every_sound_log(
    rows: list[tuple[Any, ...]], gaps: list[int], erased: set[int], cut: int
) -> None:
    """In one go or in two, whatever the columns hold, erased or not; its root is the plain one."""
    log = sealed_rows(numbered(rows, gaps), erased)
    verifier = Verifier()
    assert verifier.check(log[:cut]) is None
    assert verifier.check(log[cut:]) is None
    assert verifier.frontier.root() == mth([row[-1] for row in log])
    middle = min(cut, len(log))
    if middle:
        before = Frontier()
        before.extend([row[-1] for row in log[:middle]], lambda *_: None)
        later = Verifier(before, previous=log[middle - 1][-1], last_id=log[middle - 1][1])
        assert later.check(log[middle:]) is None
        assert later.frontier.root() == verifier.frontier.root()


@given(
    st.lists(ROWS, min_size=1, max_size=8),
    st.sets(st.integers(0, 7)),
    st.integers(0, 7),
    st.integers(0, len(COLUMNS) + 4),
    VALUES | HASHES | st.binary(min_size=16, max_size=16),
)
def test_no_changed_value_goes_unseen(
    rows: list[tuple[Any, ...]], erased: set[int], index: int, column: int, value: Any
) -> None:
    """Any value of any column becomes another one: the row is named, or the one after it where it is the leaf."""
    log = sealed_rows(numbered(rows, [1] * 8), erased)
    index %= len(log)
    before = log[index][column]
    # The commitment beside a salt is not read; leaf_index is an integer whatever a hand does to the table.
    if same(before, value) or (column == 0 and before == value) or (column == 17 and log[index][15] is not None):
        return
    log[index][column] = value
    fault = Verifier().check(log)
    assert isinstance(fault, Fault)
    assert fault.leaf_index == index
    assert fault.said


def usual_log(count: int) -> list[list[Any]]:
    return sealed_rows(usual_rows(count))


@pytest.mark.parametrize("at", [0, 1, 255, 256, 257, 511, 599])
def test_tampering_is_found_at_its_row_in_any_block(at: int) -> None:
    """Edited, edited with its leaf made anew, deleted, doubled, swapped; wherever blocks of 256 begin."""
    log = usual_log(600)
    assert Verifier().check(log) is None

    edited = [*log]
    edited[at] = [*log[at][:2], 999, *log[at][3:]]
    assert Verifier().check(edited) == Fault(
        at, at + 1, "its leaf is not that of its values after the row before it: one of them was changed"
    )

    previous = log[at - 1][-1] if at else NO_LEAF
    _, *row, salt, public, _, rule, _ = edited[at]
    edited[at] = [*edited[at][:-1], leaf_hash(previous, commitment(salt, row[5], row[6]), public, row, rule=rule)]
    fault = Verifier().check(edited)
    assert (fault is None) == (at == 599), "only a checkpoint or a receipt tells of the last row"
    if fault:
        assert (fault.leaf_index, fault.audit_log_id) == (at + 1, at + 2)

    found = Verifier().check(log[:at] + log[at + 1 :])
    assert (found is None) == (at == 599), "only a checkpoint or a receipt tells of a cut end"
    if found:
        assert (found.leaf_index, found.said) == (at, f"leaf {at + 1} stands where leaf {at} should")
    doubled = Verifier().check([*log[: at + 1], log[at], *log[at + 1 :]])
    assert doubled is not None
    assert doubled.leaf_index == at + 1
    gone = [*log]
    gone[at] = [at, *[None] * len(COLUMNS), *log[at][-5:]]
    assert Verifier().check(gone) == Fault(at, None, "the row is gone")


def test_a_fault_leaves_the_rows_before_it() -> None:
    """How far the log is sound can be compared with an older checkpoint."""
    log = usual_log(300)
    log[270][5] = "changed"
    verifier = Verifier()
    fault = verifier.check(log)
    assert fault is not None
    assert verifier.frontier.size == fault.leaf_index == 270
    assert verifier.frontier.root() == mth([row[-1] for row in log[:270]])


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (14 + 1, b"short", "its salt is not 16 bytes"),
        (14 + 2, b"short", "its public_details is not 32 bytes"),
        (14 + 1, None, "its salt is gone and no commitment is kept in its stead"),
        (14 + 4, 9, "it is sealed by rule 9, which is not known here"),
        (14 + 4, 0, "it is sealed by rule 0, which is not known here"),
        (14 + 4, None, "it is sealed by rule None, which is not known here"),
        (14 + 4, LATEST, "its leaf is not that of its values"),
        (1, 1, "its id does not come after 2"),
        (8, 5, "a column of text holds a number"),
    ],
)
def test_a_fault_says_what_is_wrong(column: int, value: Any, said: str) -> None:
    """Row 2 of 3; its length is checked because the bytes behind it would move."""
    log = usual_log(3)
    log[2][column] = value
    fault = Verifier().check(log)
    assert fault is not None
    assert said in fault.said


DETAILS = st.sampled_from(
    [
        None,
        "null",
        "not JSON",
        "[1]",
        '{"amount":5}',
        '{"amount":5,"note":"홍길동"}',
        '{"changes":[1,{"a":2}],"code":[3]}',
    ]
)
SEALED = st.tuples(
    st.integers(1, 2**63 - 1) | INTEGERS,
    VALUES,
    VALUES,
    VALUES,
    VALUES,
    VALUES,
    DETAILS | VALUES,
    *[st.none() | TEXTS] * 7,
)


@given(
    rows=st.lists(SEALED | st.sampled_from([tuple(row) for row in usual_rows(12)]), min_size=1, max_size=12),
    rule=st.sampled_from(sorted(RULES)),
    previous=HASHES,
)
def test_rows_are_sealed_together_as_each_by_itself(rows: list[tuple[Any, ...]], rule: int, previous: bytes) -> None:
    """Column by column is as the format has it, whatever the columns hold."""
    salts = [sha256(b"%d" % number).digest()[:16] for number in range(len(rows))]
    expected, leaf = [], previous
    for row, salt in zip(rows, salts, strict=True):
        shown = public_details(row[6], rule=rule, resource_type=row[8], actor=row[11])
        public = None if shown is None else sha256(shown.encode()).digest()
        leaf = leaf_hash(leaf, commitment(salt, row[5], row[6]), public, row, rule=rule)
        expected.append((leaf, public))
    assert seal(previous, rows, salts, rule=rule) == expected


def test_a_number_in_a_column_of_text_is_not_sealed() -> None:
    """1 and 1.0 would be one leaf."""
    rows = usual_rows(3)
    rows[1][7] = 1
    with pytest.raises(ValueError, match=r"^a column of text holds a number$"):
        seal(NO_LEAF, rows, [bytes(16)] * 3, rule=LATEST)


@pytest.mark.parametrize("audit_log_id", [2.0, "2", b"2"])
def test_an_id_that_is_no_integer_is_refused_even_when_it_was_sealed(audit_log_id: Any) -> None:
    """2.0 comes after 1 as 2 does, and its leaf is right."""
    rows = usual_rows(3)
    rows[1][0] = audit_log_id
    fault = Verifier().check(sealed_rows(rows))
    assert fault is not None
    assert (fault.leaf_index, fault.said) == (1, "its id is not an integer")


def resealed(row: list[Any], salt: bytes, public: bytes | None) -> list[Any]:
    committed = commitment(salt, row[6], row[7])
    return [*row[:15], salt, public, None, 1, leaf_hash(NO_LEAF, committed, public, row[1:15], rule=1)]


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_salt_of_another_length_is_refused_even_when_it_was_sealed(length: int) -> None:
    """It would stand for other values too: where it ends is not in the bytes that are hashed."""
    (row,) = usual_log(1)
    assert Verifier().check([resealed(row, bytes(16), None)]) is None
    fault = Verifier().check([resealed(row, bytes(length), None)])
    assert fault is not None
    assert fault.said == "its salt is not 16 bytes"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_public_details_of_another_length_are_refused_even_when_they_were_sealed(length: int) -> None:
    """For the same reason."""
    (row,) = usual_log(1)
    assert Verifier().check([resealed(row, bytes(16), bytes(32))]) is None
    fault = Verifier().check([resealed(row, bytes(16), bytes(length))])
    assert fault is not None
    assert fault.said == "its public_details is not 32 bytes"


def test_ids_that_do_not_rise_are_refused_even_when_they_were_sealed() -> None:
    """Within a block, and from one to the next."""
    for at in (1, 256):
        rows = usual_rows(300)
        rows[at][0] = rows[at - 1][0]
        fault = Verifier().check(sealed_rows(rows))
        assert fault is not None
        assert (fault.leaf_index, fault.said) == (at, f"its id does not come after {at}, that of the row before it")


def test_usual_rows_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with nulls and erased rows among them: the other way is for what is odd."""

    def slow(*_: Any) -> None:
        raise AssertionError("row by row")

    monkeypatch.setattr(Verifier, "_first_fault", slow)
    log = sealed_rows(usual_rows(600), set(range(100, 300, 3)))
    verifier = Verifier()
    assert verifier.check(log) is None
    assert verifier.frontier.size == 600


def test_what_is_left_of_an_erased_row_is_proved() -> None:
    """Nothing can be put back in, and what is left cannot be changed."""
    log = sealed_rows(usual_rows(4), {1, 2})
    assert Verifier().check(log) is None
    for column, value, said in (
        (6, "1", "yet it has a telegram_id"),
        (7, "{}", "left of its details"),
        (7, None, "left"),
    ):
        tampered = [*log]
        tampered[1] = [*log[1]]
        tampered[1][column] = value
        fault = Verifier().check(tampered)
        assert fault is not None
        assert fault.leaf_index == 1
        assert said in fault.said


def test_a_node_is_not_a_leaf() -> None:
    """RFC 6962's first byte: no pair of leaves passes for a leaf."""
    one, other = leaves_of(2)
    assert node_hash(one, other) == sha256(b"\x01" + one + other).digest()
