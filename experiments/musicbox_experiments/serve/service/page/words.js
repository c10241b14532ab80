// Words of the page. Names come from the data: they are cut, and held apart from the text around
// them, whose order letters written from right to left would change.

const LONGEST_NAME = 120;
const BREAKS = /[\p{Cc}\u2028\u2029]+/gu;
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069]/gu;
const SKIPS_BELOW = 2;

export const LEVELS = ["skipped at once", "skipped early", "heard mostly", "cut near its end", "heard to the end"];

export const kept = (level) => level >= SKIPS_BELOW;
export const percent = (share) => `${Math.round(100 * share)} %`;
export const count = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;

// A name for an element of its own: see `named` of view.js.
export function shown(name) {
  const letters = [...name.replace(BREAKS, " ").replace(DIRECTIONS, "")];
  return letters.length > LONGEST_NAME ? `${letters.slice(0, LONGEST_NAME - 1).join("")}…` : letters.join("");
}

// A name within other text.
export const within = (name) => `\u2068${shown(name)}\u2069`;

export const nameOf = (song) => (song.artist ? `${song.artist} - ${song.title}` : song.title);

// How far each simulated listener can be believed: docs/listeners.md.
const TRUST = {
  ground_truth: "the exact law of this synthetic world, right here and a guess about real listeners",
  replay: "which repeats levels of the log and hardly tells songs apart: over a whole catalog its chances and the shares of agents say little",
  learned: "a model of the log, which flatters its favourites: what agents find is skipped more than it says",
  pessimistic: "a model of the log that counts doubt against songs: its chances of a skip are a little too high",
  similarity: "which answers as the most similar moments of the log and hardly tells songs apart",
};
const FITTED = "a model that was fitted on a log; musicbox trust measures how far it can be believed";

const trustOf = (evaluator) => TRUST[evaluator] ?? FITTED;

export function heardText(song, place) {
  const chance = song.skip_chance === null ? "" : `, chance of a skip ${percent(song.skip_chance)}`;
  return `${place + 1}. ${within(nameOf(song))}, ${LEVELS[song.level]}${chance}`;
}

export function stripText(look) {
  const skipped = (songs) => songs.filter((song) => !kept(song.level)).length;
  if (look.remaining === null) return `${count(look.heard.length, "song")} heard, ${skipped(look.heard)} skipped.`;
  const played = look.heard.filter((song) => song.skip_chance !== null);
  const over = look.remaining === 0 ? "The session is over." : `${look.remaining} more to come.`;
  const logged = count(look.heard.length - played.length, "song");
  if (!played.length) return `${logged} of the log (pale), 0 recommended. ${over}`;
  return `${logged} of the log (pale), ${played.length} recommended, ${skipped(played)} of them skipped; below each its chance of a skip in percent, after all songs before it. ${over}`;
}

const HEARD_DOTS = "Large dots on the line are songs heard, blue kept and orange skipped.";

export function mapText(agent, view, over) {
  if (over) return `The session is over. ${HEARD_DOTS}`;
  if (!view.songs.length) return `Too few songs are left for ${agent}.`;
  if (view.points.length) return `The cross is the proto-action of ${agent}, rings are the songs nearest to it, numbers what it plays. ${HEARD_DOTS}`;
  const without = view.near.length ? "its proto-action lies in another space than this map; rings are the songs nearest to it" : "it names songs without a proto-action on this map";
  return `Numbers are what ${agent} plays; ${without}. ${HEARD_DOTS}`;
}

export function listenerText(mode, evaluator) {
  return mode === "you" ? "" : `The listener is ${within(evaluator)}, ${trustOf(evaluator)}.`;
}

export function agentsText(mode, decisions) {
  const over = `over ${count(decisions, "decision")}`;
  if (mode === "you") return `Skip rates are those of the log. The share beside a name is the mean keep rate of its songs, ${over}: one at the start, one after each mark.`;
  return `Each chance of a skip is that of the song once those above it were heard. The share beside a name is the mean chance that its songs are kept, ${over}.`;
}
