// What is seen of a session, as elements. Titles are set as text, so that none is ever markup.

export const LEVELS = ["skipped at once", "skipped early", "heard mostly", "cut near its end", "heard to the end"];
const SKIPS_BELOW = 2;

export const kept = (level) => level >= SKIPS_BELOW;
export const nameOf = (song) => (song.artist ? `${song.artist} - ${song.title}` : song.title);
export const percent = (share) => `${Math.round(100 * share)} %`;

// An element with properties and children; strings become text.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function button(text, label, onclick) {
  return element("button", { type: "button", ariaLabel: label, onclick }, text);
}

// Two buttons that say how a song was heard.
function marks(song, onMark) {
  return element(
    "div",
    { className: "marks" },
    button("Kept", `Kept: ${nameOf(song)}`, () => onMark(song, "kept")),
    button("Skipped", `Skipped: ${nameOf(song)}`, () => onMark(song, "skipped")),
  );
}

export function showFound(list, songs, onMark) {
  const rows = songs.map((song) => element("li", {}, element("span", {}, nameOf(song)), marks(song, onMark)));
  list.replaceChildren(...rows);
}

export function showPicked(box, song, onMark) {
  box.hidden = false;
  const said = `${nameOf(song)}, keep rate ${percent(song.keep_rate)}`;
  box.replaceChildren(element("span", {}, said), ...(onMark ? [marks(song, onMark)] : []));
}

export function showLegend(list, legend) {
  const rows = legend.map(([text, colour]) => {
    const dot = element("i", { ariaHidden: "true" });
    dot.style.backgroundColor = colour;
    return element("li", {}, dot, text);
  });
  list.replaceChildren(...rows);
}

// Songs heard as bars, as high as each was heard; those of a simulated session that the log began
// with are pale.
export function showStrip(list, look) {
  const firstNew = look.heard.findIndex((song) => song.skip_chance !== null);
  const rows = look.heard.map((song, i) => {
    const chance = song.skip_chance === null ? "" : percent(song.skip_chance);
    const shown = look.remaining !== null && song.skip_chance === null;
    const said = `${i + 1}. ${nameOf(song)}, ${LEVELS[song.level]}${chance && `, chance of a skip ${chance}`}`;
    const names = [`level-${song.level}`, shown ? "shown" : "", i === firstNew && i > 0 ? "first" : ""];
    return element(
      "li",
      { className: names.join(" ").trim(), title: said },
      element("span", { className: "hidden" }, said),
      element("div", { className: "bar-of", ariaHidden: "true" }, element("i")),
      element("span", { ariaHidden: "true" }, chance.replace(" %", "")),
    );
  });
  list.replaceChildren(...rows);
  list.lastElementChild?.scrollIntoView({ block: "nearest", inline: "end" });
}

export function stripText(look) {
  const played = look.heard.filter((song) => song.skip_chance !== null);
  if (look.remaining === null) return `${look.heard.length} song${look.heard.length === 1 ? "" : "s"} heard, ${look.heard.filter((song) => !kept(song.level)).length} skipped.`;
  const skipped = played.filter((song) => !kept(song.level)).length;
  const over = look.remaining === 0 ? "The session is over." : `${look.remaining} more to come.`;
  return `${look.heard.length - played.length} songs of the log (pale), ${played.length} recommended, ${skipped} of them skipped; below each its chance of a skip in percent. ${over}`;
}

function why(song) {
  const reasons = [];
  if (song.nearest) reasons.push(`most like ${song.nearest} (cosine ${song.likeness.toFixed(2)})`);
  reasons.push(`kept in ${percent(song.keep_rate)} of plays`);
  if (song.score !== null) reasons.push(`score ${song.score.toFixed(2)}`);
  return reasons.join("; ");
}

function suggested(song, onMark) {
  const chance = percent(song.skip_chance);
  return element(
    "li",
    {},
    nameOf(song),
    element(
      "span",
      { className: "chance" },
      "skip",
      element("meter", { min: 0, max: 1, low: 0.35, high: 0.6, optimum: 0, value: song.skip_chance, ariaLabel: `Chance of a skip ${chance}` }),
      chance,
    ),
    element("span", { className: "why" }, why(song)),
    onMark ? marks(song, onMark) : null,
  );
}

// Agents side by side. `scores` maps an agent to its mean chance of a keep, and over how many slates.
export function showAgents(box, look, { chosen, scores, about, onChoose, onMark }) {
  const cards = look.agents.map((view) => {
    const is = view.agent === chosen;
    const score = scores.get(view.agent);
    const radio = element("input", {
      type: "radio", name: "agent", value: view.agent, checked: is, onchange: () => onChoose(view.agent),
    });
    const running = score && score.slates ? `${percent(score.kept / score.slates)} kept, ${score.slates} slate${score.slates === 1 ? "" : "s"}` : "";
    return element(
      "article",
      { className: is ? "chosen" : "", ariaLabel: `Agent ${view.agent}`, title: about.get(view.agent) ?? "" },
      element("header", {}, element("h3", {}, element("label", {}, radio, " ", view.agent)), element("span", { className: "faint" }, running)),
      view.songs.length
        ? element("ol", {}, ...view.songs.map((song) => suggested(song, onMark)))
        : element("p", { className: "faint" }, "Too few songs are left."),
    );
  });
  const focused = document.activeElement?.name === "agent";
  box.replaceChildren(...cards);
  if (focused) box.querySelector("input:checked")?.focus();
}
