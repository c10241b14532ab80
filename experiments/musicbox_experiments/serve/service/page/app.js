// The page: a session, heard by whoever looks at it or by a simulated listener, and what each agent
// would play in it. The service keeps nothing; every look asks with the whole session.

import { get, getMap, post, Problem, setToken } from "./api.js";
import { listenTo } from "./gestures.js";
import { CatalogMap } from "./map.js";
import * as view from "./view.js";
import * as words from "./words.js";

const PAUSE_MS = 1500;
const TYPING_MS = 150;
const NOTHING = { songs: [], points: [], near: [] };

const by = (id) => document.getElementById(id);
const map = new CatalogMap(by("map"));

const state = {
  about: null,
  session: fresh("listener", 0),
  look: null, // the service's answer for the session
  trail: [], // at each look since the start: share kept by agent
  agent: null,
};

// A session that nothing was added to: songs marked in one's own, { song, level }; ids of each slate
// played in a simulated one.
function fresh(mode, listener) {
  return { mode, listener, heard: [], slates: [] };
}

function say(text, problem = false) {
  by("status").textContent = text;
  by("status").classList.toggle("problem", problem);
  by("again").hidden = !problem || !by("token-form").hidden;
}

let turn = Promise.resolve(), problems = 0;

async function attempt(work) {
  try {
    await work();
  } catch (problem) {
    problems++;
    stop();
    if (state.look) showControls();
    if (problem.status === 401) by("token-form").hidden = false;
    say(problem.message, true);
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) by("token").focus();
  }
}

// Do one thing after another, each on what the last one left. After a problem those that waited are
// dropped.
function inTurn(work) {
  const before = problems;
  const done = turn.then(() => before === problems && attempt(work));
  turn = done.catch(() => {});
  return done;
}

// Look at another session. It takes the place of this one when the answer is there, so that what
// fails changes nothing; steps are counted, so that going back takes a share back too.
async function move(session) {
  const { mode, heard, listener, slates } = session, yours = mode === "you";
  const look = await post("v1/look", yours ? { heard } : { listener, played: slates.flat() });
  if (servedIn(look) !== servedIn(state.about)) await learn(); // the run was replaced
  const withSongs = look.agents.filter((one) => one.songs.length);
  const shares = new Map(withSongs.map((one) => [one.agent, keptOf(one.songs)]));
  const trail = [...state.trail.slice(0, yours ? heard.length : slates.length), shares];
  Object.assign(state, { session, look, trail });
  show();
}

const servedIn = ({ run, dataset, agents }) => JSON.stringify([run, dataset, agents.map((one) => one.agent)]);
const keptOf = (songs) => songs.reduce((sum, song) => sum + 1 - song.skip_chance, 0) / songs.length;

// Mean share kept of an agent over all looks at which it had songs.
function shareOf(agent) {
  const shares = state.trail.filter((step) => step.has(agent)).map((step) => step.get(agent));
  return shares.length ? shares.reduce((sum, share) => sum + share, 0) / shares.length : null;
}

const isOver = () => state.look.remaining === 0;
const viewOf = (agent) => state.look.agents.find((one) => one.agent === agent) ?? NOTHING;

function show() {
  const { about, agent, look, session, trail } = state;
  const one = viewOf(agent), over = isOver();
  by("room").inert = false;
  by("strip-song").textContent = look.heard.length ? "Choose a bar to name its song." : "";
  view.showStrip(by("strip"), look, nameBar);
  by("strip-text").textContent = words.stripText(look);
  const cards = about.agents.map((each) => ({
    ...each,
    songs: viewOf(each.agent).songs,
    share: shareOf(each.agent),
    without: over ? "The session is over." : "Too few songs are left.",
  }));
  view.showAgents(by("agents"), cards, { chosen: agent, onChoose: choose, onMark: session.mode === "you" ? mark : null });
  by("agent-text").textContent = `${agent}: ${about.agents.find((each) => each.agent === agent).about}`;
  by("listener-text").textContent = words.listenerText(session.mode, about.evaluator);
  by("agents-text").textContent = words.agentsText(session.mode, trail.filter((step) => step.size).length);
  map.show({
    heard: look.heard.map((song) => ({ at: song.at, kept: words.kept(song.level) })),
    near: one.near,
    chosen: one.songs,
    points: one.points,
  });
  by("map-text").textContent = words.mapText(agent, one, over);
  const names = one.songs.map((song) => words.within(words.nameOf(song))).join("; ");
  const missing = look.unknown.length ? `${words.count(look.unknown.length, "song")} of the session left the catalog. ` : "";
  say(missing + (over ? "The session is over. Go back, or start anew." : names && `${agent} would play: ${names}.`));
  showControls();
  if (over) stop();
}

function showControls() {
  const { mode, listener, heard, slates } = state.session, yours = mode === "you";
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
  by("listener-tools").hidden = yours;
  by("listener").value = listener;
  const ids = state.about.titles ? "artist or title" : "parts of their ids";
  by("search-label").textContent = yours ? `Songs you heard: search by ${ids}` : `Find songs on the map: search by ${ids}`;
  by("search-help").hidden = !yours;
  disable(by("step"), !yours && isOver());
  disable(by("play"), !yours && isOver());
  disable(by("back"), !(yours ? heard : slates).length);
}

// A button that is disabled loses the focus to nothing.
function disable(button, whether) {
  if (whether && document.activeElement === button) by("anew").focus();
  button.disabled = whether;
}

function choose(agent) {
  state.agent = agent;
  if (state.look) show();
}

function nameBar(song, said) {
  by("strip-song").textContent = said;
  map.select(song.at);
}

// One song is marked once a time, however often its button is pressed.
const marking = new Set();
async function mark(song, level) {
  if (marking.has(song.id)) return;
  marking.add(song.id);
  await inTurn(async () => {
    await move({ ...state.session, heard: [...state.session.heard, { song: song.id, level }] });
    if (by("found").contains(document.activeElement)) by("search").focus();
    clearSearch();
  });
  marking.delete(song.id);
}

// The simulated listener hears the slate of the chosen agent.
async function hear() {
  const songs = viewOf(state.agent).songs;
  if (!songs.length) return stop();
  await move({ ...state.session, slates: [...state.session.slates, songs.map((song) => song.id)] });
}

const step = () => state.session.mode === "listener" && inTurn(hear);

let playing = null;

function stop() {
  playing = null;
  by("play").ariaPressed = "false";
  by("play").textContent = "Play";
}

async function play() {
  if (playing) return stop();
  const mine = playing = {};
  by("play").ariaPressed = "true";
  by("play").textContent = "Pause";
  while (playing === mine) {
    await inTurn(hear);
    await new Promise((resume) => setTimeout(resume, PAUSE_MS));
  }
}

function back() {
  stop();
  return inTurn(async () => {
    const { heard, slates } = state.session;
    if (heard.length + slates.length) await move({ ...state.session, heard: heard.slice(0, -1), slates: slates.slice(0, -1) });
  });
}

function startAnew(mode, listener) {
  stop();
  return inTurn(async () => {
    await move(fresh(mode ?? state.session.mode, listener ?? state.session.listener));
    if (mode === undefined) return;
    by("found").replaceChildren();
    if (by("search").value) search(); // it may have been typed while the other mode was asked for
    by("picked").hidden = true;
  });
}

function setListener(number) {
  return startAnew(undefined, Math.min(Math.max(Math.trunc(number) || 0, 0), state.about.listeners - 1));
}

let typing = null;
function search() {
  clearTimeout(typing);
  typing = setTimeout(() => attempt(async () => {
    const query = by("search").value.trim();
    const tracks = query ? (await get(`v1/tracks?limit=8&query=${encodeURIComponent(query)}`)).tracks : [];
    if (query !== by("search").value.trim()) return;
    view.showFound(by("found"), tracks, { onMark: state.session.mode === "you" ? mark : null, onShow: showSong });
    if (query && !tracks.length) by("found").append(view.element("li", { className: "faint" }, "No song of the catalog is called so."));
    say(query ? `${words.count(tracks.length, "song")} found.` : "");
  }), TYPING_MS);
}

function clearSearch() {
  clearTimeout(typing);
  by("search").value = "";
  by("found").replaceChildren();
}

function showSong(song) {
  map.selectRow(song.row);
  view.showPicked(by("picked"), song, state.session.mode === "you" ? mark : null);
}

function setColour() {
  map.setColour(by("colour").value);
  view.showLegend(by("legend"), map.legend());
}

const keys = {
  n: step,
  p: () => state.session.mode === "listener" && play(),
  b: () => !by("back").disabled && back(),
  "/": () => by("search").focus(),
};

function pressed(event) {
  const held = event.repeat && event.target.matches("button");
  if (held && event.key === "Enter") event.preventDefault(); // one press is one mark
  const typed = event.target.matches("input:not([type=radio]), select, textarea");
  if (typed || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !state.look) return;
  const agent = state.about.agents[Number(event.key) - 1];
  if (agent) choose(agent.agent);
  else if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
}

// What is served; an agent that is still there stays chosen.
async function learn() {
  const about = await get("v1/about"), columns = await getMap();
  by("run").textContent = words.shown(about.run);
  by("listener").max = about.listeners - 1;
  const labels = about.agents.map((one) => one.agent);
  const agent = labels.includes(state.agent) ? state.agent : labels[0];
  Object.assign(state, { about, agent });
  map.setColumns(columns);
  setColour();
}

async function start() {
  await learn();
  await move(fresh(document.querySelector("input[name=mode]:checked").value, 0));
}

const resume = () => inTurn(() => (state.look ? move(state.session) : start()));

for (const radio of document.querySelectorAll("input[name=mode]")) {
  radio.addEventListener("change", () => startAnew(radio.value));
}
by("listener").addEventListener("change", () => setListener(by("listener").value));
by("another").addEventListener("click", () => setListener(Math.random() * state.about.listeners));
by("step").addEventListener("click", step);
by("play").addEventListener("click", play);
by("back").addEventListener("click", back);
by("anew").addEventListener("click", () => startAnew());
by("again").addEventListener("click", resume);
by("search").addEventListener("input", search);
by("search-form").addEventListener("submit", (event) => event.preventDefault());
by("colour").addEventListener("change", setColour);
by("zoom-in").addEventListener("click", () => map.zoom(1.5));
by("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
by("zoom-all").addEventListener("click", () => map.showAll());
listenTo(map, (row) => attempt(async () => showSong(await get(`v1/tracks/${row}`))));
view.moveByArrows(by("strip"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", setColour);
document.addEventListener("keydown", pressed);
by("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    setToken(by("token").value);
    by("token-form").hidden = true;
    await resume();
  });
});
resume();
