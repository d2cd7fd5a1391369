// What an explainer says about itself: the metadata of an ONNX file, which onnxruntime-web hands to nobody.

const GRAPH = 7, METADATA = 14;

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
    let length = 0;
    if (kind === 0) varint();
    else if (kind === 1) length = 8;
    else if (kind === 2) length = varint();
    else if (kind === 5) length = 4;
    else throw new Error("the file is no ONNX model");
    if (place + length > bytes.length) throw new Error("the file is cut short");
    yield [Math.floor(tag / 8), bytes.subarray(place, place + length)];
    place += length;
  }
}

function metadata(bytes) {
  const found = {};
  let graph = false;
  for (const [field, content] of fields(bytes)) {
    graph ||= field === GRAPH;
    if (field !== METADATA) continue;
    const pair = {};
    for (const [part, text] of fields(content)) pair[part] = new TextDecoder().decode(text);
    found[pair[1]] = pair[2] ?? "";
  }
  if (!graph) throw new Error("the file is no ONNX model");
  return found;
}

/** Read what an explainer of pictures says; throw one line where it is none, or takes what a page cannot give. */
export function read(bytes) {
  const stored = metadata(bytes);
  const get = (key, otherwise = "") => stored[`onnxlrp.${key}`] ?? otherwise;
  if (!get("relevance")) {
    throw new Error("this is a plain model: make an explainer of it with `onnxlrp convert MODEL EXPLAINER`");
  }
  const relevance = Object.entries(JSON.parse(get("relevance")));
  if (relevance.length > 1) throw new Error("it explains several inputs, and a page has one picture");
  const taken = { weights_input: "weights", references: "a reference", masks: "masks", points: "several points" };
  for (const [key, what] of Object.entries(taken)) {
    const said = get(key);
    if (said && said !== "{}") throw new Error(`it takes ${what} when it runs, which this page does not give`);
  }
  if (!get("preprocessing")) {
    throw new Error("it does not say how its pictures are made: convert with --preprocess, as in --preprocess imagenet");
  }
  return {
    input: relevance[0][0],
    relevance: relevance[0][1],
    target: get("target_input"),
    fixed: get("target"),
    score: get("score"),
    output: get("scores") || get("output"),
    logits: !get("scores") && !JSON.parse(get("signs", "[]")).length,
    yields: get("yields", "relevance"),
    version: get("version"),
    model: get("model_sha256"),
    preprocessing: JSON.parse(get("preprocessing")),
  };
}
