// The page: a session, heard by whoever looks at it or by a simulated listener, and what each agent
// would play in it. The service keeps nothing; every look asks with the whole session.

import { get, getMap, post, setToken } from "./api.js";
import { CatalogMap } from "./map.js";
import * as view from "./view.js";

const PAUSE_MS = 1500;
const TYPING_MS = 150;

const by = (id) => document.getElementById(id);
const map = new CatalogMap(by("map"), pick);
const about = new Map();

const state = {
  about: null,
  mode: "listener",
  listener: 0,
  heard: [], // of one's own session: { song, level }
  slates: [], // of the simulated session: ids of each slate played
  agent: null,
  look: null,
  trail: [], // at each look since the start: chance of a keep by agent
  timer: null,
};
let asked = 0;

function say(text, problem = false) {
  by("status").textContent = text;
  by("status").classList.toggle("problem", problem);
}

async function attempt(work) {
  try {
    await work();
  } catch (problem) {
    stop();
    by("token-form").hidden = problem.status !== 401;
    say(problem.message, true);
    if (problem.status === undefined) throw problem;
  }
}

function request() {
  if (state.mode === "you") return { heard: state.heard };
  return { listener: state.listener, played: state.slates.flat() };
}

// Ask what agents would play now. Steps are counted, so that going back takes a score back too.
async function look() {
  const number = ++asked;
  const found = await post("v1/look", request());
  if (number !== asked) return;
  state.look = found;
  const step = state.mode === "you" ? state.heard.length : state.slates.length;
  state.trail.length = Math.min(state.trail.length, step);
  state.trail[step] = new Map(found.agents.filter((one) => one.songs.length).map((one) => [one.agent, meanKept(one)]));
  show();
}

const meanKept = (one) => one.songs.reduce((sum, song) => sum + 1 - song.skip_chance, 0) / one.songs.length;

function scores() {
  const found = new Map();
  for (const step of state.trail) {
    for (const [agent, kept] of step ?? []) {
      const before = found.get(agent) ?? { kept: 0, slates: 0 };
      found.set(agent, { kept: before.kept + kept, slates: before.slates + 1 });
    }
  }
  return found;
}

const current = () => state.look?.agents.find((one) => one.agent === state.agent);

function show() {
  const one = current();
  const yours = state.mode === "you";
  view.showStrip(by("strip"), state.look);
  by("strip-text").textContent = view.stripText(state.look);
  view.showAgents(by("agents"), state.look, {
    chosen: state.agent, scores: scores(), about, onChoose: choose, onMark: yours ? mark : null,
  });
  map.show({
    heard: state.look.heard.map((song) => ({ at: song.at, kept: view.kept(song.level) })),
    near: one?.near ?? [],
    chosen: one?.songs ?? [],
    points: one?.points ?? [],
  });
  const names = (one?.songs ?? []).map(view.nameOf).join("; ");
  const over = state.look.remaining === 0;
  say(over ? "The session is over. Go back, or start anew." : names && `${state.agent} would play: ${names}.`);
  by("map-text").textContent = one?.points.length
    ? `The cross is the proto-action of ${state.agent}, rings are the songs nearest to it, numbers what it plays. Dots on the line are songs heard.`
    : `Numbers are what ${state.agent} plays; it names songs without a proto-action on this map.`;
  by("step").disabled = over;
  by("play").disabled = over;
  by("back").disabled = !(yours ? state.heard.length : state.slates.length);
  if (over) stop();
}

function choose(agent) {
  state.agent = agent;
  if (state.look) show();
}

function mark(song, level) {
  state.heard.push({ song: song.id, level });
  by("search").value = "";
  by("found").replaceChildren();
  return attempt(look);
}

// The simulated listener hears the slate of the chosen agent.
async function step() {
  const songs = current()?.songs ?? [];
  if (!songs.length || state.look.remaining === 0) return stop();
  state.slates.push(songs.map((song) => song.id));
  await attempt(look);
}

function stop() {
  clearTimeout(state.timer);
  state.timer = null;
  by("play").ariaPressed = "false";
  by("play").textContent = "Play";
}

function play() {
  if (state.timer) return stop();
  by("play").ariaPressed = "true";
  by("play").textContent = "Pause";
  const next = async () => {
    await step();
    if (state.timer) state.timer = setTimeout(next, PAUSE_MS);
  };
  state.timer = setTimeout(next, 0);
}

function back() {
  stop();
  (state.mode === "you" ? state.heard : state.slates).pop();
  return attempt(look);
}

function anew() {
  stop();
  state.heard = [];
  state.slates = [];
  state.trail = [];
  return attempt(look);
}

function setMode(mode) {
  state.mode = mode;
  by("listener-tools").hidden = mode === "you";
  by("search-form").hidden = mode !== "you";
  const source = mode === "you" ? "skip rates of the log" : `the listener (${state.about.evaluator})`;
  by("agents-text").textContent = `Chances of a skip are those of ${source}. The share beside a name is what the agent's songs would be kept, over the slates so far.`;
  by("picked").hidden = true;
  return anew();
}

function setListener(number) {
  state.listener = Math.min(Math.max(Math.trunc(number) || 0, 0), state.about.listeners - 1);
  by("listener").value = state.listener;
  return anew();
}

let typing = null;
function search() {
  clearTimeout(typing);
  typing = setTimeout(() => attempt(async () => {
    const query = by("search").value.trim();
    const tracks = query ? (await get(`v1/tracks?limit=8&query=${encodeURIComponent(query)}`)).tracks : [];
    if (query !== by("search").value.trim()) return;
    view.showFound(by("found"), tracks, mark);
    say(query ? `${tracks.length} songs found.` : "");
  }), TYPING_MS);
}

function pick(row) {
  return attempt(async () => {
    const song = await get(`v1/tracks/${row}`);
    view.showPicked(by("picked"), song, state.mode === "you" ? mark : null);
  });
}

function setColour() {
  map.setColour(by("colour").value);
  view.showLegend(by("legend"), map.legend());
}

const keys = {
  n: () => (state.mode === "listener" ? step() : attempt(look)),
  p: () => state.mode === "listener" && play(),
  b: () => !by("back").disabled && back(),
  "/": () => by("search").focus(),
};

function pressed(event) {
  const typed = event.target.matches("input:not([type=radio]), select, textarea");
  if (typed || event.ctrlKey || event.metaKey || event.altKey || !state.look) return;
  const card = state.look.agents[Number(event.key) - 1];
  if (card) choose(card.agent);
  else if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
}

async function start() {
  state.about = await get("v1/about");
  by("run").textContent = state.about.run;
  by("listener").max = state.about.listeners - 1;
  if (!state.about.titles) by("search-label").textContent = "Songs you heard: search by parts of their ids";
  for (const one of state.about.agents) about.set(one.agent, one.about);
  state.agent = state.about.agents[0].agent;
  map.setColumns(await getMap());
  setColour();
  await setMode(document.querySelector("input[name=mode]:checked").value);
}

for (const radio of document.querySelectorAll("input[name=mode]")) {
  radio.addEventListener("change", () => setMode(radio.value));
}
by("listener").addEventListener("change", () => setListener(by("listener").value));
by("another").addEventListener("click", () => setListener(Math.random() * state.about.listeners));
by("step").addEventListener("click", step);
by("play").addEventListener("click", play);
by("back").addEventListener("click", back);
by("anew").addEventListener("click", anew);
by("search").addEventListener("input", search);
by("search-form").addEventListener("submit", (event) => event.preventDefault());
by("colour").addEventListener("change", setColour);
by("zoom-in").addEventListener("click", () => map.zoom(1.5));
by("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
by("zoom-all").addEventListener("click", () => map.showAll());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", setColour);
document.addEventListener("keydown", pressed);
by("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(by("token").value);
  by("token-form").hidden = true;
  attempt(start);
});
attempt(start);
