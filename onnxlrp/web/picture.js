// How a picture becomes what the model reads: Pillow's arithmetic, so that maps equal those of `onnxlrp explain`.

const BITS = 22;

/** Weights of the pixels that each resized pixel is made of: a triangle as wide as a source pixel, or a target one. */
function weights(from, to) {
  const scale = from / to, support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, target) => {
    const centre = (target + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - support + 0.5));
    const end = Math.min(from, Math.floor(centre + support + 0.5));
    const found = [];
    for (let source = start; source < end; source++) {
      found.push(Math.max(0, 1 - Math.abs((source - centre + 0.5) / support)));
    }
    const sum = found.reduce((a, b) => a + b, 0);
    return { start, found: found.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS)) };
  });
}

const whole = (sum) => Math.min(255, Math.max(0, Math.floor((sum + 2 ** (BITS - 1)) / 2 ** BITS)));

function across(source, width) {
  const { data, height, channels } = source, out = new Uint8Array(width * height * channels);
  const along = weights(source.width, width);
  for (let y = 0; y < height; y++) {
    along.forEach(({ start, found }, x) => {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        found.forEach((weight, k) => { sum += weight * data[(y * source.width + start + k) * channels + c]; });
        out[(y * width + x) * channels + c] = whole(sum);
      }
    });
  }
  return { data: out, width, height, channels };
}

function down(source, height) {
  const { data, width, channels } = source, out = new Uint8Array(width * height * channels);
  weights(source.height, height).forEach(({ start, found }, y) => {
    for (let place = 0; place < width * channels; place++) {
      let sum = 0;
      found.forEach((weight, k) => { sum += weight * data[(start + k) * width * channels + place]; });
      out[y * width * channels + place] = whole(sum);
    }
  });
  return { data: out, width, height, channels };
}

/** Resize pixels { data, width, height, channels } along one axis, then the other, each rounded to bytes. */
export function resized(source, width, height) {
  // The order of Pillow 13; before it was always across first, which is one level off at most.
  const lower = source.height - height, narrower = source.width - width;
  const steps = [(from) => (narrower ? across(from, width) : from), (from) => (lower ? down(from, height) : from)];
  if (lower > 0 && lower > 2 * narrower) steps.reverse();
  return steps.reduce((from, step) => step(from), source);
}

/** Pixels of 1 to 4 channels, the second or fourth their opacity, on white: RGB bytes. */
export function opaque({ data, width, height, channels }) {
  const rgb = new Uint8Array(width * height * 3), last = channels - 1;
  for (let pixel = 0; pixel < width * height; pixel++) {
    const alpha = channels % 2 ? 255 : data[channels * pixel + last];
    for (let c = 0; c < 3; c++) {
      const value = data[channels * pixel + (channels > 2 ? c : 0)];
      rgb[3 * pixel + c] = alpha === 255 ? value : Math.round((value * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return { data: rgb, width, height, channels: 3 };
}

/** Decode a file: upright, on white, RGB bytes. */
export async function decoded(file) {
  // A canvas would cut 16 bits to 8, and onnxlrp refuses them.
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  if (String.fromCharCode(...head.subarray(1, 4)) === "PNG" && head[24] === 16 && head[25] === 0) {
    throw new Error("it is grey in 16 bits: save it as 8-bit first");
  }
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const { data, width, height } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  return opaque({ data, width, height, channels: 4 });
}

/** Grey as Pillow has it: ITU-R 601-2 luma, in fixed point. */
function grey({ data, width, height }) {
  const out = new Uint8Array(width * height);
  for (let pixel = 0; pixel < out.length; pixel++) {
    out[pixel] = (data[3 * pixel] * 19595 + data[3 * pixel + 1] * 38470 + data[3 * pixel + 2] * 7471 + 0x8000) >> 16;
  }
  return { data: out, width, height, channels: 1 };
}

// Python rounds halves to the even one.
const rounded = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** What the model sees of a picture, and the array that it reads, without the batch axis. */
export function prepared(picture, how) {
  let seen = how.channels === "grey" ? grey(picture) : picture;
  if (how.resize !== null) {
    let [height, width] = Array.isArray(how.resize) ? how.resize : [0, 0];
    if (!Array.isArray(how.resize)) {
      const shorter = Math.min(seen.width, seen.height);
      width = Math.floor((how.resize * seen.width) / shorter);
      height = Math.floor((how.resize * seen.height) / shorter);
    }
    seen = resized(seen, width, height);
  }
  if (how.crop !== null) {
    const [height, width] = how.crop;
    const left = rounded((seen.width - width) / 2), top = rounded((seen.height - height) / 2);
    if (seen.width < width || seen.height < height) {
      throw new Error(`the picture, ${seen.height}x${seen.width}, is smaller than the crop of ${height}x${width}`);
    }
    const { channels } = seen, out = new Uint8Array(width * height * channels);
    for (let y = 0; y < height; y++) {
      const start = ((top + y) * seen.width + left) * channels;
      out.set(seen.data.subarray(start, start + width * channels), y * width * channels);
    }
    seen = { data: out, width, height, channels };
  }
  const { channels, width, height, data } = seen, area = width * height;
  const values = new Float32Array(area * channels);
  const each = (list, c) => list[list.length > 1 ? c : 0];
  for (let pixel = 0; pixel < area; pixel++) {
    for (let c = 0; c < channels; c++) {
      const from = how.channels === "BGR" ? channels - 1 - c : c;
      const value = (data[pixel * channels + from] * how.scale - each(how.mean, c)) / each(how.std, c);
      values[how.layout === "NCHW" ? c * area + pixel : pixel * channels + c] = value;
    }
  }
  const shape = how.layout === "NCHW" ? [channels, height, width] : [height, width, channels];
  return { seen, values, shape };
}
