// Requests to the service. Every answer is JSON but the map, which is packed.

const TOKEN = "musicbox-token";

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Problem(0, "The service does not answer.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Problem(response.status, said.detail ?? `The service answered ${response.status}.`);
}

export async function get(path) {
  return (await ask(path)).json();
}

export async function post(path, body) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  return (await ask(path, options)).json();
}

// Columns of the map, see docs/serving.md: songs, places, keep rates, popularity, clusters.
export async function getMap() {
  const packed = await (await ask("v1/map")).arrayBuffer();
  const number = new DataView(packed).getUint32(0, true);
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
