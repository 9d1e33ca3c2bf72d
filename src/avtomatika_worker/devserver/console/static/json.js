// JSON that preserves integers beyond 2^53, which are common as ids: they are read as BigInt if the browser can.

export function parse(text) {
  return JSON.parse(text, (_key, value, context) => {
    const big = typeof value === "number" && !Number.isSafeInteger(value) && Number.isInteger(value);
    return big && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

export function write(value, indent) {
  return JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? number(each) : each), indent);
}

const number = (value) => (JSON.rawJSON ? JSON.rawJSON(String(value)) : Number(value));
