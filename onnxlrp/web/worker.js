// Holds the sessions, so that the page stays awake while a network runs.

import * as ort from "./ort/ort.webgpu.min.mjs";
import { read } from "./contract.js";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.logLevel = "error";

/** How far WebGPU may be from WebAssembly, as a part of the largest relevance. */
const TOLERANCE = 1e-3;

const opened = new Map();

async function open(id, bytes, allowed) {
  const contract = read(bytes);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const kinds = Object.fromEntries(session.inputMetadata.map((one) => [one.name, one]));
  const shape = kinds[contract.input].shape;
  if (shape.length !== 4) throw new Error(`its input has ${shape.length} axes, and pictures have four with the batch`);
  const held = { contract, kinds, session, runs: "WebAssembly", why: allowed ? "" : "asked for", bytes };
  if (allowed && !navigator.gpu) held.why = "this browser has no WebGPU";
  else if (allowed && !(await navigator.gpu.requestAdapter())) held.why = "there is no adapter for WebGPU";
  else if (allowed) held.untried = true;
  held.scored = contract.logits && session.outputNames.includes(contract.score);
  opened.set(id, held);
  return { contract, shape, runs: held.runs, why: held.why };
}

function tensor(kind, values, shape) {
  if (kind.type === "float32") return new ort.Tensor("float32", values, shape);
  if (kind.type === "uint8") return new ort.Tensor("uint8", Uint8Array.from(values), shape);
  throw new Error(`its input is of type ${kind.type}, which this page does not make`);
}

function fed({ contract, kinds }, values, shape, target) {
  const kind = kinds[contract.input];
  // A batch that the model fixes is filled up with the one picture.
  const count = typeof kind.shape[0] === "number" && kind.shape[0] > 0 ? kind.shape[0] : 1;
  const filled = new Float32Array(count * values.length);
  for (let row = 0; row < count; row++) filled.set(values, row * values.length);
  const feeds = { [contract.input]: tensor(kind, filled, [count, ...shape]) };
  if (contract.target) {
    feeds[contract.target] = new ort.Tensor("int64", BigInt64Array.from({ length: count }, () => BigInt(target)), [count]);
  }
  return feeds;
}

async function once(session, feeds) {
  const found = {};
  for (const [name, output] of Object.entries(await session.run(feeds))) {
    found[name] = { dims: output.dims, data: output.location === "cpu" ? output.data : await output.getData() };
  }
  return found;
}

/** Run by WebGPU, too, the first time: a wrong number comes without an exception. */
async function tried(held, feeds, expected) {
  held.untried = false;
  try {
    const session = await ort.InferenceSession.create(held.bytes, { executionProviders: ["webgpu", "wasm"] });
    const name = held.contract.relevance;
    const found = (await once(session, feeds))[name].data, wanted = expected[name].data;
    let most = 0, furthest = 0;
    for (let index = 0; index < wanted.length; index++) {
      most = Math.max(most, Math.abs(wanted[index]));
      const distance = Math.abs(found[index] - wanted[index]);
      furthest = distance <= furthest ? furthest : distance;
    }
    if (!(furthest <= TOLERANCE * most)) {
      held.why = `WebGPU is off by ${(furthest / most).toPrecision(2)} of the largest relevance`;
      await session.release();
      return;
    }
    await held.session.release();
    Object.assign(held, { session, runs: "WebGPU", why: `agrees with WebAssembly to ${(furthest / most).toPrecision(2)}` });
  } catch (error) {
    held.why = `WebGPU fails: ${String(error.message ?? error).split("\n")[0]}`;
  }
}

async function explain(id, values, shape, target) {
  const held = opened.get(id), { contract } = held;
  const feeds = fed(held, values, shape, target);
  const start = performance.now();
  const outputs = await once(held.session, feeds);
  const seconds = (performance.now() - start) / 1000;
  if (held.untried) await tried(held, feeds, outputs);
  const scored = outputs[held.scored ? contract.score : contract.output];
  const classes = scored.data.length / scored.dims[0];
  return {
    relevance: Float32Array.from(outputs[contract.relevance].data.subarray(0, values.length)),
    scores: Float32Array.from(scored.data.subarray(0, classes)),
    seconds, runs: held.runs, why: held.why,
  };
}

const answers = { open, explain };

onmessage = async ({ data: { call, task, given } }) => {
  try {
    postMessage({ task, result: await answers[call](...given) });
  } catch (error) {
    postMessage({ task, error: String(error.message ?? error).split("\n")[0] });
  }
};
