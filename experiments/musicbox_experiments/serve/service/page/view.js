// What is seen of a session, as elements. Names are set as text, so that none is ever markup.

import { heardText, nameOf, percent, shown, within } from "./words.js";

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

// A name whose direction is its own affair; the whole of it shows where the pointer rests.
const named = (name) => element("bdi", { className: "name", title: within(name) }, shown(name));

function button(text, label, onclick, place = "") {
  return element("button", { type: "button", ariaLabel: label, onclick, "data-place": place }, text);
}

// Show other rows; focus stays at the place where it was, or near it.
function replaceRows(box, rows) {
  const had = box.contains(document.activeElement) ? document.activeElement.dataset.place : null;
  box.replaceChildren(...rows);
  if (had === null) return;
  const places = [...box.querySelectorAll("[data-place]")];
  const next = places.find((one) => one.dataset.place === had) ?? box.querySelector("input:checked") ?? places.at(-1);
  next?.focus({ preventScroll: true });
}

// Two buttons that say how a song was heard. The second click of a double click would meet the song
// that took this one's place.
function marks(song, onMark, place = "") {
  const mark = (text, level) => button(text, `${text}: ${shown(nameOf(song))}`, (event) => event.detail < 2 && onMark(song, level), `${place}${level}`);
  return element("div", { className: "marks" }, mark("Kept", "kept"), mark("Skipped", "skipped"));
}

// Songs found: to be marked in a session of one's own, else to be shown on the map.
export function showFound(list, songs, { onMark, onShow }) {
  const use = (song) => (onMark ? marks(song, onMark) : button("Show", `Show on the map: ${shown(nameOf(song))}`, () => onShow(song)));
  list.replaceChildren(...songs.map((song) => element("li", {}, named(nameOf(song)), use(song))));
}

export function showPicked(box, song, onMark) {
  box.hidden = false;
  const rate = element("span", { className: "faint" }, `keep rate ${percent(song.keep_rate)}`);
  box.replaceChildren(named(nameOf(song)), rate, ...(onMark ? [marks(song, onMark)] : []));
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
// with are pale. `onName` is told which song has the focus or was tapped.
export function showStrip(list, look, onName) {
  const firstNew = look.heard.findIndex((song) => song.skip_chance !== null);
  const rows = look.heard.map((song, i) => {
    const said = heardText(song, i), name = () => onName(song, said);
    const logged = look.remaining !== null && song.skip_chance === null;
    const names = [`level-${song.level}`, logged ? "logged" : "", i === firstNew && i > 0 ? "first" : ""];
    return element(
      "li",
      { className: names.join(" ").trim() },
      element(
        "button",
        { type: "button", title: said, tabIndex: i === look.heard.length - 1 ? 0 : -1, onfocus: name, onclick: name, "data-place": `heard-${i}` },
        element("span", { className: "hidden" }, said),
        element("span", { className: "bar-of", ariaHidden: "true" }, element("i")),
        element("span", { className: "under", ariaHidden: "true" }, song.skip_chance === null ? "" : String(Math.round(100 * song.skip_chance))),
      ),
    );
  });
  replaceRows(list, rows);
  list.scrollLeft = list.scrollWidth;
}

// Let arrow keys move along the buttons of a list, which is one stop of the tab key.
export function moveByArrows(list) {
  list.addEventListener("focusin", (event) => {
    for (const one of list.querySelectorAll("button")) one.tabIndex = one === event.target ? 0 : -1;
  });
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")], at = buttons.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  });
}

// What speaks for a song, numbers first: a long name is cut at its end.
function why(song, yours) {
  const rate = yours ? "" : `kept in ${percent(song.keep_rate)} of plays; `;
  const score = song.score === null ? "" : `score ${song.score.toFixed(2)}; `;
  const like = song.nearest === null ? [] : [`most like (cosine ${song.likeness.toFixed(2)}): `, element("bdi", {}, shown(song.nearest))];
  return element("span", { className: "why", title: song.nearest ?? "" }, (rate + score).replace(like.length ? "" : /; $/, ""), ...like);
}

function suggested(song, place, onMark) {
  const chance = percent(song.skip_chance);
  const meter = { min: 0, max: 1, low: 0.35, high: 0.6, optimum: 0, value: song.skip_chance, ariaLabel: `${onMark ? "Skip rate" : "Chance of a skip"} ${chance}` };
  return element(
    "li",
    {},
    named(nameOf(song)),
    element("span", { className: "chance" }, onMark ? "skip rate" : "skip", element("meter", meter), chance),
    why(song, onMark !== null),
    onMark ? marks(song, onMark, place) : null,
  );
}

// Agents side by side; `cards` are name, what it is, songs, share kept, and what is said without songs.
export function showAgents(box, cards, { chosen, onChoose, onMark }) {
  const articles = cards.map((card, i) => {
    const is = card.agent === chosen;
    const radio = element("input", {
      type: "radio", name: "agent", value: card.agent, checked: is, onchange: () => onChoose(card.agent), "data-place": `${i}-choose`,
    });
    return element(
      "article",
      { className: is ? "chosen" : "", ariaLabel: `Agent ${card.agent}`, title: card.about },
      element("header", {}, element("h3", {}, element("label", {}, radio, " ", named(card.agent))), element("span", { className: "faint" }, card.share === null ? "" : `${percent(card.share)} kept`)),
      card.songs.length
        ? element("ol", {}, ...card.songs.map((song, place) => suggested(song, `${i}-${place}-`, onMark)))
        : element("p", { className: "faint" }, card.without),
    );
  });
  replaceRows(box, articles);
}
