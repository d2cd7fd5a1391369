// How a text becomes the tokens that a model reads.

import { Tokenizer } from "./tokenizers/tokenizers.min.mjs";

const PADS = ["[PAD]", "<pad>", "<PAD>", "<|pad|>"];
const ROLES = {
  mask: /^((attention|attn|input|token)_?)?mask$/,
  types: /^(token_?type|segment|input_?type|type)(_?ids)?$/,
  positions: /^(input_?)?positions?(_?ids)?$/,
};

/** What an input beside the tokens is by its name: mask, types or positions. */
function role(name) {
  const bare = name.toLowerCase().replace(/^serving_default_|:\d+$/g, "");
  return Object.keys(ROLES).find((one) => ROLES[one].test(bare));
}

/** A tokenizer.json of the library `tokenizers`; throw one line where it is none. */
export class Reader {
  constructor(text) {
    const content = JSON.parse(text);
    if (!content?.model || !Array.isArray(content.added_tokens)) throw new Error("it is no tokenizer.json");
    this.tokenizer = new Tokenizer(content, {});
    this.longest = content.truncation?.max_length ?? Infinity;
    this.fromLeft = content.truncation?.direction === "Left";
    this.pad = content.padding?.pad_id ?? PADS.map((name) => this.tokenizer.token_to_id(name)).find((id) => id !== undefined);
  }

  /** Tokens of a text, at most so many: { ids, types, pieces, special, cut }. */
  tokens(text, most = Infinity) {
    const limit = Math.min(most, this.longest);
    const whole = this.tokenizer.encode(text, { return_token_type_ids: true });
    const bare = this.tokenizer.encode(text, { add_special_tokens: false }).ids;
    const around = whole.ids.length - bare.length;
    let first = 0;
    while (first < around && !bare.every((id, index) => whole.ids[first + index] === id)) first++;
    const surplus = Math.max(0, whole.ids.length - limit);
    if (surplus > bare.length) throw new Error(`${limit} tokens are fewer than the tokenizer adds to a text`);
    const from = this.fromLeft ? first : first + bare.length - surplus;
    const kept = (list) => list.filter((_, index) => index < from || index >= from + surplus);
    const special = whole.ids.map((_, index) => index < first || index >= first + bare.length);
    if (!whole.ids.length) throw new Error("the tokenizer finds no tokens in the text");
    return {
      ids: kept(whole.ids), types: kept(whole.token_type_ids ?? whole.ids.map(() => 0)),
      pieces: kept(whole.tokens), special: kept(special), cut: surplus > 0,
    };
  }
}

/** Inputs that go with ids, filled by what their names say; `mask` and `types` are those of a text. */
export function beside(inputs, name, ids, pad, { mask, types } = {}) {
  const every = Array.from(ids.data, Number), { shape } = ids;
  const fill = {
    mask: () => mask ?? every.map((id) => Number(id !== pad)),
    types: () => types ?? every.map(() => 0),
    positions: () => every.map((_, index) => index % shape[1]),
  };
  return Object.fromEntries(inputs.map((input) => {
    if (input.name === name) return [name, ids];
    const known = role(input.name);
    if (!known || (known === "mask" && !mask && pad === undefined)) {
      throw new Error(`the model also reads '${input.name}': give it, too, by that name in an .npz`);
    }
    return [input.name, { data: fill[known](), shape }];
  }));
}
