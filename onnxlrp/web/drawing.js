// What relevance looks like: a picture's map, curves, bars, coloured tokens. Each is { element, draw(mix), where, value }.

import { shade } from "./colours.js";

const FEATURES = 20, CHANNELS = 8, LONG = 64;

export const number = (value) => Number(value.toPrecision(4)).toString();

/** Make an element of its properties and children; those with a dash, and role, are attributes. */
export function made(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Sum over channels, and the 99.9th percentile, where colours are full. */
function summed({ data }, { width, height, channels }, last) {
  const area = width * height, pixels = new Float64Array(area);
  for (let pixel = 0; pixel < area; pixel++) {
    for (let c = 0; c < channels; c++) pixels[pixel] += data[last ? pixel * channels + c : c * area + pixel];
  }
  const sorted = Float64Array.from(pixels, Math.abs).sort();
  return { pixels, full: sorted[Math.floor(0.999 * (area - 1))] || sorted[area - 1] || 1 };
}

/** Values as grey, as if they were a picture. */
function greyed({ data }, { width, height, channels }, last) {
  const { pixels } = summed({ data: Float64Array.from(data, Number) }, { width, height, channels }, last);
  const low = pixels.reduce((a, b) => Math.min(a, b)), high = pixels.reduce((a, b) => Math.max(a, b));
  return { width, height, channels: 1, data: Uint8Array.from(pixels, (value) => (255 * (value - low)) / (high - low || 1)) };
}

/** A canvas of which the pointer or the arrow keys choose a place. */
function chart(width, height, label, hover) {
  const canvas = made("canvas", { width, height, tabIndex: 0, role: "img", "aria-label": `${label}. Arrow keys read its values.` });
  const place = [0, 0], sizes = [width, height];
  const move = (to) => {
    to.forEach((at, axis) => { place[axis] = Math.min(sizes[axis] - 1, Math.max(0, Math.floor(at))); });
    hover(place);
  };
  canvas.addEventListener("pointermove", ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    move([((clientX - box.left) / box.width) * width, ((clientY - box.top) / box.height) * height]);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(place.map((at, axis) => at + (event.shiftKey ? 10 : 1) * step[axis]));
  });
  return canvas;
}

/** A map over the picture that the model saw, { data, width, height, channels }, or over its values. */
function map(relevance, values, seen, last, label, hover) {
  const [a, b, c] = relevance.shape.slice(1);
  const size = last ? { height: a, width: b, channels: c } : { channels: a, height: b, width: c };
  const { pixels, full } = summed(relevance, size, last), below = seen ?? greyed(values, size, last);
  const element = chart(size.width, size.height, label, hover);
  return {
    element, mixes: true,
    draw(mix) {
      const picture = new ImageData(size.width, size.height);
      pixels.forEach((value, pixel) => {
        const colour = shade(value / full);
        for (let channel = 0; channel < 3; channel++) {
          const own = below.data[pixel * below.channels + (below.channels === 1 ? 0 : channel)];
          picture.data[4 * pixel + channel] = own + mix * (colour[channel] - own);
        }
        picture.data[4 * pixel + 3] = 255;
      });
      element.getContext("2d").putImageData(picture, 0, 0);
    },
    where: (x, y) => `row ${y}, column ${x}`,
    value: (x, y) => pixels[y * size.width + x],
  };
}

/** Curves of the channels with the most relevance, on stripes of it. */
function curves(relevance, values, channels, length, label, hover) {
  const row = (list, channel) => Array.from(list.subarray ? list.subarray(channel * length, (channel + 1) * length) : list.slice(channel * length, (channel + 1) * length), Number);
  const strength = (channel) => row(relevance.data, channel).reduce((sum, value) => sum + Math.abs(value), 0);
  const every = Array.from({ length: channels }, (_, channel) => channel), strengths = every.map(strength);
  const shown = every.sort((a, b) => strengths[b] - strengths[a]).slice(0, CHANNELS).sort((a, b) => a - b);
  const full = relevance.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const width = 960, height = 110, at = (x) => Math.min(length - 1, Math.floor((x / width) * length));
  const element = chart(width, height * shown.length, label, hover);
  return {
    element, said: shown.length < channels ? `the ${CHANNELS} most relevant of ${channels} channels` : "",
    draw() {
      const pen = element.getContext("2d");
      shown.forEach((channel, place) => {
        const curve = row(values.data, channel), parts = row(relevance.data, channel), top = place * height;
        for (let x = 0; x < width; x++) {
          // Of several values in one stripe the strongest shows.
          let strongest = 0;
          for (let k = at(x); k <= Math.max(at(x), at(x + 1) - 1); k++) if (Math.abs(parts[k]) > Math.abs(strongest)) strongest = parts[k];
          pen.fillStyle = `rgb(${shade(strongest / full).join(",")})`;
          pen.fillRect(x, top, 1, height - 2);
        }
        const low = curve.reduce((a, b) => Math.min(a, b)), high = curve.reduce((a, b) => Math.max(a, b));
        const line = new Path2D();
        curve.forEach((value, k) => line.lineTo(((k + 0.5) / length) * width, top + 6 + (height - 14) * (1 - (value - low) / (high - low || 1))));
        // Light around dark is seen on every stripe.
        for (const [thickness, ink] of [[4, "#fff"], [1.5, "#000"]]) {
          Object.assign(pen, { lineWidth: thickness, strokeStyle: ink });
          pen.stroke(line);
        }
      });
    },
    where: (x, y) => `channel ${shown[Math.floor(y / height)]}, place ${at(x)}`,
    value: (x, y) => relevance.data[shown[Math.floor(y / height)] * length + at(x)],
  };
}

/** The strongest features as bars, the rest as one. */
function bars(relevance, values, names) {
  const data = Array.from(relevance.data), order = data.map((_, index) => index).sort((a, b) => Math.abs(data[b]) - Math.abs(data[a]));
  const rows = order.slice(0, FEATURES).map((index) => [names?.[index] ?? `feature ${index}`, number(Number(values.data[index])), data[index]]);
  const rest = order.slice(FEATURES);
  if (rest.length) rows.push([`the other ${rest.length}`, "", rest.reduce((sum, index) => sum + data[index], 0)]);
  const full = Math.max(...rows.map(([, , value]) => Math.abs(value))) || 1;
  const line = ([name, value, part]) => {
    const bar = made("span", { className: part < 0 ? "against" : "for" });
    bar.style.width = `${(50 * Math.abs(part)) / full}%`;
    return made("tr", {}, made("th", { scope: "row", textContent: name }), made("td", { textContent: value }),
      made("td", { className: "bar", "aria-hidden": "true" }, bar), made("td", { textContent: number(part) }));
  };
  const heads = ["feature", "value", "against | for", "relevance"].map((textContent) => made("th", { scope: "col", textContent }));
  return { element: made("table", { className: "bars" }, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...rows.map(line))), draw() {} };
}

/** Tokens on the colour of their relevance; those behind ## go on with the word. */
function tokens({ data }, { pieces, special }, hover) {
  const full = Math.max(...Array.from(data, Math.abs)) || 1;
  const element = made("p", { className: "tokens" });
  pieces.forEach((piece, place) => {
    const goesOn = piece.startsWith("##");
    const span = made("span", { textContent: goesOn ? piece.slice(2) : piece.replace(/^[\u2581\u0120]/, "") || "\u2423" });
    if (special[place]) span.className = "special";
    if (place && !goesOn) element.append(" ");
    span.addEventListener("pointermove", () => hover([place]));
    element.append(span);
  });
  const spans = element.querySelectorAll("span");
  const row = (place) => made("tr", {}, made("th", { scope: "row", textContent: pieces[place] }), made("td", { textContent: number(data[place]) }));
  const listed = made("details", {}, made("summary", { textContent: "Relevance of each token" }),
    made("table", {}, made("tbody", {}, ...pieces.map((_, place) => row(place)))));
  return {
    element: made("div", {}, element, listed),
    draw() {
      spans.forEach((span, place) => {
        const colour = shade(data[place] / full);
        const [red, green, blue] = colour.map((value) => (value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
        // WCAG's relative luminance, of which black and white letters are as far off.
        const light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179;
        span.style.background = `rgb(${colour.join(",")})`;
        span.style.color = light ? "#000" : "#fff";
      });
    },
    where: (place) => `token ${place}, ${pieces[place]}`,
    value: (place) => data[place],
  };
}

/** Draw the relevance of one input, { data, shape } with the batch axis, as what it is of. */
export function drawn(relevance, values, { seen, last, names, text, label, hover }) {
  const { shape } = relevance, sizes = shape.slice(1);
  if (text) return tokens(relevance, text, hover);
  if (sizes.length === 3 && shape[0] === 1) return map(relevance, values, seen, last, label, hover);
  if (sizes.length === 1 && shape[0] === 1 && (sizes[0] <= LONG || names)) return bars(relevance, values, names);
  const length = shape.at(-1) ?? 1;
  return curves(relevance, values, relevance.data.length / length, length, label, hover);
}
