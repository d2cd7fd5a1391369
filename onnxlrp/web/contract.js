// What an explainer says about itself: the metadata of an ONNX file, which onnxruntime-web hands to nobody.

const GRAPH = 7, METADATA = 14, INITIALIZER = 5, LOCATION = 14, EXTERNAL = 1;

function* fields(bytes) {
  let place = 0;
  const varint = () => {
    let value = 0, factor = 1;
    for (;;) {
      if (place >= bytes.length) throw new Error("the file is no ONNX model, or it is cut short");
      const byte = bytes[place++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
      if (factor > 2 ** 63) throw new Error("the file is no ONNX model");
    }
  };
  while (place < bytes.length) {
    const tag = varint(), kind = tag % 8;
    let length = 0, number;
    if (kind === 0) number = varint();
    else if (kind === 1) length = 8;
    else if (kind === 2) length = varint();
    else if (kind === 5) length = 4;
    else throw new Error("the file is no ONNX model");
    if (place + length > bytes.length) throw new Error("the file is cut short");
    yield [Math.floor(tag / 8), number ?? bytes.subarray(place, place + length)];
    place += length;
  }
}

function metadata(bytes) {
  const found = {};
  let graph = null;
  for (const [field, content] of fields(bytes)) {
    if (field === GRAPH) graph = content;
    if (field !== METADATA) continue;
    const pair = {};
    for (const [part, text] of fields(content)) pair[part] = new TextDecoder().decode(text);
    found[pair[1]] = pair[2] ?? "";
  }
  if (!graph) throw new Error("the file is no ONNX model");
  for (const [field, tensor] of fields(graph)) {
    if (field !== INITIALIZER) continue;
    for (const [part, value] of fields(tensor)) {
      if (part === LOCATION && value === EXTERNAL) {
        throw new Error("it keeps its weights in another file, which a page cannot read: convert without --external-data");
      }
    }
  }
  return found;
}

/** Read what an explainer says; throw one line where it is none, or takes what a page cannot give. */
export function read(bytes) {
  const stored = metadata(bytes);
  const get = (key, otherwise = "") => stored[`onnxlrp.${key}`] ?? otherwise;
  if (!get("relevance")) {
    throw new Error("this is a plain model: make an explainer of it with `onnxlrp convert MODEL EXPLAINER`");
  }
  const taken = { weights_input: "weights", references: "a reference", masks: "masks", points: "several points" };
  for (const [key, what] of Object.entries(taken)) {
    const said = get(key);
    if (said && said !== "{}") throw new Error(`it takes ${what} when it runs, which this page does not give`);
  }
  return {
    relevance: JSON.parse(get("relevance")),
    target: get("target_input"),
    fixed: get("target"),
    score: get("score"),
    output: get("scores") || get("output"),
    logits: !get("scores") && !JSON.parse(get("signs", "[]")).length,
    yields: get("yields", "relevance"),
    version: get("version"),
    model: get("model_sha256"),
    preprocessing: get("preprocessing") ? JSON.parse(get("preprocessing")) : null,
    features: JSON.parse(get("features", "{}")),
    missing: JSON.parse(get("missing", "[]")),
  };
}

/** What people give an explainer of such inputs: a picture, a text, a row of a table, or arrays alone. */
export function kind(contract, inputs) {
  const explained = inputs.filter(({ name }) => name in contract.relevance);
  const [{ type, shape }] = explained;
  if (explained.length === 1 && contract.preprocessing && shape.length === 4) return "picture";
  if (explained.length === 1 && /^int(32|64)$/.test(type) && shape.length === 2) return "text";
  if (inputs.length === 1 && /^float/.test(type) && shape.length === 2) return "row";
  return "arrays";
}
