// Numbers from files: numpy's .npy and .npz, and tables of text.

const KINDS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array, b1: Uint8Array,
};

/** Read what numpy.save wrote, bytes of a file: { data, shape, type }. */
export function npy(bytes) {
  if (String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") throw new Error("it is no .npy that this page reads");
  const view = new DataView(bytes.buffer, bytes.byteOffset), long = bytes[6] > 1;
  const start = (long ? 12 : 10) + (long ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder().decode(bytes.subarray(long ? 12 : 10, start));
  const written = /'descr':\s*'([^']*)'/.exec(header)?.[1] ?? "objects";
  const Numbers = written[0] === ">" ? null : KINDS[written.slice(1)];
  if (!Numbers) throw new Error(`its numbers are of type ${written}, which this page does not read`);
  if (!/'fortran_order':\s*False/.test(header)) throw new Error("it is in Fortran's order: save numpy.ascontiguousarray of it");
  const shape = (/'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((size) => size.trim()).map(Number);
  const count = shape.reduce((a, b) => a * b, 1), content = bytes.slice(start, start + count * Numbers.BYTES_PER_ELEMENT);
  if (content.length < count * Numbers.BYTES_PER_ELEMENT) throw new Error("it is cut short");
  return { data: new Numbers(content.buffer), shape, type: written.slice(1) };
}

/** Read what numpy.savez or savez_compressed wrote: arrays by name. */
export async function npz(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset), found = {};
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("it is no .npz");
  let place = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const method = view.getUint16(place + 10, true), size = view.getUint32(place + 20, true);
    const [name, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(place + offset, true));
    const called = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + name));
    const local = view.getUint32(place + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    let content = bytes.subarray(start, start + size);
    if (method === 8) {
      const unpacked = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      content = new Uint8Array(await new Response(unpacked).arrayBuffer());
    }
    found[called.replace(/\.npy$/, "")] = npy(content);
    place += 46 + name + extra + comment;
  }
  return found;
}

const MISSING = new Set(["", "?", "n/a", "na", "nan", "none", "null"]);

function number(cell) {
  const text = cell.trim().toLowerCase();
  if (MISSING.has(text)) return NaN;
  if (text === "true" || text === "false") return Number(text === "true");
  const value = Number(text);
  if (!Number.isFinite(value)) throw new Error(`'${cell.trim()}' is no number`);
  return value;
}

/** Read rows of numbers, parted by tabs, semicolons or commas: { header, rows }; a first line without figures names the columns. */
export function table(text) {
  const delimiter = ["\t", ";", ","].find((sign) => text.includes(sign)) ?? ",";
  const cell = new RegExp(`(?:^|${delimiter})(?:"((?:[^"]|"")*)"|([^${delimiter}]*))`, "g");
  // A quoted cell may hold line breaks.
  const lines = (text.replace(/^\ufeff/, "").match(/(?:"[^"]*"|[^"\r\n])+/g) ?? []).filter((line) => line.trim()).map((line) =>
    Array.from(line.matchAll(cell), ([, quoted, plain]) => (quoted?.replaceAll('""', '"') ?? plain).trim()));
  const header = lines.length && !lines[0].some((one) => /\d/.test(one)) ? lines.shift() : null;
  if (!lines.length) throw new Error("it holds no rows of numbers");
  return { header, rows: lines };
}

/** The numbers of one input in a table, [rows, features], by the names of its features where both have them. */
export function columns({ header, rows }, names, width) {
  let places = null;
  if (header && names?.every((name) => header.includes(name))) places = names.map((name) => header.indexOf(name));
  const count = places?.length ?? rows[0].length;
  if (typeof width === "number" && width > 0 && count !== width) {
    throw new Error(`it has ${count} columns, and the model reads ${width}`);
  }
  const data = new Float64Array(rows.length * count);
  rows.forEach((row, index) => {
    if (row.length !== rows[0].length) throw new Error(`row ${index + 1} has ${row.length} columns, and the first ${rows[0].length}`);
    for (let place = 0; place < count; place++) data[index * count + place] = number(row[places?.[place] ?? place]);
  });
  return { data, shape: [rows.length, count] };
}
