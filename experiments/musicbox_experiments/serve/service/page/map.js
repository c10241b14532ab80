// The catalog as a map, drawn. One canvas holds all songs, drawn when the view changes; one above it holds
// the session, drawn with every move.

const GRID = 65535;
const MARGIN = 24;
const MOVE_MS = 700;
const MOST_ZOOM = 60;
const CLUSTERS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8833", "#999999"];
const LOW = [205, 85, 45];
const MIDDLE = [150, 150, 155];
const HIGH = [45, 120, 225];

const still = matchMedia("(prefers-reduced-motion: reduce)");
const mix = (a, b, share) => a.map((value, i) => Math.round(value + (b[i] - value) * share));

function hexColour(text) {
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

// Colour of each of the 256 values of a column.
function paletteOf(name, dark) {
  return Array.from({ length: 256 }, (_, value) => {
    const share = value / 255;
    if (name === "cluster") return hexColour(CLUSTERS[value % CLUSTERS.length]);
    if (name === "popularity") return dark ? mix([60, 64, 80], [255, 214, 102], share) : mix([205, 208, 216], [110, 40, 150], share);
    return share < 0.5 ? mix(LOW, MIDDLE, 2 * share) : mix(MIDDLE, HIGH, 2 * share - 1);
  });
}

// The values of a column spread over all 256, the outermost tenths alike: keep rates are close.
function spread(column) {
  const sorted = Uint8Array.from(column).sort();
  const low = sorted[Math.floor(0.05 * sorted.length)], high = sorted[Math.floor(0.95 * sorted.length)];
  return Uint8ClampedArray.from(column, (value) => (255 * (value - low)) / Math.max(high - low, 1));
}

const LEGENDS = {
  keep: [["skipped more often", 0], ["average", 128], ["kept more often", 255]],
  popularity: [["rarely played", 0], ["played most", 255]],
  cluster: CLUSTERS.map((_, i) => [`cluster ${i + 1}`, i]),
};

export class CatalogMap {
  constructor(box) {
    this.box = box;
    [this.songs, this.overlay] = box.querySelectorAll("canvas");
    this.columns = null;
    this.colour = "keep";
    this.view = { x: 0, y: 0, zoom: 1 };
    this.scene = { heard: [], near: [], chosen: [], points: [] };
    this.selected = null; // a place that was asked for
    new ResizeObserver(() => this.drawAll()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawAll());
  }

  setColumns(columns) {
    this.columns = { ...columns, keep: spread(columns.keep) };
    this.drawAll();
  }

  setColour(colour) {
    this.colour = colour;
    this.drawAll();
  }

  legend() {
    const palette = paletteOf(this.colour, this.dark());
    return LEGENDS[this.colour].map(([text, value]) => [text, `rgb(${palette[value].join()})`]);
  }

  dark() {
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }

  zoom(factor, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    const zoom = Math.min(Math.max(this.view.zoom * factor, 1), MOST_ZOOM);
    const by = zoom / this.view.zoom;
    if (zoom === 1) this.showAll();
    else this.look(zoom, x - (x - this.view.x) * by, y - (y - this.view.y) * by);
  }

  pan(dx, dy) {
    this.look(this.view.zoom, this.view.x + dx, this.view.y + dy);
  }

  showAll() {
    this.look(1, 0, 0);
  }

  // The map can be moved until half of what is seen is empty: a proto-action may lie beside all songs.
  look(zoom, x, y) {
    const within = (at, length) => Math.min(Math.max(at, length * (0.5 - zoom)), length / 2);
    this.view = { zoom, x: within(x, this.box.clientWidth), y: within(y, this.box.clientHeight) };
    this.drawAll();
  }

  // Pixels of a place from 0 to 1; the second axis points up.
  pixel(x, y) {
    const width = this.box.clientWidth - 2 * MARGIN, height = this.box.clientHeight - 2 * MARGIN;
    return [
      (MARGIN + x * width) * this.view.zoom + this.view.x,
      (MARGIN + (1 - y) * height) * this.view.zoom + this.view.y,
    ];
  }

  pixelOfRow(row) {
    return this.pixel(this.columns.x[row] / GRID, this.columns.y[row] / GRID);
  }

  // Row of the song next to a pixel; -1 if none is that near.
  rowAt(x, y, pixels = Infinity) {
    let best = -1, least = pixels ** 2;
    for (let row = 0; row < (this.columns?.number ?? 0); row++) {
      const [px, py] = this.pixelOfRow(row);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [row, distance];
    }
    return best;
  }

  // Mark a place, and bring it into view.
  select(at) {
    this.selected = at;
    const { clientWidth: width, clientHeight: height } = this.box;
    const [x, y] = this.pixel(...at);
    if (x < 0 || y < 0 || x > width || y > height) this.pan(width / 2 - x, height / 2 - y);
    else this.drawScene(this.scene);
  }

  // The same for a song; those beyond the most played are not on the map.
  selectRow(row) {
    if (row < this.columns.number) this.select([this.columns.x[row] / GRID, this.columns.y[row] / GRID]);
  }

  drawAll() {
    const scale = devicePixelRatio || 1;
    for (const canvas of [this.songs, this.overlay]) {
      canvas.width = Math.round(this.box.clientWidth * scale);
      canvas.height = Math.round(this.box.clientHeight * scale);
    }
    if (!this.columns || !this.songs.width || !this.songs.height) return;
    this.drawSongs(scale);
    this.drawScene(this.scene);
  }

  drawSongs(scale) {
    const context = this.songs.getContext("2d");
    const { width, height } = this.songs;
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const palette = paletteOf(this.colour, this.dark()).map(([r, g, b]) => (210 << 24) | (b << 16) | (g << 8) | r);
    const column = this.columns[this.colour];
    const size = Math.max(1, Math.round(scale * Math.min(6, (this.columns.number > 50000 ? 1 : 3) * this.view.zoom ** 0.4)));
    const [left, top] = this.pixel(0, 1), [right, bottom] = this.pixel(1, 0);
    const across = (scale * (right - left)) / GRID, down = (scale * (bottom - top)) / GRID;
    for (let row = this.columns.number - 1; row >= 0; row--) { // the most played on top
      const x = Math.round(scale * left + across * this.columns.x[row]);
      const y = Math.round(scale * top + down * (GRID - this.columns.y[row]));
      if (x < 0 || y < 0 || x + size >= width || y + size >= height) continue;
      const colour = palette[column[row]];
      for (let dy = 0; dy < size; dy++) {
        for (let at = (y + dy) * width + x, end = at + size; at < end; at++) pixels[at] = colour;
      }
    }
    context.putImageData(image, 0, 0);
  }

  // Move from the scene that is shown to another: points glide, songs stay where they are.
  show(scene) {
    const before = this.scene;
    this.scene = scene;
    if (!this.columns) return;
    const started = performance.now();
    const frame = (now) => {
      if (this.scene !== scene) return;
      const share = still.matches ? 1 : Math.min((now - started) / MOVE_MS, 1);
      const eased = 1 - (1 - share) ** 3;
      const points = scene.points.map((to, i) => {
        const from = before.points[i] ?? to;
        return [from[0] + (to[0] - from[0]) * eased, from[1] + (to[1] - from[1]) * eased];
      });
      this.drawScene({ ...scene, points }, eased);
      if (share < 1) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  drawScene(scene, appeared = 1) {
    const scale = devicePixelRatio || 1;
    const context = this.overlay.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, this.overlay.width, this.overlay.height);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.drawPath(context, scene.heard, colour("--song"));
    for (const row of scene.near) {
      this.circle(context, this.pixelOfRow(row), 4 * appeared, null, colour("--point"));
    }
    for (const song of scene.heard) {
      this.circle(context, this.pixel(...song.at), 5, colour(song.kept ? "--kept" : "--skipped"), colour("--panel"));
    }
    for (const point of scene.points) {
      for (const song of scene.chosen) this.line(context, this.pixel(...point), this.pixel(...song.at), colour("--point"), appeared);
      this.cross(context, this.pixel(...point), colour("--point"), colour("--panel"));
    }
    scene.chosen.forEach((song, place) => {
      this.circle(context, this.pixel(...song.at), 10 * appeared, colour("--panel"), colour("--text"));
      context.fillStyle = colour("--text");
      context.font = "bold 12px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      const [x, y] = this.pixel(...song.at);
      context.fillText(String(place + 1), x, y + 0.5);
    });
    if (this.selected) this.target(context, this.pixel(...this.selected), colour("--text"), colour("--panel"));
  }

  drawPath(context, heard, colour) {
    context.strokeStyle = colour;
    context.globalAlpha = 0.5;
    context.lineWidth = 1;
    context.beginPath();
    heard.forEach((song, i) => context[i ? "lineTo" : "moveTo"](...this.pixel(...song.at)));
    context.stroke();
    context.globalAlpha = 1;
  }

  circle(context, [x, y], radius, fill, stroke) {
    context.beginPath();
    context.arc(x, y, Math.max(radius, 0), 0, 2 * Math.PI);
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    context.strokeStyle = stroke;
    context.lineWidth = 1.5;
    context.stroke();
  }

  // A ring with four ticks, which hides nothing in it.
  target(context, [x, y], colour, outline) {
    for (const [width, stroke] of [[5, outline], [2, colour]]) {
      context.lineWidth = width;
      context.strokeStyle = stroke;
      context.beginPath();
      context.arc(x, y, 13, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 11 * dx, y + 11 * dy);
        context.lineTo(x + 18 * dx, y + 18 * dy);
      }
      context.stroke();
    }
  }

  line(context, from, to, colour, alpha) {
    context.globalAlpha = 0.5 * alpha;
    context.strokeStyle = colour;
    context.setLineDash([4, 4]);
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  cross(context, [x, y], colour, outline) {
    for (const [width, stroke] of [[7, outline], [3.5, colour]]) {
      context.lineWidth = width;
      context.strokeStyle = stroke;
      context.beginPath();
      for (const [dx, dy] of [[9, 9], [9, -9]]) {
        context.moveTo(x - dx, y - dy);
        context.lineTo(x + dx, y + dy);
      }
      context.stroke();
    }
  }
}
