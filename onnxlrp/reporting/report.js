"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PAGE = 60;

function make(tag, text, properties = {}) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  return Object.assign(node, properties);
}

const number = (value) => Number(value).toPrecision(4).replace(/\.?0+($|e)/, "$1");
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const several = data.cards.length > 1;
const lastFirst = (value) => (value === null ? -Infinity : value);

const ORDERS = {
  given: { name: "order given", key: null },
  high: { name: "score, highest first", key: (one) => one.score },
  low: { name: "score, lowest first", key: (one) => -one.score },
  doubt: { name: "doubt: share furthest from 100 %", key: (one) => lastFirst(one.astray) },
};
if (several) {
  ORDERS.disagreement = { name: "disagreement of the maps", key: (one) => lastFirst(one.disagreement) };
}
const doubtful = (one) => one.flat || one.maps.some((map) => map.doubt);

function stage(one, map, name) {
  const said = `${one.label}: ${map.loud || "no relevance"}`;
  if (map.pieces) return written(map.pieces, said);
  if (!one.picture) {
    const chart = make("div", null, { className: "chart" });
    chart.append(make("img", null, { src: map.picture, alt: `Relevance by ${name} for ${said}`, loading: "lazy" }));
    return chart;
  }
  const box = make("div", null, { className: "stage" });
  box.append(make("img", null, { src: one.picture, alt: `${one.name}, as the model saw it`, loading: "lazy" }));
  const over = make("img", null, { src: map.picture, alt: `Relevance by ${name} for ${said}`, loading: "lazy" });
  over.className = "over";
  box.append(over);
  for (const { text, box: [top, left, height, width] } of map.regions) {
    const frame = make("span", null, { className: "region", title: text });
    const sides = { top, left, height, width };
    for (const [name, part] of Object.entries(sides)) frame.style[name] = `${100 * part}%`;
    box.append(frame);
  }
  return box;
}

function written(pieces, said) {
  const text = make("p", null, { className: "text", dir: "auto" });
  for (const [part, ground, ink, told] of pieces) {
    const span = make("span", part, { title: told });
    if (ground) Object.assign(span.style, { background: ground, color: ink });
    text.append(span);
  }
  const box = make("div");
  box.append(text);
  return box;
}

function card(one) {
  const box = make("article");
  box.append(make("h3", `${one.name}: ${one.label}`));
  box.append(make("p", one.source, { className: "source" }));
  box.append(make("p", `${one.quantity} ${number(one.score)}`));
  if (one.flat) box.append(make("p", "all classes score nearly alike", { className: "doubt" }));
  const maps = make("div", null, { className: "maps" });
  one.maps.forEach((map, index) => {
    const name = data.cards[index].name;
    const figure = make("figure");
    figure.append(stage(one, map, name));
    const caption = make("figcaption");
    if (several) caption.append(make("strong", name), make("br"));
    const share = map.share === null ? "" : `, ${percent(map.share)} of it`;
    caption.append(`relevance sums to ${number(map.relevance)}${share}`);
    if (map.doubt) caption.append(make("br"), make("span", map.doubt, { className: "doubt" }));
    if (map.loud) caption.append(make("br"), map.loud);
    figure.append(caption);
    maps.append(figure);
  });
  box.append(maps);
  if (one.picture) {
    const cut = make("input", null, { type: "range", min: 0, max: 100, value: 0, className: "cut" });
    cut.setAttribute("aria-label", `${one.name}: how much of the photograph is shown in place of the map`);
    cut.addEventListener("input", () => maps.style.setProperty("--cut", `${cut.value}%`));
    box.append(cut);
  }
  if (one.disagreement !== null) {
    box.append(make("p", `maps disagree by ${number(one.disagreement)} (1 − rank correlation)`));
  }
  const more = make("details");
  more.append(make("summary", "next classes"));
  const table = make("table");
  for (const entry of one.next) {
    const row = table.insertRow();
    row.append(make("td", entry.label), make("td", number(entry.score), { className: "number" }));
  }
  more.append(table);
  box.append(more);
  return box;
}

let found = [];
let count = 0;

function show() {
  const next = found.slice(count, count + PAGE);
  at("items").append(...next.map(card));
  count += next.length;
  at("more").hidden = count >= found.length;
  at("shown").textContent = `${count} of ${found.length} items shown`;
}

function choose() {
  const words = at("find").value.toLowerCase();
  const wanted = at("class").value;
  found = data.entries.filter((one) =>
    (!words || `${one.name} ${one.source} ${one.label}`.toLowerCase().includes(words)) &&
    (!wanted || one.label === wanted) && (!at("doubted").checked || doubtful(one)));
  const key = ORDERS[at("sort").value].key;
  if (key) found = found.slice().sort((a, b) => key(b) - key(a) || 0);
  at("items").replaceChildren();
  count = 0;
  show();
}

function rows(pairs) {
  const table = make("table");
  for (const cells of pairs) {
    const row = table.insertRow();
    row.append(make("th", cells[0], { scope: "row" }), ...cells.slice(1).map((cell) => make("td", cell)));
  }
  return table;
}

function described(one) {
  const box = make("div", null, { className: "card" });
  box.append(make("h3", one.name), rows(Object.entries(one.facts)));
  if (one.audit.length) box.append(make("h4", "audit"), ...one.audit.map((line) => make("p", line)));
  const rules = make("details");
  rules.append(make("summary", "rules: operator, rule, nodes"), rows(one.rules));
  const composite = make("details");
  composite.append(make("summary", "composite"), make("pre", one.composite));
  box.append(rules, composite);
  return box;
}

for (const [value, order] of Object.entries(ORDERS)) at("sort").append(make("option", order.name, { value }));
const labels = [...new Set(data.entries.map((one) => one.label))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
for (const label of labels) at("class").append(make("option", label, { value: label }));
const doubted = data.entries.filter(doubtful).length;
at("summary").textContent =
  `${data.entries.length} items, ${labels.length} classes, ${doubted} doubtful, ${data.failures.length} not explained`;
at("items").classList.toggle("wide", several || data.entries.some((one) => !one.picture));
for (const { source, reason } of data.failures) at("failures").querySelector("ul").append(make("li", `${source}: ${reason}`));
at("failures").hidden = !data.failures.length;
at("cards").append(...data.cards.map(described));
at("regions").addEventListener("input", () => at("items").classList.toggle("framed", at("regions").checked));
at("regions").parentElement.hidden = !data.entries.some((one) => one.picture);
for (const id of ["find", "class", "doubted", "sort"]) at(id).addEventListener("input", choose);
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("more").addEventListener("click", show);
choose();
