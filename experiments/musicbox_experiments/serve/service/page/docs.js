// The operations of openapi.json as a page, without any network but the service's own.

import { element } from "./view.js";

const schema = await (await fetch("openapi.json")).json();

function resolved(part) {
  return part?.$ref ? schema.components.schemas[part.$ref.split("/").pop()] : part;
}

// A type on one line: names of schemas, values of choices, bounds.
function typeOf(part) {
  if (!part) return "nothing";
  if (part.$ref) return part.$ref.split("/").pop();
  if (part.enum) return part.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (part.anyOf) return part.anyOf.map(typeOf).join(" | ");
  if (part.type === "array") return `[${part.prefixItems ? part.prefixItems.map(typeOf).join(", ") : typeOf(part.items)}]`;
  const bounds = ["minimum", "maximum", "maxLength"].filter((name) => name in part).map((name) => `${name} ${part[name]}`);
  return [part.type ?? "anything", ...bounds].join(" ");
}

function fields(part) {
  const needed = new Set(part.required ?? []);
  return Object.entries(part.properties ?? {}).map(([name, of]) => {
    const given = "default" in of ? ` = ${JSON.stringify(of.default)}` : "";
    return `${name}${needed.has(name) ? "" : "?"}: ${typeOf(of)}${given}`;
  }).join("\n");
}

function operation(path, method, of) {
  const body = of.requestBody?.content?.["application/json"]?.schema;
  const answer = of.responses["200"]?.content ?? {};
  const parameters = (of.parameters ?? []).map((one) => `${one.name}: ${typeOf(one.schema)}`).join("\n");
  return element(
    "section",
    { className: "operation" },
    element("h2", {}, element("code", {}, `${method.toUpperCase()} ${path}`)),
    element("p", {}, of.description ?? of.summary ?? ""),
    parameters ? element("pre", {}, parameters) : null,
    body ? element("p", {}, `Takes ${typeOf(body)}:`) : null,
    body ? element("pre", {}, fields(resolved(body))) : null,
    element("p", {}, `Answers ${Object.entries(answer).map(([kind, one]) => `${typeOf(one.schema)} (${kind})`).join(", ")}.`),
  );
}

const operations = Object.entries(schema.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, of]) => operation(path, method, of)));
const shapes = Object.entries(schema.components.schemas).map(([name, part]) => element(
  "section",
  { className: "operation" },
  element("h2", {}, element("code", {}, name)),
  element("p", {}, part.description ?? ""),
  element("pre", {}, fields(part)),
));
document.getElementById("operations").replaceChildren(...operations, ...shapes);
