#!/usr/bin/env node
// Checks an export of Passbook's audit log without Passbook: Node 20 or newer, nothing else.
//
// Written from the format in README.md beside it, and shares no code with the service or with verify.py.
//
//   passbook audit export --sealed | node verify.mjs --key "$KEY" --checkpoint july.checkpoint
//   node verify.mjs log.ndjson --key "$KEY" --checkpoint june.checkpoint --checkpoint july.checkpoint \
//     --receipts receipts.txt --proof row-1042.tlog-proof
//   node verify.mjs --proof row-1042.tlog-proof --key "$KEY"
//   node verify.mjs --vectors vectors.json
//
// Exit code 0: sound. 1: tampered with; the first row that is not as it was is named. 2: it cannot be told.

import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { parseArgs } from "node:util";

const SOUND = 0, TAMPERED = 1, UNREADABLE = 2;

const COLUMNS = [
  "id", "user_id", "resource_id", "created_at", "request_id", "telegram_id", "details",
  "action", "resource_type", "ip_address", "user_agent", "actor", "key_prefix", "outcome",
];
const BEFORE_DETAILS = COLUMNS.slice(0, 5);
const AFTER_DETAILS = COLUMNS.slice(7);
const SEALED = new Set(["leaf_index", ...COLUMNS, "salt", "public_details", "leaf"]);
const ERASED = new Set([...SEALED, "commitment"]);
const RULES = new Set([1n, 2n, 3n]); // a line that names none is of rule 1
const HEADER = new Set(["passbook_audit_export", "first_index", "previous_leaf", "frontier"]);
const EXACT = 2n ** 53n - 1n;
const LINE_MAX = 64 * 1024 * 1024;
const NOTE_MAX = 1_000_000;
const LINE_FEED = 10;

/** What was given is not in the format, or cannot be used. */
class Unreadable extends Error {}

/** What was given is in the format and is not what was sealed or signed. */
class Tampered extends Error {}

function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function utf8(bytes, what) {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Unreadable(`${what} is not UTF-8`);
  }
}

// The bytes of a row. NULL is null, INTEGER a BigInt, TEXT a string, REAL and BLOB objects of these classes.

class Real {
  constructor(bytes) { this.bytes = bytes; }
}

class Blob {
  constructor(bytes) { this.bytes = bytes; }
}

const NULL = Buffer.from([0]);

function sized(kind, bytes) {
  const head = Buffer.allocUnsafe(5);
  head[0] = kind;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

function field(value) {
  if (value === null) return NULL;
  if (typeof value === "bigint") {
    const bytes = Buffer.allocUnsafe(9);
    bytes[0] = 1;
    bytes.writeBigInt64BE(value, 1);
    return bytes;
  }
  if (typeof value === "string") return sized(3, Buffer.from(value, "utf8"));
  if (value instanceof Real) return Buffer.concat([Buffer.from([2]), value.bytes]);
  return sized(4, value.bytes);
}

const commitmentBytes = (salt, telegramId, details) =>
  Buffer.concat([Buffer.from([2]), salt, field(telegramId), field(details)]);

const leafBytes = (previous, commitment, row) => Buffer.concat([
  Buffer.from([0, row.rule]),
  previous,
  commitment,
  ...BEFORE_DETAILS.map((name) => field(row[name])),
  row.public_details === null ? field(row.details) : Buffer.concat([Buffer.from([5]), row.public_details]),
  ...AFTER_DETAILS.map((name) => field(row[name])),
]);

/** Throws Tampered where an erased row still has what it should not, or has lost what was left of it. */
function commitmentOf(row) {
  if (row.salt !== null) return sha256(commitmentBytes(row.salt, row.telegram_id, row.details));
  if (row.telegram_id !== null) throw new Tampered("its personal values are erased, yet it has a telegram_id");
  if (row.public_details !== null) {
    if (typeof row.details !== "string" || !sha256(row.details).equals(row.public_details)) {
      throw new Tampered("what is left of its details after the erasure was changed");
    }
  }
  return row.commitment;
}

// JSON: JSON.parse takes members that are there twice, 7.0 for 7, and rounds integers.

const STRING = /"((?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?![0-9.eE])/y;
const SPACE = /[ \t\n\r]*/y;
const DEPTH_MAX = 8;

/** Objects become Maps, integers BigInts; a fraction or an exponent is refused. */
class Json {
  constructor(text) { this.text = text; this.at = 0; }

  static parse(text) {
    const json = new Json(text);
    const value = json.value(0);
    json.space();
    if (json.at !== text.length) throw json.error("something follows");
    return value;
  }

  error(said) { return new Unreadable(`the line is not JSON: ${said} at character ${this.at}`); }

  space() {
    if (this.text.charCodeAt(this.at) <= 0x20) this.match(SPACE);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  takes(character) {
    this.space();
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  value(depth) {
    if (depth > DEPTH_MAX) throw this.error("too deep");
    this.space();
    const next = this.text[this.at];
    if (next === '"') return this.string();
    if (next === "{") return this.object(depth);
    if (next === "[") return this.list(depth);
    for (const [word, value] of [["null", null], ["true", true], ["false", false]]) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    const number = this.match(NUMBER);
    if (!number) throw this.error("a value that is no integer, text, object or list");
    return BigInt(number[0]);
  }

  string() {
    const found = this.match(STRING);
    if (!found) throw this.error("a string that is not as JSON writes it");
    return found[1].includes("\\") ? JSON.parse(found[0]) : found[1];
  }

  object(depth) {
    const members = new Map();
    this.at += 1;
    if (this.takes("}")) return members;
    do {
      this.space();
      const name = this.string();
      if (members.has(name)) throw new Unreadable("a member is there twice");
      if (!this.takes(":")) throw this.error("a colon is missing");
      members.set(name, this.value(depth + 1));
    } while (this.takes(","));
    if (!this.takes("}")) throw this.error("a brace is missing");
    return members;
  }

  list(depth) {
    const items = [];
    this.at += 1;
    if (this.takes("]")) return items;
    do items.push(this.value(depth + 1)); while (this.takes(","));
    if (!this.takes("]")) throw this.error("a bracket is missing");
    return items;
  }
}

// The lines of an export.

function readObject(line) {
  const end = line.length - 1;
  if (line[end] !== LINE_FEED) throw new Unreadable("the line does not end in a line feed: the file was cut");
  if (line[0] !== 0x7b || line[end - 1] !== 0x7d) throw new Unreadable("the line is not one JSON object and a line feed");
  return Json.parse(utf8(line, "the line"));
}

function requireMembers(members, names) {
  for (const name of names) if (!members.has(name)) throw new Unreadable(`"${name}" is missing`);
  for (const name of members.keys()) {
    if (!names.has(name)) throw new Unreadable(`${JSON.stringify(name)} does not belong there`);
  }
}

function count(value, name) {
  if (typeof value !== "bigint" || value < 0n || value > EXACT) throw new Unreadable(`${name} is not a number from 0 on`);
  return Number(value);
}

function unhex(text, length, name) {
  if (typeof text !== "string" || !/^(?:[0-9a-f]{2})*$/.test(text)) throw new Unreadable(`${name} is not hex`);
  if (length !== null && text.length !== 2 * length) throw new Unreadable(`${name} is not ${length} bytes`);
  return Buffer.from(text, "hex");
}

function valueOf(value, name) {
  if (value === null) return null;
  if (typeof value === "bigint" && -EXACT <= value && value <= EXACT) return value;
  if (typeof value === "string") {
    if (/\p{Surrogate}/u.test(value)) throw new Unreadable(`${name} is not Unicode`);
    return value;
  }
  if (value instanceof Map && value.size === 1) {
    const [[kind, text]] = value;
    if (kind === "integer" && typeof text === "string" && /^-?[1-9][0-9]{0,18}$/.test(text)) {
      const number = BigInt(text);
      if ((number > EXACT || number < -EXACT) && BigInt.asIntN(64, number) === number) return number;
    }
    if (kind === "blob") return new Blob(unhex(text, null, name));
    if (kind === "real") {
      const bytes = unhex(text, 8, name);
      if (!Number.isNaN(bytes.readDoubleBE(0))) return new Real(bytes);
    }
  }
  throw new Unreadable(`${name} is not a value`);
}

/** Takes the rule out of the members of a line. */
function readRule(members) {
  if (!members.has("rule")) return 1;
  const rule = members.get("rule");
  members.delete("rule");
  if (!RULES.has(rule)) {
    throw new Unreadable(`a row is sealed by rule ${rule}, which this program does not know: take a newer one`);
  }
  if (rule === 1n) throw new Unreadable("rule 1 is written by leaving it out");
  return Number(rule);
}

function readRow(line) {
  const members = readObject(line);
  const erased = (members.get("salt") ?? null) === null;
  const rule = readRule(members);
  requireMembers(members, erased ? ERASED : SEALED);
  const row = { rule };
  for (const name of COLUMNS) row[name] = valueOf(members.get(name), name);
  row.leaf_index = count(members.get("leaf_index"), "leaf_index");
  row.leaf = unhex(members.get("leaf"), 32, "leaf");
  const shown = members.get("public_details");
  row.public_details = shown === null ? null : unhex(shown, 32, "public_details");
  row.salt = erased ? null : unhex(members.get("salt"), 16, "salt");
  row.commitment = erased ? unhex(members.get("commitment"), 32, "commitment") : null;
  return row;
}

// The tree.

const NODE = Buffer.from([1]);
const NO_LEAF = Buffer.alloc(32);
const nodeHash = (left, right) => sha256(NODE, left, right);

/** The rows so far: how many, the last leaf and id, and the roots of the whole subtrees that they make up. */
class Log {
  constructor(size = 0, previous = NO_LEAF, roots = []) {
    Object.assign(this, { size, previous, roots, lastId: null });
  }

  static ofHeader(line) {
    const header = readObject(line);
    const version = header.get("passbook_audit_export");
    if (version === undefined) {
      throw new Unreadable("this is no sealed export: its first line does not say passbook_audit_export");
    }
    if (version !== 1n) throw new Unreadable("this export is of another version");
    requireMembers(header, HEADER);
    const size = count(header.get("first_index"), "first_index");
    const previous = unhex(header.get("previous_leaf"), 32, "previous_leaf");
    if (!Array.isArray(header.get("frontier"))) throw new Unreadable("frontier is not a list");
    const roots = header.get("frontier").map((root) => unhex(root, 32, "frontier"));
    const ones = BigInt(size).toString(2).replaceAll("0", "").length;
    if (roots.length !== ones) throw new Unreadable(`the frontier of ${size} leaves does not have ${roots.length} roots`);
    if (size === 0 && !previous.equals(NO_LEAF)) {
      throw new Unreadable("previous_leaf is not 64 zeros, yet nothing is left out before the first row");
    }
    return new Log(size, previous, roots);
  }

  /** Throws Tampered unless `row` comes next and is as it was sealed. */
  add(row) {
    if (row.leaf_index !== this.size) throw new Tampered(`leaf ${row.leaf_index} stands where leaf ${this.size} should`);
    if (typeof row.id !== "bigint") throw new Tampered("its id is not an integer");
    if (this.lastId !== null && row.id <= this.lastId) {
      throw new Tampered(`its id does not come after ${this.lastId}, that of the row before it`);
    }
    let root = sha256(leafBytes(this.previous, commitmentOf(row), row));
    if (!root.equals(row.leaf)) {
      throw new Tampered("its leaf is not that of its values after the row before it: one of them was changed");
    }
    this.previous = root;
    this.lastId = row.id;
    for (let position = this.size; position % 2 === 1; position = (position - 1) / 2) {
      root = nodeHash(this.roots.pop(), root);
    }
    this.roots.push(root);
    this.size += 1;
  }

  root() {
    return this.roots.length ? this.roots.reduceRight((right, left) => nodeHash(left, right)) : sha256("");
  }
}

/** RFC 9162, section 2.1.3.2; index and size are BigInts. */
function rootOfInclusion(leaf, index, size, path) {
  if (index < 0n || index >= size) throw new Tampered(`leaf ${index} is not in a tree of ${size}`);
  let fn = index, sn = size - 1n, root = leaf;
  for (const sibling of path) {
    if (sn === 0n) throw new Tampered("the path is too long");
    if (fn & 1n || fn === sn) {
      root = nodeHash(sibling, root);
      while (!(fn & 1n) && fn) { fn >>= 1n; sn >>= 1n; }
    } else {
      root = nodeHash(root, sibling);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  if (sn) throw new Tampered("the path is too short");
  return root;
}

/** RFC 9162, section 2.1.4.2; the sizes are BigInts. */
function checkConsistency(first, firstRoot, second, secondRoot, proof) {
  if (first > second) throw new Tampered(`the tree shrank from ${first} leaves to ${second}`);
  if (first === 0n || first === second) {
    const expected = first === 0n ? sha256("") : secondRoot;
    if (proof.length || !firstRoot.equals(expected)) throw new Tampered("the proof is too long or the roots differ");
    return;
  }
  const path = (first & (first - 1n)) === 0n ? [firstRoot, ...proof] : proof;
  if (!path.length) throw new Tampered("the proof is too short");
  let fn = first - 1n, sn = second - 1n;
  while (fn & 1n) { fn >>= 1n; sn >>= 1n; }
  let fr = path[0], sr = path[0];
  for (const hash of path.slice(1)) {
    if (sn === 0n) throw new Tampered("the proof is too long");
    if (fn & 1n || fn === sn) {
      fr = nodeHash(hash, fr);
      sr = nodeHash(hash, sr);
      while (!(fn & 1n) && fn) { fn >>= 1n; sn >>= 1n; }
    } else {
      sr = nodeHash(sr, hash);
    }
    fn >>= 1n;
    sn >>= 1n;
  }
  if (sn || !fr.equals(firstRoot) || !sr.equals(secondRoot)) throw new Tampered("the proof does not lead to both roots");
}

// Signed notes, checkpoints, proofs and receipts.

function unbase64(text, what) {
  const value = Buffer.from(text, "base64");
  if (value.toString("base64") !== text) throw new Unreadable(`${what} is not base64 as it is written`);
  return value;
}

function unbase64Hash(text, what) {
  const value = unbase64(text, what);
  if (value.length !== 32) throw new Unreadable(`${what} is not 32 bytes`);
  return value;
}

function decimal(text, what) {
  if (!/^(?:0|[1-9][0-9]{0,18})$/.test(text) || BigInt(text) >= 2n ** 63n) throw new Unreadable(`${what} is not a number`);
  return BigInt(text);
}

// White_Space of Unicode, which is not \s of JavaScript.
const NO_NAME = /[\u0000- +\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

function requireName(name) {
  if (!name || NO_NAME.test(name)) throw new Unreadable("the name of a key is empty or has a space or a plus");
}

function readKey(text) {
  const found = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/s.exec(text);
  if (!found) throw new Unreadable("a key is <name>+<8 hex>+<base64>");
  const [, name, id, encoded] = found;
  requireName(name);
  const key = unbase64(encoded, "the key");
  if (key.length !== 33 || (key[0] !== 1 && key[0] !== 4)) {
    throw new Unreadable("the key is not one of Ed25519 (01 or 04 and 32 bytes)");
  }
  if (sha256(`${name}\n`, key).toString("hex", 0, 4) !== id) {
    throw new Unreadable("the id of the key is not that of its name and its bytes: it was mistyped or changed");
  }
  return { name, id, kind: key[0], bytes: key.subarray(1) };
}

/** Throws Unreadable unless one of `keys` has signed, and where one of them has signed wrongly. */
function openNote(note, keys) {
  if (note.length > NOTE_MAX) throw new Unreadable(`a note has at most ${NOTE_MAX} bytes`);
  const whole = utf8(note, "a note");
  if (/[\u0000-\u0009\u000b-\u001f]/.test(whole)) throw new Unreadable("a note has no control characters");
  const middle = whole.lastIndexOf("\n\n");
  if (middle < 0 || middle + 2 === whole.length || !whole.endsWith("\n")) {
    throw new Unreadable("a note is a text, an empty line and lines of signatures, and ends in a line feed");
  }
  const text = whole.slice(0, middle + 1);
  const lines = whole.slice(middle + 2, -1).split("\n");
  if (lines.length > 100) throw new Unreadable("a note has at most 100 signatures");
  const signers = new Set();
  for (const line of lines) {
    const { name, id, signature } = readSignature(line);
    for (const key of keys) {
      if (key.name !== name || key.id !== id || signers.has(key)) continue;
      requireSignature(key, text, signature);
      signers.add(key);
    }
  }
  if (!signers.size) throw new Unreadable("no key that was given has signed it");
  return { text, logs: [...signers].filter((key) => key.kind === 1).map((key) => key.name) };
}

function readSignature(line) {
  if (!line.startsWith("— ")) throw new Unreadable("a line of a signature begins with — and a space");
  const space = line.indexOf(" ", 2);
  const name = space < 0 ? line.slice(2) : line.slice(2, space);
  requireName(name);
  const bytes = unbase64(space < 0 ? "" : line.slice(space + 1), "a signature");
  if (bytes.length < 5) throw new Unreadable("a signature is too short");
  return { name, id: bytes.toString("hex", 0, 4), signature: bytes.subarray(4) };
}

const SPKI = Buffer.from("302a300506032b6570032100", "hex");

function requireSignature(key, text, signature) {
  let message = Buffer.from(text, "utf8"), at = 0n, bytes = signature;
  if (key.kind === 4) { // c2sp.org/tlog-cosignature
    if (signature.length !== 72) throw new Unreadable(`the signature of ${key.name} is wrong`);
    at = signature.readBigUInt64BE(0);
    bytes = signature.subarray(8);
    message = Buffer.concat([Buffer.from(`cosignature/v1\ntime ${at}\n`), message]);
  }
  const publicKey = createPublicKey({ key: Buffer.concat([SPKI, key.bytes]), format: "der", type: "spki" });
  if (at >= 2n ** 63n || bytes.length !== 64 || !verifySignature(null, message, publicKey, bytes)) {
    throw new Unreadable(`the signature of ${key.name} is wrong: it or the text was changed`);
  }
}

function readCheckpoint(note, keys) {
  const { text, logs } = openNote(note, keys);
  const lines = text.slice(0, -1).split("\n");
  if (lines.length < 3 || lines.includes("")) {
    throw new Unreadable("a checkpoint has at least three lines and none is empty");
  }
  const [origin, size, root] = lines;
  if (!logs.includes(origin)) throw new Unreadable(`the key of ${origin}, whose checkpoint it is, has not signed it`);
  return { origin, size: decimal(size, "the size"), root: unbase64Hash(root, "the root") };
}

function readProof(data, keys) {
  const text = utf8(data, "a proof");
  const middle = text.indexOf("\n\n");
  const lines = (middle < 0 ? text : text.slice(0, middle)).split("\n");
  if (lines.shift() !== "c2sp.org/tlog-proof@v1") throw new Unreadable("the first line is not c2sp.org/tlog-proof@v1");
  if (middle < 0) throw new Unreadable("the checkpoint is missing");
  let leaf = null;
  if (lines[0]?.startsWith("extra ")) {
    const extra = unbase64(lines.shift().slice(6), "extra");
    if (extra.length === 32) leaf = extra;
  }
  if (!lines[0]?.startsWith("index ")) throw new Unreadable("the index is missing");
  const index = decimal(lines.shift().slice(6), "the index");
  if (lines.length > 63) throw new Unreadable("the path has more than 63 hashes");
  const path = lines.map((line) => unbase64Hash(line, "a hash of the path"));
  const { size, root } = readCheckpoint(Buffer.from(text.slice(middle + 2), "utf8"), keys);
  return { index, path, size, root, leaf };
}

/** A value of Passbook-Receipt: a dictionary of RFC 9651 with the members id and leaf. */
function readReceipt(line) {
  const members = new Map();
  for (const member of line.replace(/^passbook-receipt:/i, "").replace(/^[ \t\r]+|[ \t\r]+$/g, "").split(",")) {
    const [name, ...rest] = member.replace(/^[ \t]+|[ \t]+$/g, "").split("=");
    if (members.has(name)) throw new Unreadable("a member is there twice");
    members.set(name, rest.join("="));
  }
  if (!/^[0-9]{1,15}$/.test(members.get("id") ?? "")) throw new Unreadable("a receipt has a member id, a number");
  const leaf = /^:(.*):$/.exec(members.get("leaf") ?? "");
  if (!leaf) throw new Unreadable("a receipt has a member leaf, :base64:");
  return { id: BigInt(members.get("id")), leaf: unbase64Hash(leaf[1], "the leaf") };
}

// The check.

const base64 = (bytes) => bytes.toString("base64");

function push(map, key, value) {
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(value);
}

function take(map, key) {
  if (map.size === 0) return [];
  const found = map.get(key) ?? [];
  map.delete(key);
  return found;
}

const sorted = (map) => [...map].sort(([one], [other]) => (one < other ? -1 : 1));

/** What a file says; what is wrong with it is said with its name. */
function fromFile(path, read) {
  let data;
  try {
    data = readFileSync(path);
  } catch (error) {
    throw new Unreadable(`${path}: ${error.message}`);
  }
  try {
    return read(data);
  } catch (error) {
    if (error instanceof Unreadable) throw new Unreadable(`${path}: ${error.message}`);
    throw error;
  }
}

/** What was kept outside of the log, to compare it with: by size, by id, and by index; these are BigInts. */
class Evidence {
  constructor({ key = [], checkpoint = [], receipts = [], proof = [] } = {}) {
    this.checkpoints = new Map();
    this.receipts = new Map();
    this.proofs = new Map();
    const keys = key.map(readKey);
    if (checkpoint.length + proof.length && !keys.length) {
      throw new Unreadable("a checkpoint or a proof says nothing without --key, the log's verifier key");
    }
    for (const path of checkpoint) {
      const { size, root } = fromFile(path, (data) => readCheckpoint(data, keys));
      push(this.checkpoints, size, { path, root });
    }
    for (const path of proof) {
      const found = fromFile(path, (data) => readProof(data, keys));
      push(this.proofs, found.index, { path, proof: found });
    }
    for (const path of receipts) {
      for (const { id, leaf } of fromFile(path, readReceipts)) push(this.receipts, id, { path, leaf });
    }
  }
}

const readReceipts = (data) => utf8(data, "it").split("\n").filter((line) => line.trim()).map(readReceipt);

/** One run over an export. `wrong` and `open` collect sentences; `open` is what could not be told. */
class Check {
  constructor(evidence) {
    Object.assign(this, { evidence, wrong: [], open: [], right: [], firstId: null, firstIndex: 0, agreed: null });
  }

  async run(lines, progress) {
    let log = null, number = 0;
    for await (const line of lines) {
      number += 1;
      try {
        if (line.length > LINE_MAX) throw new Unreadable(`it has more than ${LINE_MAX} bytes`);
        if (log === null) {
          log = Log.ofHeader(line);
          this.firstIndex = log.size;
          this.compareRoot(log);
        } else if (!this.row(log, readRow(line), number)) {
          return log;
        }
      } catch (error) {
        if (error instanceof Unreadable) throw new Unreadable(`line ${number}: ${error.message}`);
        throw error;
      }
      if (number % 1024 === 0) progress(number - 1);
    }
    if (log === null) throw new Unreadable("the export is empty; even one of an empty log has a first line");
    this.compareEnd(log);
    return log;
  }

  /** Whether the row comes next and is as it was sealed. */
  row(log, row, number) {
    try {
      log.add(row);
    } catch (error) {
      if (!(error instanceof Tampered)) throw error;
      this.wrong.push(`row id ${said(row.id)} (leaf ${row.leaf_index}, line ${number}): ${error.message}.`);
      return false;
    }
    this.firstId ??= row.id;
    this.compareRow(row);
    this.compareRoot(log);
    return true;
  }

  compareRoot(log) {
    for (const { path, root } of take(this.evidence.checkpoints, BigInt(log.size))) {
      if (root.equals(log.root())) {
        this.right.push(`the first ${log.size} rows are those of ${path}.`);
        this.agreed = log.size;
      } else {
        const since = this.agreed ? `those up to ${this.agreed} are` : "where they begin to differ is not known";
        this.wrong.push(`the first ${log.size} rows are not those of ${path}; ${since}.`);
      }
    }
  }

  compareRow(row) {
    for (const { path, leaf } of take(this.evidence.receipts, row.id)) {
      if (leaf.equals(row.leaf)) this.right.push(`row id ${row.id} is that of its receipt in ${path}.`);
      else this.wrong.push(`row id ${row.id}: the receipt in ${path} is of another row or history.`);
    }
    for (const { path, proof } of take(this.evidence.proofs, BigInt(row.leaf_index))) {
      this.compareProof(path, proof, row.leaf, `row id ${row.id}`);
    }
  }

  compareProof(path, proof, leaf, what) {
    try {
      requireProof(proof, leaf);
      this.right.push(`${what} is in the log of ${proof.size} rows that was signed, by ${path}.`);
    } catch (error) {
      if (!(error instanceof Tampered)) throw error;
      this.wrong.push(`${what}: the proof ${path} does not hold: ${error.message}.`);
    }
  }

  compareEnd(log) {
    for (const [size, checkpoints] of sorted(this.evidence.checkpoints)) {
      for (const { path } of checkpoints) {
        if (size < BigInt(this.firstIndex)) {
          this.open.push(`${path} is of the first ${size} rows; this export begins after ${this.firstIndex}.`);
        } else {
          this.wrong.push(`${path} is of ${size} rows, but there are ${log.size}: the end is missing.`);
        }
      }
    }
    for (const [id, receipts] of sorted(this.evidence.receipts)) {
      for (const { path } of receipts) {
        if (this.firstIndex && (this.firstId === null || id < this.firstId)) {
          this.open.push(`row id ${id}, of which ${path} has a receipt, is before this export.`);
        } else {
          this.wrong.push(`row id ${id} is missing, of which ${path} has a receipt.`);
        }
      }
    }
    for (const [index, proofs] of sorted(this.evidence.proofs)) {
      for (const { path } of proofs) {
        if (index < BigInt(this.firstIndex)) this.open.push(`leaf ${index}, which ${path} proves, is before this export.`);
        else this.wrong.push(`leaf ${index} is missing, which ${path} proves.`);
      }
    }
  }

  withoutExport() {
    const proofs = [...this.evidence.proofs.values()].flat();
    for (const { path, proof } of proofs) {
      if (proof.leaf) this.compareProof(path, proof, proof.leaf, `leaf ${proof.index}`);
      else this.open.push(`${path} does not say which leaf it is of; give the export too.`);
    }
    for (const [id, receipts] of this.evidence.receipts) {
      for (const { path, leaf } of receipts) {
        if (proofs.some(({ proof }) => proof.leaf?.equals(leaf))) {
          this.right.push(`the receipt of row id ${id} in ${path} is of the leaf that is proved.`);
        } else {
          this.open.push(`no proof is of the leaf of row id ${id} in ${path}; give the export too.`);
        }
      }
    }
  }
}

const said = (value) => (typeof value === "bigint" || typeof value === "string" ? value : "unknown");

function requireProof(proof, leaf) {
  if (proof.leaf && !proof.leaf.equals(leaf)) throw new Tampered("it is of another leaf");
  if (!rootOfInclusion(leaf, proof.index, proof.size, proof.path).equals(proof.root)) {
    throw new Tampered("its path does not lead to the root that was signed");
  }
}

/** The lines of a stream, each with its line feed. */
async function* linesOf(stream) {
  let parts = [], length = 0;
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      const last = chunk.subarray(start, end + 1);
      yield parts.length ? Buffer.concat([...parts, last]) : last;
      parts = [];
      length = 0;
      start = end + 1;
    }
    if (start < chunk.length) {
      parts.push(chunk.subarray(start));
      length += chunk.length - start;
      if (length > LINE_MAX) break;
    }
  }
  if (parts.length) yield Buffer.concat(parts);
}

async function verify(options, path) {
  const check = new Check(new Evidence(options));
  let log = null;
  if (path === undefined && options.proof && !options.checkpoint) {
    check.withoutExport();
  } else {
    const stream = path === undefined || path === "-" ? process.stdin : createReadStream(path, { highWaterMark: 1 << 18 });
    try {
      log = await check.run(linesOf(stream), progressOnTerminal());
    } catch (error) {
      if (error.code) throw new Unreadable(`${path ?? "standard input"}: ${error.message}`);
      throw error;
    } finally {
      stream.destroy();
      if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    }
  }
  return say(check, log, options.quiet);
}

function say(check, log, quiet) {
  for (const sentence of check.wrong) console.log(`TAMPERED: ${sentence}`);
  for (const sentence of check.open) console.log(`UNKNOWN: ${sentence}`);
  if (!quiet) for (const sentence of check.right) console.log(`ok: ${sentence}`);
  if (check.wrong.length) {
    if (log && log.lastId !== null) {
      console.log(`The rows fit together up to row id ${log.lastId} (leaf ${log.size - 1}).`);
    }
    return TAMPERED;
  }
  if (check.open.length) return UNREADABLE;
  if (log) {
    const rows = log.size - check.firstIndex;
    console.log(`${rows} rows fit together. Of ${log.size} leaves the root is ${base64(log.root())}`);
    if (check.agreed === null) {
      console.log("No checkpoint was compared: that the log was not made anew, or cut at its end, is not proved.");
    } else if (check.agreed < log.size) {
      console.log(`The last ${log.size - check.agreed} rows are newer than the newest checkpoint that was compared.`);
    }
  }
  return SOUND;
}

function progressOnTerminal() {
  if (!process.stderr.isTTY) return () => {};
  const began = performance.now();
  let last = began;
  return (rows) => {
    const now = performance.now();
    if (now - last < 500) return;
    last = now;
    const rate = Math.round((rows * 1000) / (now - began));
    process.stderr.write(`\r${rows.toLocaleString("en")} rows, ${rate.toLocaleString("en")} a second`);
  };
}

// The published test vectors.

/** Whether this program says of every vector what vectors.json says of it. */
async function checkVectors(path) {
  const vectors = fromFile(path, (data) => {
    try {
      return JSON.parse(utf8(data, "it"));
    } catch {
      throw new Unreadable("it is not JSON");
    }
  });
  const failed = [];
  let total = 0;
  for (const [name, index, holds] of vectorChecks(vectors)) {
    total += 1;
    try {
      if (!(await holds())) failed.push(`${name}[${index}]`);
    } catch (error) {
      if (!(error instanceof Unreadable || error instanceof Tampered)) throw error;
      failed.push(`${name}[${index}]: ${error.message}`);
    }
  }
  for (const name of failed) console.log(`FAILED: ${name}`);
  console.log(`${total - failed.length} of ${total} vectors are as published.`);
  return failed.length ? TAMPERED : SOUND;
}

const hex = (text) => Buffer.from(text, "hex");
const hexes = (texts) => texts.map(hex);
/** The bytes of a vector: as text, or as hex where they are not UTF-8. */
const given = (c) => ("hex" in c ? hex(c.hex) : Buffer.from(c.text, "utf8"));
const keysOf = (c) => c.keys.map(readKey);

/** A value of JSON.parse as Json.parse gives it. */
function adopted(value) {
  if (typeof value === "number") return BigInt(value);
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(adopted);
  return new Map(Object.entries(value).map(([name, member]) => [name, adopted(member)]));
}

function* vectorChecks(v) {
  const all = function* (name, cases, holds) {
    for (const [index, c] of cases.entries()) yield [name, index, () => holds(c)];
  };
  yield* all("fields", v.fields, (c) => field(valueOf(adopted(c.value), "value")).equals(hex(c.bytes)));
  const log = Log.ofHeader(Buffer.from(v.export.header));
  const roots = [log.root().toString("hex")];
  yield* all("export.rows", v.export.rows, (c) => rowIs(log, roots, c));
  yield ["roots", 0, () => roots.join() === v.roots.join()];
  yield* all("exports", v.exports, async (c) => {
    const [wrong, root] = await runLines(c.lines);
    return wrong === "" && root === c.root;
  });
  const leaves = v.export.rows.map((c) => hex(c.leaf)), tree = hexes(v.roots);
  yield* all("inclusion", v.inclusion, (c) =>
    rootOfInclusion(leaves[c.index], BigInt(c.index), BigInt(c.size), hexes(c.path)).equals(tree[c.size]));
  yield* all("consistency", v.consistency, (c) =>
    checkConsistency(BigInt(c.from), tree[c.from], BigInt(c.to), tree[c.to], hexes(c.proof)) === undefined);
  yield* all("notes", v.notes, (c) => openNote(Buffer.from(c.note), keysOf(c)).text === c.text);
  yield* all("checkpoints", v.checkpoints, (c) => {
    const { origin, size, root } = readCheckpoint(Buffer.from(c.note), keysOf(c));
    return origin === c.origin && size === BigInt(c.size) && root.equals(hex(c.root));
  });
  yield* all("proofs", v.proofs, (c) => requireProof(readProof(given(c), keysOf(c)), hex(c.leaf)) === undefined);
  yield* all("receipts", v.receipts, (c) => {
    const { id, leaf } = readReceipt(c.receipt);
    return id === BigInt(c.id) && leaf.equals(hex(c.leaf));
  });
  const refused = {
    values: (c) => valueOf(adopted(c.value), "value"),
    headers: (c) => Log.ofHeader(given(c)),
    rows: (c) => readRow(given(c)),
    keys: (c) => readKey(c.key),
    notes: (c) => openNote(given(c), keysOf(c)),
    checkpoints: (c) => readCheckpoint(given(c), keysOf(c)),
    proofs: (c) => requireProof(readProof(given(c), keysOf(c)), hex(c.leaf)),
    receipts: (c) => readReceipt(c.receipt),
    inclusion: (c) => {
      const root = rootOfInclusion(hex(c.leaf), BigInt(c.index), BigInt(c.size), hexes(c.path));
      if (!root.equals(hex(c.root))) throw new Tampered("it does not hold");
    },
    consistency: (c) =>
      checkConsistency(BigInt(c.from), hex(c.from_root), BigInt(c.to), hex(c.to_root), hexes(c.proof)),
  };
  for (const [name, attempt] of Object.entries(refused)) {
    yield* all(`refused.${name}`, v.refused[name], (c) => {
      try {
        attempt(c);
      } catch (error) {
        if (error instanceof Unreadable || error instanceof Tampered) return true;
        throw error;
      }
      return false;
    });
  }
  yield* all("refused.exports", v.refused.exports, async (c) => (await runLines(c.lines))[0].includes(c.row));
}

function rowIs(log, roots, c) {
  const row = readRow(Buffer.from(c.line));
  const commitment = commitmentOf(row);
  const sealed = leafBytes(log.previous, commitment, row);
  const personal = row.salt && commitmentBytes(row.salt, row.telegram_id, row.details).toString("hex");
  log.add(row);
  roots.push(log.root().toString("hex"));
  return commitment.equals(hex(c.commitment)) && sealed.equals(hex(c.leaf_bytes)) && row.leaf.equals(hex(c.leaf))
    && personal === c.commitment_bytes;
}

async function runLines(lines) {
  const check = new Check(new Evidence());
  const log = await check.run(lines.map((line) => Buffer.from(line)), () => {});
  return [check.wrong.join("\n"), log.root().toString("hex")];
}

const USAGE = `usage: verify.mjs [export] [--key VKEY]... [--checkpoint FILE]... [--receipts FILE]... [--proof FILE]...
       verify.mjs --vectors FILE

Check an export of Passbook's audit log; standard input when it is - or left out.

  --key VKEY         the log's verifier key
  --checkpoint FILE  a signed checkpoint
  --receipts FILE    Passbook-Receipt values, a line each
  --proof FILE       a .tlog-proof of one row
  --vectors FILE     check this program itself with vectors.json
  --quiet            leave out what was found to be right

Exit code 0: sound. 1: tampered with. 2: it cannot be told, or was asked wrongly.`;

async function main() {
  const many = { type: "string", multiple: true };
  let options, positionals;
  try {
    ({ values: options, positionals } = parseArgs({
      options: {
        key: many, checkpoint: many, receipts: many, proof: many,
        vectors: { type: "string" }, quiet: { type: "boolean" }, help: { type: "boolean", short: "h" },
      },
      allowPositionals: true,
    }));
    if (positionals.length > 1) throw new Error("more than one export");
  } catch (error) {
    console.error(`${USAGE}\n\n${error.message}`);
    return UNREADABLE;
  }
  if (options.help) {
    console.log(USAGE);
    return SOUND;
  }
  try {
    return await (options.vectors ? checkVectors(options.vectors) : verify(options, positionals[0]));
  } catch (error) {
    if (error instanceof Tampered) {
      console.log(`TAMPERED: ${error.message}`);
      return TAMPERED;
    }
    console.log(`UNREADABLE: ${error instanceof Unreadable ? error.message : error.stack}`);
    return UNREADABLE;
  }
}

process.exitCode = await main();
