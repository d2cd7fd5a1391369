import { gradient, shade } from "./colours.js";
import { decoded, prepared } from "./picture.js";

const at = (id) => document.getElementById(id);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let tasks = 0;

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

const state = { explainers: [null, null], picture: null, labels: null, target: -1, shown: [] };
const number = (value) => Number(value.toPrecision(4)).toString();
const className = (index) => state.labels?.[index] ?? `class ${index}`;

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", wrong);
}

/** Do one thing after the other; what goes wrong is told in one line. */
let before = Promise.resolve();
const next = (work) => (before = before.then(work).catch((error) => say(error.message, true)));

async function explainer(place, name, bytes) {
  say(`opening ${name} …`);
  const wanted = !new URLSearchParams(location.search).has("wasm");
  try {
    const opened = await asked("open", place, bytes, wanted);
    state.explainers[place] = { name, ...opened };
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
  say(`${name} is open`);
  await explain();
}

async function picture(name, file) {
  try {
    state.picture = { name, pixels: await decoded(file) };
  } catch {
    throw new Error(`${name} is no picture that this browser reads`);
  }
  state.target = -1;
  await explain();
}

async function names(name, file) {
  const text = await file.text();
  if (name.endsWith(".json")) {
    const read = JSON.parse(text);
    state.labels = Object.values(read).map((entry) => (Array.isArray(entry) ? entry.at(-1) : entry));
  } else {
    state.labels = text.split(/\r?\n/).filter((line) => line.trim());
  }
  await explain();
}

async function explain() {
  const [first, second] = state.explainers;
  if (!first || !state.picture) {
    say(first ? `${first.name} is open: now a picture` : "now an explainer");
    return;
  }
  if (second && second.contract.model !== first.contract.model) {
    state.explainers[1] = null;
    throw new Error(`${second.name} explains another model than ${first.name}`);
  }
  say("computing …");
  state.shown = [];
  let { target } = state;
  for (const [place, one] of state.explainers.entries()) {
    if (!one) continue;
    const made = prepared(state.picture.pixels, one.contract.preprocessing);
    const wanted = one.shape.slice(1);
    if (made.shape.some((size, axis) => typeof wanted[axis] === "number" && wanted[axis] !== size)) {
      throw new Error(`the picture is made ${made.shape}, and ${one.name} reads ${wanted}: it stores another preprocessing than its model's`);
    }
    const found = await asked("explain", place, made.values, made.shape, target);
    if (target < 0) target = found.scores.reduce((best, score, index) => (score > found.scores[best] ? index : best), 0);
    state.shown.push({ one, made, found, target: one.contract.fixed === "" || one.contract.fixed === "top" ? target : Number(one.contract.fixed) });
  }
  show();
  say("");
}

function show() {
  const [{ found, one }] = state.shown;
  const order = Array.from(found.scores.keys()).sort((a, b) => found.scores[b] - found.scores[a]);
  at("class").replaceChildren(...order.map((index) =>
    new Option(`${className(index)}  ${number(found.scores[index])}`, index)));
  at("class").value = state.shown[0].target;
  at("class").disabled = !one.contract.target;
  at("maps").replaceChildren(...state.shown.map(figure));
  at("result").hidden = false;
  draw();
}

function figure({ one, made, found, target }) {
  const box = document.createElement("figure"), caption = document.createElement("figcaption");
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: made.seen.width, height: made.seen.height });
  canvas.setAttribute("role", "img");
  const sum = found.relevance.reduce((a, b) => a + b, 0), score = found.scores[target];
  canvas.setAttribute("aria-label", `relevance by ${one.name} for ${className(target)}`);
  const title = document.createElement("strong"), facts = document.createElement("span");
  title.textContent = `${one.name}: ${className(target)}`;
  facts.className = "facts";
  facts.textContent = `score ${number(score)}, ${one.contract.yields} sums to ${number(sum)}; ` +
    `${found.seconds.toFixed(2)} s by ${found.runs}${found.why ? ` (${found.why})` : ""}`;
  caption.append(title, facts);
  box.append(canvas, caption);
  canvas.addEventListener("pointermove", (event) => hover(canvas, event));
  return box;
}

/** Sum over channels, and the 99.9th percentile, where colours are full. */
function summed({ made, found, one }) {
  const { width, height, channels } = made.seen, area = width * height;
  const pixels = new Float64Array(area), first = one.contract.preprocessing.layout === "NCHW";
  for (let pixel = 0; pixel < area; pixel++) {
    for (let c = 0; c < channels; c++) pixels[pixel] += found.relevance[first ? c * area + pixel : pixel * channels + c];
  }
  const sorted = Float64Array.from(pixels, Math.abs).sort();
  return { pixels, full: sorted[Math.floor(0.999 * (area - 1))] || sorted[area - 1] || 1 };
}

function draw() {
  const mix = at("mix").value / 100;
  state.shown.forEach((shown, index) => {
    const { seen } = shown.made, canvas = at("maps").querySelectorAll("canvas")[index];
    shown.summed ??= summed(shown);
    const picture = new ImageData(seen.width, seen.height);
    for (let pixel = 0; pixel < seen.width * seen.height; pixel++) {
      const colour = shade(shown.summed.pixels[pixel] / shown.summed.full);
      for (let c = 0; c < 3; c++) {
        const own = seen.data[pixel * seen.channels + (seen.channels === 1 ? 0 : c)];
        picture.data[4 * pixel + c] = own + mix * (colour[c] - own);
      }
      picture.data[4 * pixel + 3] = 255;
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
  });
}

function hover(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.min(canvas.width - 1, Math.floor(((event.clientX - box.left) / box.width) * canvas.width));
  const y = Math.min(canvas.height - 1, Math.floor(((event.clientY - box.top) / box.height) * canvas.height));
  const said = state.shown.map(({ one, summed: { pixels } }) =>
    `${one.name} ${number(pixels[y * canvas.width + x])}`);
  at("hover").textContent = `row ${y}, column ${x}: ${said.join(", ")}`;
}

async function given(file, place) {
  if (file.name.endsWith(".onnx")) {
    const slot = place ?? (state.explainers[0] ? 1 : 0);
    await explainer(slot, file.name, new Uint8Array(await file.arrayBuffer()));
  } else if (/\.(txt|json)$/.test(file.name)) await names(file.name, file);
  else await picture(file.name, file);
}

for (const [id, place] of [["first", 0], ["second", 1], ["picture"], ["labels"]]) {
  at(id).addEventListener("change", ({ target }) => {
    for (const file of target.files) next(() => given(file, place));
  });
}
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  for (const file of event.dataTransfer.files) next(() => given(file));
});
at("class").addEventListener("change", ({ target }) => next(() => { state.target = Number(target.value); return explain(); }));
at("mix").addEventListener("input", draw);
at("scale").style.background = `linear-gradient(90deg, ${gradient()})`;

/** What `onnxlrp serve` was given. */
next(async () => {
  const listed = await fetch("given.json").then((answer) => (answer.ok ? answer.json() : [])).catch(() => []);
  for (const { name, address } of listed) {
    const content = await (await fetch(address)).blob();
    await given(new File([content], name));
  }
});

// For whoever drives the page: what is shown, in numbers.
globalThis.onnxlrp = { state, settled: () => before };
