// A value that a schema probably accepts, preferring examples and defaults.
import { resolved } from "./form.js";

const DEEPEST = 8;
const FORMATS = {
  date: "2026-01-31", time: "12:00:00Z", "date-time": "2026-01-31T12:00:00Z", email: "ada@example.com", uuid: "123e4567-e89b-12d3-a456-426614174000",
  uri: `${location.origin}/`, url: `${location.origin}/`, hostname: "example.com", ipv4: "192.0.2.1", ipv6: "2001:db8::1", color: "#1f6b57", duration: "PT1M",
};

export function sample(given, root = given, depth = 0) {
  const schema = resolved(given, root);
  if (Array.isArray(schema.examples) && schema.examples.length) return schema.examples[0];
  if ("const" in schema) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (Array.isArray(schema.enum)) return schema.enum[0];
  if (schema.choices) return schema.choices.length ? sample(schema.choices[0], root, depth + 1) : null;
  if (schema.type === "object" || schema.properties) return object(schema, root, depth);
  if (schema.type === "array") return array(schema, root, depth);
  if (schema.type === "integer" || schema.type === "number") return number(schema);
  if (schema.type === "boolean") return true;
  if (schema.type === "string") return text(schema);
  return null;
}

function object(schema, root, depth) {
  const required = new Set(schema.required ?? []);
  const value = {};
  for (const [name, each] of Object.entries(schema.properties ?? {})) {
    const one = resolved(each, root);
    const shown = depth < DEEPEST && (required.has(name) || one.examples?.length || (one.default !== undefined && one.default !== null));
    if (shown) value[name] = sample(each, root, depth + 1);
  }
  return value;
}

function array(schema, root, depth) {
  const first = schema.prefixItems ?? [];
  const count = Math.min(Math.max(schema.minItems ?? 1, first.length), schema.maxItems ?? Infinity, 20);
  if (depth >= DEEPEST) return [];
  return Array.from({ length: count }, (_, index) => sample(first[index] ?? (typeof schema.items === "object" ? schema.items : {}), root, depth + 1));
}

function number(schema) {
  const whole = schema.type === "integer";
  const step = schema.multipleOf ?? (whole ? 1 : 0.5);
  const least = schema.minimum ?? (schema.exclusiveMinimum !== undefined ? schema.exclusiveMinimum + step : undefined);
  const most = schema.maximum ?? (schema.exclusiveMaximum !== undefined ? schema.exclusiveMaximum - step : undefined);
  const value = Math.min(Math.max(1, least ?? 1), most ?? Infinity);
  if (schema.multipleOf) return Math.ceil(value / step) * step;
  return whole ? Math.ceil(value) : value;
}

function text(schema) {
  const value = FORMATS[schema.format] ?? schema.title?.toLowerCase() ?? "text";
  return value.padEnd(schema.minLength ?? 0, "x").slice(0, schema.maxLength ?? Infinity);
}
