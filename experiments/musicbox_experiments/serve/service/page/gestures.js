// Hands on the map: mouse, wheel, fingers and keys. One finger and the bare wheel scroll the page.

const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ARROW_PIXELS = 60;
const KEY_ZOOM = 1.5;
const PICK_PIXELS = 14;
const STILL_PIXELS = 4;
const LINE_PIXELS = 40;

// `onPick` gets the row of the song that was clicked, or chosen by Enter: the one next to the middle.
export function listenTo(map, onPick) {
  const pick = (row) => row >= 0 && onPick(row);
  listenToMouse(map, pick);
  listenToFingers(map);
  map.box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      "+": () => map.zoom(KEY_ZOOM),
      "=": () => map.zoom(KEY_ZOOM),
      "-": () => map.zoom(1 / KEY_ZOOM),
      0: () => map.showAll(),
      Enter: () => pick(map.rowAt(map.box.clientWidth / 2, map.box.clientHeight / 2)),
    };
    const arrow = ARROWS[event.key];
    if (arrow) map.pan(arrow[0] * ARROW_PIXELS, arrow[1] * ARROW_PIXELS);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
}

function listenToMouse(map, pick) {
  const { overlay } = map;
  let from = null, dragged = false;
  overlay.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : LINE_PIXELS);
    map.zoom(Math.min(Math.max(2 ** (-pixels / 200), 0.5), 2), event.offsetX, event.offsetY);
  }, { passive: false });
  overlay.addEventListener("pointerdown", (event) => {
    dragged = false;
    if (event.pointerType === "touch" || event.button !== 0) return;
    from = { x: event.offsetX, y: event.offsetY };
    overlay.setPointerCapture(event.pointerId);
  });
  overlay.addEventListener("pointermove", (event) => {
    if (!from) return;
    const dx = event.offsetX - from.x, dy = event.offsetY - from.y;
    if (!dragged && Math.hypot(dx, dy) < STILL_PIXELS) return;
    dragged = true;
    from = { x: event.offsetX, y: event.offsetY };
    map.pan(dx, dy);
  });
  for (const end of ["pointerup", "pointercancel"]) overlay.addEventListener(end, () => { from = null; });
  overlay.addEventListener("click", (event) => dragged || pick(map.rowAt(event.offsetX, event.offsetY, PICK_PIXELS)));
}

// Two fingers move and zoom; where the page scrolls already, their moves cannot be cancelled.
function listenToFingers(map) {
  let before = null;
  const both = ({ touches: [a, b] }) => {
    const box = map.box.getBoundingClientRect();
    return {
      x: (a.clientX + b.clientX) / 2 - box.left,
      y: (a.clientY + b.clientY) / 2 - box.top,
      apart: Math.max(Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), 1),
    };
  };
  const touched = (event) => {
    const now = event.touches.length === 2 && event.cancelable ? both(event) : null;
    if (now) event.preventDefault();
    if (now && before) {
      map.pan(now.x - before.x, now.y - before.y);
      map.zoom(now.apart / before.apart, now.x, now.y);
    }
    before = now;
  };
  for (const name of ["touchstart", "touchmove", "touchend", "touchcancel"]) {
    map.overlay.addEventListener(name, touched, { passive: false });
  }
}
