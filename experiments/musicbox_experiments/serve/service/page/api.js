// Requests to the service. Every answer is JSON but the map, which is packed.

const TOKEN = "musicbox-token";
const LONGEST_WAIT = 60_000; // milliseconds; the service itself refuses what takes it half as long
const SENDABLE = /^[\x21-\x7e]+$/; // what a token consists of, and a header can hold

let token = remembered();

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// A browser that keeps nothing for a page refuses even to be asked.
function remembered() {
  try {
    const text = sessionStorage.getItem(TOKEN);
    return SENDABLE.test(text ?? "") ? text : null;
  } catch {
    return null;
  }
}

function remember(text) {
  token = text;
  try {
    if (text) sessionStorage.setItem(TOKEN, text);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // The token is then asked for again when the page is loaded.
  }
}

export function setToken(text) {
  if (!SENDABLE.test(text.trim())) throw new Problem(401, "A token holds letters without accents, digits and signs, and no blanks.");
  remember(text.trim());
}

function refusal(status, detail) {
  if (status !== 401) return typeof detail === "string" && detail ? detail : `The service answered ${status}.`;
  const said = token ? "The service knows no such token." : "Enter the token of this service. Whoever runs it has it in a file.";
  remember(null);
  return said;
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const stopped = new AbortController(); // also what is read of an answer after its head
  setTimeout(() => stopped.abort(), LONGEST_WAIT);
  const request = new Request(path, { ...options, headers, signal: stopped.signal });
  let response;
  try {
    response = await fetch(request);
  } catch {
    throw new Problem(0, "The service does not answer.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Problem(response.status, refusal(response.status, said?.detail));
}

function broken() {
  throw new Problem(0, "The service's answer broke off, or is not what was asked for.");
}

async function parsed(response) {
  return await response.json().catch(broken) ?? broken();
}

export async function get(path) {
  return parsed(await ask(path));
}

export async function post(path, body) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  return parsed(await ask(path, options));
}

// Columns of the map, see docs/serving.md: songs, places, keep rates, popularity, clusters.
export async function getMap() {
  const packed = await (await ask("v1/map")).arrayBuffer().catch(broken);
  const number = packed.byteLength < 4 ? 0 : new DataView(packed).getUint32(0, true);
  if (!number || packed.byteLength !== 4 + 7 * number) broken();
  const places = new Uint16Array(packed, 4, 2 * number);
  const shades = new Uint8Array(packed, 4 + 4 * number, 3 * number);
  return {
    number,
    x: places.subarray(0, number),
    y: places.subarray(number),
    keep: shades.subarray(0, number),
    popularity: shades.subarray(number, 2 * number),
    cluster: shades.subarray(2 * number),
  };
}
