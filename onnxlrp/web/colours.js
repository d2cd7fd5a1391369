// Okabe and Ito's blue and vermilion, which every kind of colour blindness tells apart: -1 against, 1 for the class.

const STOPS = [
  [0, [0x00, 0x4c, 0x7a]],
  [1 / 5, [0x00, 0x72, 0xb2]],
  [1 / 2, [0xf7, 0xf7, 0xf7]],
  [4 / 5, [0xd5, 0x5e, 0x00]],
  [1, [0x8f, 0x3c, 0x00]],
];

export function shade(strength) {
  const place = (Math.min(1, Math.max(-1, strength)) + 1) / 2;
  const next = Math.max(1, STOPS.findIndex(([stop]) => stop >= place));
  const [from, low] = STOPS[next - 1], [to, high] = STOPS[next];
  const part = (place - from) / (to - from);
  return low.map((value, c) => Math.round(value + part * (high[c] - value)));
}

export const gradient = () =>
  Array.from({ length: 21 }, (_, step) => `rgb(${shade(step / 10 - 1).join(",")})`).join(", ");
