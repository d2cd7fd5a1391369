// Holds the sessions, so that the page stays awake while a network runs.

import * as ort from "./ort/ort.webgpu.min.mjs";
import { kind, read } from "./contract.js";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.logLevel = "error";
// Whatever the file, a first session has WebAssembly fetched and compiled: while people still choose theirs.
ort.InferenceSession.create(new Uint8Array(), { executionProviders: ["wasm"], logSeverityLevel: 4 }).catch(() => {});

/** How far WebGPU may be from WebAssembly, as a part of the largest relevance. */
const TOLERANCE = 1e-3;

const opened = new Map();
const line = (error) => String(error.message ?? error).split("\n")[0];

async function open(id, bytes, allowed) {
  const contract = read(bytes);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const inputs = session.inputMetadata.filter(({ name }) => name !== contract.target).map(({ name, type, shape }) =>
    // onnxruntime-web calls a size of -1 that.
    ({ name, type, shape: shape.map((size) => (size === 2 ** 32 - 1 ? "?" : size)) }));
  const held = { contract, inputs, session, why: allowed ? "" : "asked for", bytes };
  if (allowed && !navigator.gpu) held.why = "this browser has no WebGPU";
  else if (allowed && !(await navigator.gpu.requestAdapter())) held.why = "there is no adapter for WebGPU";
  else if (allowed) held.agreed = new Set();
  held.scored = contract.logits && session.outputNames.includes(contract.score);
  opened.set(id, held);
  return { contract, inputs, kind: kind(contract, inputs) };
}

const NUMBERS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, int16: Int16Array, int32: Int32Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, bool: Uint8Array,
  ...(globalThis.Float16Array && { float16: Float16Array }),
};

function tensor(name, type, data, shape) {
  if (type === "int64") return new ort.Tensor(type, BigInt64Array.from(data, BigInt), shape);
  if (!NUMBERS[type]) throw new Error(`its input '${name}' is of type ${type}, which this page does not make`);
  const values = NUMBERS[type].from(data, Number);
  if (!type.startsWith("float") && values.some((value, index) => value !== Number(data[index]))) {
    throw new Error(`'${name}' takes whole numbers, ${type}`);
  }
  return new ort.Tensor(type, values, shape);
}

function fed({ contract, inputs }, given, target) {
  const feeds = {};
  let rows = 1;
  for (const { name, type, shape } of inputs) {
    const { data, shape: own } = given[name];
    // A batch that the model fixes is filled up with the one sample.
    const fixed = typeof shape[0] === "number" && shape[0] > 0 && own[0] === 1 ? shape[0] : 1;
    if (name in contract.relevance) rows = fixed;
    feeds[name] = tensor(name, type, fixed > 1 ? Array(fixed).fill(Array.from(data)).flat() : data, [own[0] * fixed, ...own.slice(1)]);
  }
  if (contract.target) {
    feeds[contract.target] = new ort.Tensor("int64", BigInt64Array.from({ length: rows }, () => BigInt(target)), [rows]);
  }
  return { feeds, rows };
}

async function once(session, feeds) {
  const found = {};
  for (const [name, output] of Object.entries(await session.run(feeds))) {
    found[name] = { dims: output.dims, data: output.location === "cpu" ? output.data : await output.getData() };
  }
  return found;
}

/** Run by WebGPU, too, where inputs of these shapes have not been: a wrong number comes without an exception. */
async function verify(id) {
  const held = opened.get(id);
  if (!held?.last) return held?.why;
  const { feeds, key, outputs: expected } = held.last;
  held.last = null;
  try {
    held.gpu ??= await ort.InferenceSession.create(held.bytes, { executionProviders: ["webgpu", "wasm"] });
    const found = await once(held.gpu, feeds);
    let most = 0, furthest = 0;
    for (const name of Object.values(held.contract.relevance)) {
      expected[name].data.forEach((wanted, index) => {
        most = Math.max(most, Math.abs(wanted));
        furthest = Math.max(furthest, Math.abs(found[name].data[index] - wanted));
      });
    }
    if (!(furthest <= TOLERANCE * most)) throw new Error(`it is off by ${(furthest / most).toPrecision(2)} of the largest relevance`);
    held.agreed.add(key);
    held.why = `WebGPU agrees with WebAssembly to ${(most && furthest / most).toPrecision(2)}`;
  } catch (error) {
    without(held, error);
  }
  return held.why;
}

/** Go on by WebAssembly alone. */
function without(held, error) {
  held.gpu?.release().catch(() => {});
  Object.assign(held, { gpu: null, agreed: null, why: `not by WebGPU: ${line(error)}` });
}

async function explain(id, given, target) {
  const held = opened.get(id), { contract } = held;
  const { feeds, rows } = fed(held, given, target);
  const key = JSON.stringify(Object.values(feeds).map(({ dims }) => dims));
  const start = performance.now();
  let outputs = null, runs = "WebGPU";
  if (held.agreed?.has(key)) outputs = await once(held.gpu, feeds).catch((error) => without(held, error));
  if (!outputs) {
    runs = "WebAssembly";
    outputs = await once(held.session, feeds);
  }
  const seconds = (performance.now() - start) / 1000;
  held.last = held.agreed && !held.agreed.has(key) ? { feeds, key, outputs } : null;
  const scored = outputs[held.scored ? contract.score : contract.output];
  const relevance = {};
  for (const [input, name] of Object.entries(contract.relevance)) {
    const { data, dims } = outputs[name], size = data.length / rows;
    relevance[input] = { data: Float32Array.from(data.subarray(0, size)), shape: [dims[0] / rows, ...dims.slice(1)] };
  }
  return {
    relevance, scores: Float32Array.from(scored.data.subarray(0, scored.data.length / scored.dims[0])),
    seconds, runs, why: held.last ? "" : held.why, unverified: Boolean(held.last),
  };
}

async function close(id) {
  const { session, gpu } = opened.get(id);
  opened.delete(id);
  await session.release();
  await gpu?.release();
}

const answers = { open, explain, verify, close };

onmessage = async ({ data: { call, task, given } }) => {
  try {
    postMessage({ task, result: await answers[call](...given) });
  } catch (error) {
    postMessage({ task, error: line(error) });
  }
};
