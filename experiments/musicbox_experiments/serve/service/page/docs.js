// The operations of openapi.json as a page, without any network but the service's own.

import { element } from "./view.js";

const schema = await (await fetch("openapi.json")).json();
const nameOf = (ref) => ref.split("/").pop();

function joined(parts, separator) {
  return parts.flatMap((part, i) => (i ? [separator, ...part] : part));
}

// A type as text and links to types: values of choices, bounds.
function typeOf(part) {
  if (!part) return ["nothing"];
  if (part.$ref) return [element("a", { href: `docs#${nameOf(part.$ref)}` }, nameOf(part.$ref))];
  if (part.enum) return [part.enum.map((value) => JSON.stringify(value)).join(" | ")];
  if (part.const !== undefined) return [JSON.stringify(part.const)];
  const choices = part.anyOf ?? part.oneOf;
  if (choices) return joined(choices.map(typeOf), " | ");
  if (part.type === "array") return ["[", ...(part.prefixItems ? joined(part.prefixItems.map(typeOf), ", ") : typeOf(part.items)), "]"];
  const bounds = ["minimum", "maximum", "minLength", "maxLength"].filter((name) => name in part).map((name) => `${name} ${part[name]}`);
  return [[part.type ?? "anything", ...bounds].join(" ")];
}

function field(name, of, needed, description) {
  const given = "default" in of ? ` = ${JSON.stringify(of.default)}` : "";
  const type = element("code", {}, `${name}${needed ? "" : "?"}: `, ...typeOf(of), given);
  return element("li", {}, type, description ? element("span", { className: "faint" }, ` ${description}`) : null);
}

const list = (items) => (items.length ? element("ul", { className: "fields" }, ...items) : null);

function fieldsOf(part) {
  const needed = new Set(part.required ?? []);
  return list(Object.entries(part.properties ?? {}).map(([name, of]) => field(name, of, needed.has(name), of.description)));
}

function section(title, ...children) {
  return element("section", { className: "operation", id: title }, element("h2", {}, element("code", {}, title)), ...children);
}

function operation(path, method, of) {
  const body = of.requestBody?.content?.["application/json"]?.schema;
  const answers = Object.entries(of.responses["200"]?.content ?? {}).map(([kind, one]) => (one.schema ? [...typeOf(one.schema), ` (${kind})`] : [kind]));
  return section(
    `${method.toUpperCase()} ${path}`,
    element("p", {}, of.description ?? of.summary ?? ""),
    list((of.parameters ?? []).map((one) => field(one.name, one.schema, one.required, one.description))),
    body ? element("p", {}, "Takes ", ...typeOf(body), ".") : null,
    element("p", {}, "Answers ", ...joined(answers, ", "), "."),
  );
}

const all = Object.entries(schema.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, of]) => [path, method, of]));
const refusals = new Map(all.flatMap(([, , of]) => Object.entries(of.responses)).filter(([code]) => code >= 400).map(([code, one]) => [code, one.description]));
const codes = [...refusals].sort().map(([code, why]) => element("li", {}, element("code", {}, code), ` ${why}`));
const shapes = Object.entries(schema.components.schemas).map(([name, part]) => section(name, element("p", {}, part.description ?? ""), fieldsOf(part)));
document.getElementById("operations").replaceChildren(
  ...all.map((one) => operation(...one)),
  section("Refusals", element("p", {}, "Any of these operations may answer, with ", ...typeOf({ $ref: "Problem" }), ":"), list(codes)),
  ...shapes,
);
document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
