import { columns, npy, npz, table } from "./arrays.js";
import { gradient } from "./colours.js";
import { drawn, made, number } from "./drawing.js";
import { decoded, opaque, prepared } from "./picture.js";
import { Reader, beside } from "./text.js";

const at = (id) => document.getElementById(id);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let tasks = 0, explainers = 0;

worker.onmessage = ({ data: { task, result, error } }) => {
  const { resolve, reject } = waiting.get(task);
  waiting.delete(task);
  if (error) reject(new Error(error));
  else resolve(result);
};
worker.onerror = (event) => say(`this browser cannot run it: ${event.message}`, true);

const asked = (call, ...given) => new Promise((resolve, reject) => {
  waiting.set(++tasks, { resolve, reject });
  worker.postMessage({ call, task: tasks, given });
});

const state = { explainers: [null, null], item: null, tokenizer: null, labels: null, target: -1, shown: [], stale: false };
const className = (index) => state.labels?.[index] ?? `class ${index}`;
const READS = {
  picture: "a picture", text: "a text: type it", row: "a row: type its numbers, or drop .csv, .npy", arrays: "arrays: drop .npy or .npz",
};

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", wrong);
}

/** Do one thing after the other; what goes wrong is told in one line. */
let before = Promise.resolve();
const next = (work) => (before = before.then(work).catch((error) => {
  say(error.message.split("\n")[0], true);
  // A map of something else would be taken for one of this.
  if (state.stale) at("result").hidden = true;
}));

async function named(name, work) {
  try {
    return await work();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
}

/** Open an explainer; a dropped one of the same model is compared, one of another model takes the place of all. */
async function explainer(place, name, bytes) {
  say(`opening ${name} …`);
  const id = ++explainers, allowed = !new URLSearchParams(location.search).has("wasm");
  const one = { id, name, ...(await named(name, () => asked("open", id, bytes, allowed))) };
  const [first] = state.explainers, same = first?.contract.model === one.contract.model;
  if (place === 1 && first && !same) {
    await asked("close", id);
    throw new Error(`${name} explains another model than ${first.name}`);
  }
  const to = place ?? Number(Boolean(first) && same);
  const gone = state.explainers.filter((other, index) => other && (index === to || !same));
  for (const other of gone) await asked("close", other.id);
  // Another model reads other things, and has other classes.
  if (first && !same) {
    const kept = first.kind === "picture" && one.kind === "picture" ? state.item : null;
    Object.assign(state, { explainers: [null, null], item: kept, tokenizer: null, labels: null, target: -1, shown: [] });
    for (const id of ["second", "labels", "tokenizer", ...(kept ? [] : ["item"])]) at(id).value = "";
    at("result").hidden = true;
  }
  state.explainers[to] = one;
  await explain();
}

async function names(name, text) {
  if (name.endsWith(".json")) {
    const read = JSON.parse(text);
    state.labels = Object.values(read).map((entry) => (Array.isArray(entry) ? entry.at(-1) : entry));
  } else {
    state.labels = text.split(/\r?\n/).filter((line) => line.trim());
  }
  await explain();
}

async function item(found) {
  Object.assign(state, { item: found, target: -1 });
  at("sample").value = 1;
  await explain();
}

const ANSWERS = /^(y|labels?|target)$/;
const fits = (shape, wanted) => shape.length === wanted.length &&
  shape.every((size, axis) => typeof wanted[axis] !== "number" || wanted[axis] <= 0 || wanted[axis] === size);
const written = (shape) => `[${shape.map((size) => (typeof size === "number" && size > 0 ? size : "?")).join(", ")}]`;

/** Which of so many samples is asked for. */
function chosen(count) {
  const row = Math.min(count, Math.max(1, Number(at("sample").value) || 1)) - 1;
  at("sampling").hidden = count === 1;
  Object.assign(at("sample"), { max: count, value: row + 1 });
  return row;
}

/** Pixels in an array, [H, W], [H, W, C] or [N, H, W, C]; null where it is to be read by the model as it is. */
function pictured(one, { name, arrays }) {
  const [array, ...others] = Object.entries(arrays).filter(([key]) => !ANSWERS.test(key)).map(([, array]) => array);
  const [input] = one.inputs.filter((input) => input.name in one.contract.relevance);
  if (one.kind !== "picture" || input.type === "uint8" || others.length || array?.type !== "u1") return null;
  const { data, shape } = array, [height, width, channels = 1] = shape.slice(shape.length > 3 ? 1 : 0);
  if (shape.length < 2 || shape.length > 4 || channels > 4 || !data.length) throw new Error(`${name}: uint8 [${shape.join(", ")}] is no picture: those are uint8 [H, W, C]`);
  const size = height * width * channels, row = chosen(data.length / size);
  return opaque({ data: data.subarray(row * size, (row + 1) * size), width, height, channels });
}

/** Arrays as the inputs of an explainer: sample by sample where all have as many. */
function arrays(one, from) {
  const { inputs, contract } = one, given = { ...from.arrays };
  const explained = inputs.filter(({ name }) => name in contract.relevance);
  if (given[""]) {
    given[explained[0].name] = given[""];
    delete given[""];
  }
  const found = {};
  for (const { name, shape } of inputs) {
    if (!given[name]) continue;
    let array = given[name];
    if (fits([1, ...array.shape], [-1, ...shape.slice(1)])) array = { ...array, shape: [1, ...array.shape] };
    if (!fits(array.shape, [-1, ...shape.slice(1)])) throw new Error(`${from.name} is ${written(array.shape)}, and '${name}' of ${one.name} reads ${written(shape)}`);
    found[name] = array;
  }
  const unknown = Object.keys(given).find((name) => !found[name] && !ANSWERS.test(name));
  if (unknown) throw new Error(`${from.name}: the model has no input '${unknown}', only ${inputs.map(({ name }) => name).join(", ")}`);
  const counts = new Set(Object.values(found).map(({ shape }) => shape[0]));
  const count = counts.size === 1 ? [...counts][0] : 1;
  if (Object.values(found).some(({ data }) => !data.length)) throw new Error(`${from.name} holds no numbers`);
  const row = chosen(count);
  if (count > 1) {
    for (const [name, { data, shape }] of Object.entries(found)) {
      const size = data.length / count;
      found[name] = { data: data.slice(row * size, (row + 1) * size), shape: [1, ...shape.slice(1)] };
    }
  }
  for (const [name, { data }] of Object.entries(found)) {
    if (data.some?.((value) => !Number.isFinite(Number(value))) && !contract.missing.includes(name)) throw new Error(`${from.name}: '${name}' holds NaN or infinity`);
  }
  const lacking = inputs.find(({ name }) => !found[name]);
  if (!lacking) return found;
  if (one.kind !== "text" || !found[explained[0].name]) throw new Error(`the model also reads '${lacking.name}': give it, too, by that name in an .npz`);
  return { ...beside(inputs, explained[0].name, found[explained[0].name], state.tokenizer?.pad), ...found };
}

/** What is given, as the inputs of an explainer, and how it is drawn. */
function feeds(one) {
  const { contract, inputs, kind } = one, { item: given } = state;
  at("sampling").hidden = true;
  const pixels = given.pixels ?? (given.arrays && pictured(one, given));
  if (given.arrays && !pixels) return { given: arrays(one, given) };
  const [{ name, shape }] = inputs.filter((input) => input.name in contract.relevance);
  if (given.table) {
    if (kind !== "row") throw new Error(`${one.name} reads no rows of a table, but ${READS[kind]}`);
    const read = { [name]: columns(given.table, contract.features[name], shape[1]) };
    return { given: arrays(one, { name: given.name, arrays: read }) };
  }
  if (pixels) {
    if (kind !== "picture") {
      throw new Error(shape.length === 4
        ? `${one.name} does not say how its pictures are made: convert with --preprocess, as in --preprocess imagenet, or drop arrays`
        : `${given.name} is a picture, and ${one.name} reads ${READS[kind]}`);
    }
    const { values, shape: own, seen } = prepared(pixels, contract.preprocessing);
    if (!fits([1, ...own], [-1, ...shape.slice(1)])) throw new Error(`the picture is made ${written(own)}, and ${one.name} reads ${written(shape.slice(1))}: it stores another preprocessing than its model's`);
    return { given: { [name]: { data: values, shape: [1, ...own] } }, seen, last: contract.preprocessing.layout === "NHWC" };
  }
  const width = typeof shape[1] === "number" && shape[1] > 0 ? shape[1] : null;
  const text = state.tokenizer.tokens(given.text, width ?? undefined), fill = (list, value) => [...list, ...Array((width ?? list.length) - list.length).fill(value)];
  const ids = { data: fill(text.ids, state.tokenizer.pad ?? 0), shape: [1, width ?? text.ids.length] };
  const mask = fill(text.ids.map(() => 1), 0);
  return { given: beside(inputs, name, ids, state.tokenizer.pad, { mask, types: fill(text.types, 0) }), text };
}

/** Read what was typed. */
function typed() {
  const [first] = state.explainers, text = at("typed").value;
  if (!text.trim()) throw new Error("nothing is typed yet");
  if (first.kind === "text" && !state.tokenizer) throw new Error("a text needs the model's tokenizer: choose or drop its tokenizer.json");
  return item(first.kind === "text" ? { name: "the text", text } : { name: "the row", table: table(text) });
}

async function explain() {
  const [first, second] = state.explainers;
  at("typing").hidden = !["text", "row"].includes(first?.kind);
  at("tokenizing").hidden = first?.kind !== "text";
  at("asked").textContent = first?.kind === "row" ? "Row, its numbers parted by commas" : "Text";
  if (!first || !state.item) {
    if (!first) say(state.item ? "now an explainer" : "First an explainer: `onnxlrp convert MODEL EXPLAINER` makes one of a model.");
    else if (first.kind === "text" && !state.tokenizer) say(`${first.name} is open: now its tokenizer.json`);
    else say(`${first.name} is open: now ${READS[first.kind]}`);
    return;
  }
  say("computing …");
  state.stale = true;
  let { target } = state;
  const shown = [];
  for (const one of [first, second].filter(Boolean)) {
    const { given, ...how } = feeds(one);
    const found = await named(one.name, () => asked("explain", one.id, given, target));
    if (target < 0) target = found.scores.reduce((best, score, index) => (score > found.scores[best] ? index : best), 0);
    shown.push({ one, given, how, found, target: ["", "top"].includes(one.contract.fixed) ? target : Number(one.contract.fixed) });
  }
  state.shown = shown;
  show();
  state.shown.filter(({ found }) => found.unverified).forEach(verify);
  say(state.shown.some(({ how }) => how.text?.cut) ? "the text is longer than the model reads: its end was left out" : "");
}

function show() {
  const [{ found, one, target }] = state.shown;
  const order = Array.from(found.scores.keys()).sort((a, b) => found.scores[b] - found.scores[a]);
  at("class").replaceChildren(...order.map((index) => new Option(`${className(index)}  ${number(found.scores[index])}`, index)));
  at("class").value = target;
  at("class").disabled = !one.contract.target;
  at("maps").replaceChildren(...state.shown.map(figure));
  at("mixing").hidden = !state.shown.some(({ parts }) => parts.some((part) => part.mixes));
  at("hover").textContent = "\u00a0";
  state.stale = at("result").hidden = false;
  draw();
}

/** Try WebGPU once a map is there: its first run may take longer than all others. */
const verify = (shown) => next(async () => {
  shown.facts.textContent = facts(shown, "trying WebGPU …");
  shown.found.why = await asked("verify", shown.one.id);
  shown.facts.textContent = facts(shown);
});

function facts({ one, found, target }, why = found.why) {
  const sum = Object.values(found.relevance).reduce((all, { data }) => all + data.reduce((a, b) => a + b, 0), 0);
  return `score ${number(found.scores[target])}, ${one.contract.yields} sums to ${number(sum)}; ` +
    `${found.seconds.toFixed(2)} s by ${found.runs}${why ? ` (${why})` : ""}`;
}

function figure(shown) {
  const { one, found, given, how, target } = shown, { contract } = one;
  const title = `${one.name}: ${className(target)}`, label = `Relevance by ${one.name} for ${className(target)}`;
  const inputs = Object.keys(found.relevance);
  shown.parts = inputs.map((input, index) => drawn(found.relevance[input], given[input], {
    ...how, names: contract.features[input], label: inputs.length > 1 ? `${label}, input ${input}` : label,
    hover: (place) => hover(index, place),
  }));
  shown.facts = made("span", { className: "facts", textContent: facts(shown) });
  return made("figure", {},
    made("figcaption", {}, made("strong", { textContent: title }), shown.facts),
    ...shown.parts.flatMap((part, index) => [
      ...(inputs.length > 1 || part.said ? [made("p", { className: "facts", textContent: [inputs.length > 1 ? inputs[index] : "", part.said].filter(Boolean).join(": ") })] : []),
      part.element,
    ]));
}

const draw = () => state.shown.forEach(({ parts }) => parts.forEach((part) => part.draw(at("mix").value / 100)));

function hover(index, place) {
  const said = state.shown.map(({ one, parts }) => `${one.name} ${number(parts[index].value(...place))}`);
  at("hover").textContent = `${state.shown[0].parts[index].where(...place)}: ${said.join(", ")}`;
}

async function given(file, place) {
  const { name } = file;
  const bytes = async () => new Uint8Array(await file.arrayBuffer());
  if (/\.onnx$/i.test(name)) await explainer(place, name, await bytes());
  else if (/\.npy$/i.test(name)) await item(await named(name, async () => ({ name, arrays: { "": npy(await bytes()) } })));
  else if (/\.npz$/i.test(name)) await item(await named(name, async () => ({ name, arrays: await npz(await bytes()) })));
  else if (/\.[ct]sv$/i.test(name)) await item(await named(name, async () => ({ name, table: table(await file.text()) })));
  else if (/\.(txt|json)$/i.test(name)) {
    const text = await file.text();
    if (place !== "tokenizer" && !/tokenizer[^/]*\.json$/i.test(name)) return named(name, () => names(name, text));
    state.tokenizer = await named(name, () => new Reader(text));
    await explain();
  } else {
    const pixels = await decoded(file).catch(({ name: kind, message }) => {
      throw new Error(kind === "Error" ? `${name}: ${message}` : `${name} is no picture that this browser reads`);
    });
    await item({ name, pixels });
  }
}

for (const [id, place] of [["first", 0], ["second", 1], ["item"], ["labels"], ["tokenizer", "tokenizer"]]) {
  at(id).addEventListener("change", ({ target }) => {
    for (const file of target.files) next(() => given(file, place));
  });
  // Else a file that has been written anew could not be chosen again.
  at(id).addEventListener("click", ({ target }) => { target.value = ""; });
}
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  for (const file of event.dataTransfer.files) next(() => given(file));
});
at("typing").addEventListener("submit", (event) => { event.preventDefault(); next(typed); });
at("class").addEventListener("change", ({ target }) => next(() => { state.target = Number(target.value); return explain(); }));
at("sample").addEventListener("change", () => next(() => { state.target = -1; return explain(); }));
at("mix").addEventListener("input", draw);
at("scale").style.background = `linear-gradient(90deg, ${gradient()})`;

/** What `onnxlrp serve` was given. */
next(async () => {
  await explain();
  const listed = await fetch("given.json").then((answer) => (answer.ok ? answer.json() : [])).catch(() => []);
  for (const { name, address } of listed) {
    const content = await (await fetch(address)).blob();
    await given(new File([content], name));
  }
});

// For whoever drives the page: what is shown, in numbers.
const settled = async () => {
  for (let last = null; last !== before;) await (last = before);
};
globalThis.onnxlrp = { state, settled };
