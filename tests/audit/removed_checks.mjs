// Runs verify.mjs without each of its checks in turn: `node --expose-internals removed_checks.mjs`.
//
// Reads {program, skip, known, keys, forgeries} as JSON from standard input: the file, functions and checks to leave
// alone, keys, and [name, kind, given] each. Prints {taken, needless, checks}: forgeries that the whole program takes
// for true, checks without which it refuses all of them all the same, and all checks that there are.
//
// A check is an `if` that throws, returns false, or reports; a statement that calls require…, check…, log.add or
// this.compareEnd; a `throw` at the end of a function or of a catch. Each alternative of a condition is a check of its own, and so
// is each part of a conjunction that lets a value pass in a function which throws at its end.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
const { parse } = require("internal/deps/acorn/acorn/dist/acorn"); // the parser that node itself has
const walk = require("internal/deps/acorn/acorn-walk/dist/walk");

const asked = JSON.parse(readFileSync(0, "utf8"));
const source = readFileSync(asked.program, "utf8");
const tree = parse(source, { ecmaVersion: "latest", sourceType: "module", allowHashBang: true });
const text = (node) => source.slice(node.start, node.end);
const short = (node) => text(node).replace(/\s+/g, " ");

const CALLS = /(?:^|\.)(?:require|check)[A-Z]\w*$|^log\.add$|^this\.compareEnd$/;
const REPORTS = /^this\.(?:wrong|open)\.push\(/;

function last(statement) {
  return statement.type === "BlockStatement" ? statement.body.at(-1) : statement;
}

/** Whether it makes an error, and is not one that goes on. */
const throws = (statement) => statement?.type === "ThrowStatement" && statement.argument.type !== "Identifier";

function refuses(statement) {
  const end = last(statement);
  if (end?.type === "ReturnStatement") return end.argument?.type === "Literal" && end.argument.value === false;
  return throws(end) || (end?.type === "ExpressionStatement" && REPORTS.test(text(end)));
}

function parts(test, operator) {
  if (test.type !== "LogicalExpression" || test.operator !== operator) return [test];
  return [...parts(test.left, operator), ...parts(test.right, operator)];
}

/** [what is said of it, where it begins, where it ends, what stands there without it] of each check in a function. */
function* changes(body) {
  const found = [];
  walk.full(body, (node) => found.push(node));
  const always = body.type === "BlockStatement" && throws(body.body.at(-1)) ? body.body.at(-1) : null;
  if (always) yield [short(always), always.start, always.end, ""];
  for (const node of found) {
    if (node.type === "IfStatement") {
      const { test } = node;
      if (refuses(node.consequent)) {
        yield [short(test), test.start, test.end, `(${text(test)}) && false`];
        const alternatives = parts(test, "||");
        for (const one of alternatives.length > 1 ? alternatives : []) {
          const left = alternatives.filter((other) => other !== one).map((other) => `(${text(other)})`);
          yield [`${short(one)} (of ${short(test)})`, test.start, test.end, left.join(" || ")];
        }
      } else if (always && last(node.consequent)?.type === "ReturnStatement") {
        const conditions = parts(test, "&&");
        for (const one of conditions.length > 1 ? conditions : []) {
          const left = conditions.filter((other) => other !== one).map((other) => `(${text(other)})`);
          yield [`${short(one)} (of ${short(test)})`, test.start, test.end, left.join(" && ")];
        }
      }
      if (node.alternate && refuses(node.alternate)) {
        yield [`not ${short(test)}`, test.start, test.end, `(${text(test)}) || true`];
      }
    } else if (node.type === "ExpressionStatement" && node.expression.type === "CallExpression") {
      if (CALLS.test(text(node.expression.callee))) yield [short(node), node.start, node.end, ";"];
    } else if (node.type === "CatchClause" && throws(last(node.body))) {
      yield [`catch: ${short(last(node.body))}`, node.body.start, node.body.end, "{}"];
    }
  }
}

function* functions() {
  for (const node of tree.body) {
    if (node.type === "FunctionDeclaration") yield [node.id.name, node.body];
    if (node.type === "ClassDeclaration") {
      for (const one of node.body.body) {
        if (one.type === "MethodDefinition") yield [`${node.id.name}.${one.key.name}`, one.value.body];
      }
    }
    if (node.type === "VariableDeclaration") {
      for (const one of node.declarations) {
        if (one.init?.type === "ArrowFunctionExpression") yield [one.id.name, one.init.body];
      }
    }
  }
}

const names = tree.body.flatMap((node) => (node.id ? [node.id.name] : (node.declarations ?? []).map((one) => one.id.name)));
const main = tree.body.at(-1);
if (text(main) !== "process.exitCode = await main();") throw new Error(`the program ends with ${text(main)}`);
const LIMIT = "const LINE_MAX =";
if (source.split(LIMIT).length !== 2) throw new Error("there is no LINE_MAX");

/** The program as a module, with what each [start, end, text] says in place of what stands there; it exports all that it has. */
async function program(...edits) {
  let changed = source.slice(0, main.start);
  for (const [start, end, instead] of edits.toSorted((one, other) => other[0] - one[0])) {
    changed = changed.slice(0, start) + instead + changed.slice(end);
  }
  changed = changed.replace(LIMIT, "let LINE_MAX =");
  const whole = `${changed}\nexport { ${names.join(", ")} };\nexport function limit(bytes) { const was = LINE_MAX; LINE_MAX = bytes; return was; }\n`;
  return import(`data:text/javascript;base64,${Buffer.from(whole).toString("base64")}`);
}

const decoded = new Map();

/** Of base64; decoded once, for all the programs. */
function bytes(encoded) {
  if (!decoded.has(encoded)) decoded.set(encoded, Buffer.from(encoded, "base64"));
  return decoded.get(encoded);
}

/** What each kind of forgery is shown to; it is refused where that throws, or returns false. */
const SHOWN = {
  key: (m, given) => m.readKey(bytes(given).toString()),
  note: (m, given) => m.openNote(bytes(given), asked.keys.map(m.readKey)),
  proof: (m, given) => m.readProof(bytes(given), asked.keys.map(m.readKey)),
  header: (m, given) => m.Log.ofHeader(bytes(given)),
  row: (m, given) => m.readRow(bytes(given)),
  evidence: (m, given) => new m.Evidence(given),
  inclusion: (m, [leaf, index, size, path, root]) => {
    const found = m.rootOfInclusion(bytes(leaf), BigInt(index), BigInt(size), path.map(bytes));
    return root === null || found.equals(bytes(root));
  },
  consistency: (m, [first, firstRoot, second, secondRoot, proof]) => {
    m.checkConsistency(BigInt(first), bytes(firstRoot), BigInt(second), bytes(secondRoot), proof.map(bytes));
  },
  export: async (m, { lines, evidence, limit }) => {
    const check = new m.Check(new m.Evidence(evidence));
    const was = m.limit(limit ?? Infinity);
    try {
      await check.run(lines.map(bytes), () => {});
    } finally {
      m.limit(was);
    }
    return !(check.wrong.length || check.open.length);
  },
  alone: (m, evidence) => {
    const check = new m.Check(new m.Evidence(evidence));
    check.withoutExport();
    return !(check.wrong.length || check.open.length);
  },
  vectors: async (m, given) => {
    for (const [name, , holds] of m.vectorChecks(given)) {
      if (name.startsWith("refused.") && !(await holds())) return true;
    }
    return false;
  },
};

async function isRefused(module, [, kind, given]) {
  try {
    return (await SHOWN[kind](module, given)) === false;
  } catch (error) {
    return error instanceof module.Unreadable || error instanceof module.Tampered; // another error is nobody's answer
  }
}

/** The program tells which of its functions run: one that a forgery never comes to decides nothing about it. */
globalThis.ran = new Set();
const marks = [];
for (const [name, body] of functions()) {
  if (body.type === "BlockStatement") marks.push([body.start + 1, body.start + 1, `globalThis.ran.add(${JSON.stringify(name)});`]);
}
const whole = await program(...marks);
const taken = [];
const times = new Map();
const comesTo = new Map();
for (const forgery of asked.forgeries) {
  globalThis.ran.clear();
  const began = performance.now();
  if (!(await isRefused(whole, forgery))) taken.push(forgery[0]);
  times.set(forgery, performance.now() - began);
  comesTo.set(forgery, new Set(globalThis.ran));
}
const cheapestFirst = asked.forgeries.toSorted((one, other) => times.get(one) - times.get(other));
const needless = [];
const checks = [];
for (const [name, body] of functions()) {
  if (asked.skip.includes(name)) continue;
  for (const [said, start, end, instead] of changes(body)) {
    const check = `${name}: ${said}`;
    checks.push(check);
    if (asked.known.includes(check)) continue;
    const without = await program([start, end, instead]);
    let found = false;
    for (const forgery of cheapestFirst) {
      if (body.type === "BlockStatement" && !comesTo.get(forgery).has(name)) continue;
      if (!(await isRefused(without, forgery))) {
        found = true;
        break;
      }
    }
    if (!found) needless.push(check);
  }
}
console.log(JSON.stringify({ taken, needless, checks }));
