"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PAGE = 60;
const SVG = "http://www.w3.org/2000/svg";

function make(tag, text, properties = {}) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  return Object.assign(node, properties);
}

// Names may be written from right to left.
const named = (text, tag = "bdi") => make(tag, text, { dir: "auto" });
const number = (value, digits = 4) => (value === null ? "not a number" : String(Number(Number(value).toPrecision(digits))).replaceAll("-", "−"));
const signed = (value) => (value > 0 ? "+" : "") + number(value, 3);
const percent = (value) => `${(100 * value).toFixed(1).replace("-", "−")} %`;
const several = data.cards.length > 1;
const last = (value) => (value === null ? -Infinity : value);
const share = (one) => one.maps[0].share;
const names = data.cards.map((one) => one.name.replace(/\.onnx$/, ""));

const ORDERS = {
  given: { name: "order given" },
  name: { name: "name", compare: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }) },
  high: { name: "score, highest first", key: (one) => last(one.score) },
  low: { name: "score, lowest first", key: (one) => last(one.score === null ? null : -one.score) },
  share: { name: "share of the score, lowest first", key: (one) => last(share(one) === null ? null : -share(one)) },
  doubt: { name: "doubt of the map: share furthest from 100 %", key: (one) => last(one.astray) },
  margin: { name: "doubt of the model: closest two classes", key: (one) => last(one.margin === null ? null : -one.margin) },
};
if (several) ORDERS.disagreement = { name: "disagreement of the maps", key: (one) => last(one.disagreement) };

const doubtful = (one) => one.flat || one.maps.some((map) => map.doubt);
const ONLY = { doubtful: { name: "doubtful", keeps: doubtful } };
if (data.entries.some((one) => one.truth !== null)) {
  ONLY.wrong = { name: "wrong", keeps: (one) => one.right === false };
  ONLY.right = { name: "right", keeps: (one) => one.right === true };
}

function stage(one, map, name) {
  if (map.pieces) return written(map.pieces);
  if (map.bars) return barred(map.bars);
  if (map.path) return curved(one, map, name);
  const said = map.regions.map((region) => `${region.text} ${signed(region.relevance)}`).join("; ") || "nothing speaks for it";
  const alt = `Relevance by ${name} for ${one.label}: ${said}`;
  if (!one.picture) return make("img", null, { src: map.picture, alt, loading: "lazy", className: "alone" });
  const box = make("div", null, { className: "stage" });
  box.append(
    make("img", null, { src: one.picture, alt: `${one.name}, as the model saw it`, loading: "lazy", draggable: false }),
    make("img", null, { src: map.picture, alt, loading: "lazy", draggable: false, className: "over" }),
  );
  map.regions.forEach(({ box: [top, left, height, width] }, index) => {
    const frame = make("span", index + 1, { className: "region", ariaHidden: "true" });
    for (const [side, part] of Object.entries({ top, left, height, width })) frame.style[side] = `${100 * part}%`;
    box.append(frame);
  });
  return box;
}

function written(pieces) {
  const text = make("p", null, { className: "text paper", dir: "auto" });
  // What scrolls must be reached by keyboard; about so many signs fit.
  if (pieces.reduce((sum, [part]) => sum + part.length, 0) > 600) {
    Object.assign(text, { tabIndex: 0, role: "group", ariaLabel: "the text" });
  }
  for (const [part, strength, told] of pieces) {
    if (!told && strength === null) { text.append(part); continue; }
    const span = make("span", part, { title: told, className: strength === null ? "special" : "" });
    if (strength !== null) {
      const [background, color] = data.shades[strength + 100];
      Object.assign(span.style, { background, color });
      if (strength <= -15) span.className = "minus";
    }
    text.append(span);
  }
  return text;
}

function barred(bars) {
  const lengths = bars.map((bar) => bar[2] ?? 0);
  const low = Math.min(0, ...lengths), wide = Math.max(0, ...lengths) - low || 1;
  const zero = (100 * -low) / wide;
  const table = make("table", null, { className: "bars paper" });
  for (const [name, value, length] of bars) {
    const row = table.insertRow();
    if (!value) row.className = "rest";
    const head = make("th", null, { scope: "row" });
    head.append(named(name), value);
    const bar = make("span", null, { className: "bar", ariaHidden: "true" });
    const part = (100 * Math.abs(length ?? 0)) / wide;
    const drawn = make("i"), line = make("b");
    Object.assign(drawn.style, {
      left: `${length < 0 ? zero - part : zero}%`, width: `${part}%`, background: `var(--${length < 0 ? "against" : "for"})`,
    });
    line.style.left = `min(${zero}%, calc(100% - 1px))`;
    bar.append(drawn, line);
    const drawing = make("td");
    drawing.append(bar);
    row.append(head, drawing, make("td", length === 0 ? "0" : signed(length), { className: "number" }));
  }
  return table;
}

function curved(one, map, name) {
  const box = make("div");
  const drawn = make("div", null, { className: "signal" });
  drawn.style.height = `${Math.max(5, 4 * map.channels.length)}rem`;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${2 * map.columns} ${100 * map.channels.length}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const look of ["halo", ""]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", map.path);
    path.setAttribute("class", look);
    svg.append(path);
  }
  const loud = [...map.for, ...map.against].map(([where, amount]) => `${where} ${signed(amount)}`).join(", ");
  drawn.append(make("img", null, { src: map.picture, alt: `Relevance by ${name} for ${one.label}: ${loud}`, loading: "lazy" }), svg);
  const axis = make("p", null, { className: "axis" });
  axis.append(make("span", "0"), make("span", map.length - 1));
  const channels = map.channels.map(([channel, low, high]) => (map.of > 1 ? `channel ${channel}: ` : "") + `${number(low, 3)} to ${number(high, 3)}`);
  const most = map.of > map.channels.length ? `, the ${map.channels.length} most relevant of ${map.of}` : "";
  box.append(drawn, axis, make("p", `from the top${most}: ${channels.join("; ")}. Full colour is ±${number(map.full, 3)}`));
  return box;
}

function loudest(kind, label, pairs) {
  const line = make("p", `${kind} `);
  line.append(named(label), ": ");
  pairs.forEach(([what, amount], index) => line.append(index ? ", " : "", named(what), ` ${signed(amount)}`));
  return line;
}

function caption(one, map, name) {
  const box = make("figcaption");
  if (several) box.append(named(name, "strong"));
  const sum = make("p", `relevance sums to ${number(map.relevance)}`);
  const strays = map.doubt && !(map.share >= 0.5 && map.share <= 2);
  if (map.share !== null) sum.prepend(make("span", `${percent(map.share)} of the ${one.quantity}`, { className: strays ? "doubt" : "" }), "; ");
  box.append(sum);
  if (map.doubt && !strays) box.append(make("p", map.doubt, { className: "doubt" }));
  if (map.for?.length) box.append(loudest("for", one.label, map.for));
  if (map.against?.length) box.append(loudest("against", one.label, map.against));
  if (map.regions?.length) {
    const list = make("ol", null, { className: "loud" });
    list.append(...map.regions.map(({ text, relevance }) => make("li", `${text}: ${signed(relevance)}`)));
    box.append(list);
  }
  return box;
}

function slider(one, maps) {
  const box = make("div", null, { className: "cut" });
  const range = make("input", null, { type: "range", min: 0, max: 100, value: 0 });
  range.setAttribute("aria-label", `${one.name}: from the map to the photograph`);
  const moved = () => {
    maps.style.setProperty("--cut", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % photograph`);
  };
  range.addEventListener("input", moved);
  // Also by the picture itself, by mouse, pen or finger.
  const follow = (event) => {
    const stage = event.target.closest(".stage");
    if (!stage || (event.type === "pointermove" && !event.buttons)) return;
    const { left, width } = stage.getBoundingClientRect();
    range.value = (100 * (event.clientX - left)) / width;
    moved();
  };
  for (const type of ["pointerdown", "pointermove"]) maps.addEventListener(type, follow);
  box.append(make("span", "map", { ariaHidden: "true" }), range, make("span", "photograph", { ariaHidden: "true" }));
  return box;
}

function card(one) {
  const box = make("article");
  const head = make("h3");
  head.append(named(one.name), ": ", named(one.label));
  box.append(head);
  if (one.source !== one.name) box.append(make("p", one.source, { className: "source", dir: "auto" }));
  const scored = make("p", `${one.quantity} ${number(one.score)}`);
  if (one.truth !== null) {
    scored.append(", ", make("span", one.right ? "✓ right" : "✗ wrong: it is ", { className: one.right ? "right" : "doubt" }));
    if (!one.right) scored.lastChild.append(named(one.truth));
  }
  if (one.target !== one.best) scored.append("; the model says ", named(one.next[0].label));
  box.append(scored);
  if (one.flat) box.append(make("p", "all classes score nearly alike", { className: "doubt" }));
  const maps = make("div", null, { className: "maps" });
  one.maps.forEach((map, index) => {
    const figure = make("figure");
    figure.append(stage(one, map, names[index]), caption(one, map, names[index]));
    maps.append(figure);
  });
  if (one.picture) box.append(slider(one, maps));
  box.append(maps);
  if (one.disagreement !== null) box.append(make("p", `disagreement of the maps: ${one.disagreement.toFixed(2)}`));
  const more = make("details");
  more.append(make("summary", "next classes"));
  const table = make("table");
  for (const entry of one.next) {
    const row = table.insertRow(), head = make("th", null, { scope: "row" });
    head.append(named(entry.label));
    row.append(head, make("td", number(entry.score), { className: "number" }));
  }
  more.append(table);
  box.append(more);
  return box;
}

let found = [];
let start = 0;

function show() {
  const end = Math.min(start + PAGE, found.length);
  at("items").replaceChildren(...found.slice(start, end).map(card));
  at("pages").hidden = found.length <= PAGE;
  at("page").textContent = `page ${start / PAGE + 1} of ${Math.ceil(found.length / PAGE)}`;
  at("before").disabled = start === 0;
  at("after").disabled = end === found.length;
  at("none").hidden = found.length > 0;
  const which = end - start < found.length ? `${start + 1} to ${end} of ${found.length}` : found.length;
  at("shown").textContent = found.length < data.entries.length
    ? `${which} matching items, ${data.entries.length} in all`
    : `${which} items`;
}

function turn(pages) {
  start += pages * PAGE;
  show();
  at("items").focus({ preventScroll: true });
  at("shown").scrollIntoView();
}

function searched(one) {
  const text = (one.maps[0].pieces ?? []).map(([part]) => part).join("");
  one.searched ??= [one.name, one.source, one.label, one.truth ?? "", text].join("\n").toLowerCase();
  return one.searched;
}

function choose() {
  const words = at("find").value.trim().toLowerCase();
  const wanted = at("class").value;
  const only = ONLY[at("only").value];
  found = data.entries.filter((one) =>
    (!words || searched(one).includes(words)) && (!wanted || one.label === wanted) && (!only || only.keeps(one)));
  const { key, compare } = ORDERS[at("sort").value];
  // Of two numbers that are -Infinity the difference is none.
  if (key) found.sort((a, b) => key(b) - key(a) || 0);
  if (compare) found.sort(compare);
  start = 0;
  show();
}

function rows(pairs) {
  const table = make("table");
  for (const [head, ...cells] of pairs) {
    const row = table.insertRow();
    row.append(make("th", head, { scope: "row" }), ...cells.map((cell) => make("td", cell)));
  }
  return table;
}

function folded(words, content) {
  const box = make("details");
  box.append(make("summary", words), content);
  return box;
}

function described(one) {
  const box = make("div", null, { className: "card" });
  box.append(named(one.name, "h3"), rows(Object.entries(one.facts)));
  if (one.audit.length) box.append(make("h4", "Audit"), ...one.audit.map((line) => make("p", line)));
  box.append(
    folded("rules: operator, rule, how many nodes", rows(one.rules)),
    folded(`nodes: ${one.nodes.length}, with operator and rule`, rows(one.nodes)),
    folded("composite", make("pre", one.composite)),
  );
  return box;
}

const option = (text, value) => make("option", text, { value });
for (const [value, order] of Object.entries(ORDERS)) at("sort").append(option(order.name, value));
for (const [value, one] of Object.entries(ONLY)) at("only").append(option(`${one.name} (${data.entries.filter(one.keeps).length})`, value));
const labels = [...new Set(data.entries.map((one) => one.label))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
for (const label of labels) at("class").append(option(label, label));
const counted = (many, one, more) => `${many} ${many === 1 ? one : more}`;
const told = data.entries.filter((one) => one.truth !== null);
at("summary").textContent = [
  counted(data.entries.length, "item", "items"),
  counted(labels.length, "class", "classes"),
  ...(told.length ? [`${told.filter((one) => one.right).length} of ${told.length} right`] : []),
  `${data.entries.filter(doubtful).length} doubtful`,
  `${data.failures.length} could not be explained`,
].join(", ");
const pictured = data.entries.some((one) => one.picture);
at("items").classList.toggle("wide", several || !pictured);
document.body.classList.toggle("texts", data.entries.some((one) => one.maps[0].pieces));
for (const { source, reason } of data.failures) {
  const line = make("li");
  line.append(...(reason.includes(source) ? [named(reason)] : [named(source), `: ${reason}`]));
  at("failures").querySelector("ul").append(line);
}
at("failures").hidden = at("to-failures").hidden = !data.failures.length;
at("cards").append(rows(Object.entries(data.made)), ...data.cards.map(described));
at("regions").addEventListener("input", () => at("items").classList.toggle("framed", at("regions").checked));
at("regions").parentElement.hidden = !pictured;
for (const id of ["find", "class", "only", "sort"]) at(id).addEventListener("input", choose);
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("before").addEventListener("click", () => turn(-1));
at("after").addEventListener("click", () => turn(1));
at("clear").addEventListener("click", () => {
  at("find").value = at("class").value = at("only").value = "";
  choose();
  at("find").focus();
});
choose();
