// The page of a table of runs: the table, parallel coordinates, and a scatter of two columns. What the
// reader chooses in one of them is what all show. page.py puts base.js before it.

const columns = unpacked(dataOf("columns"));
const count = columns.length ? columns[0].values.length : 0;
const every = Array.from({length: count}, (_, i) => i);
const names = columns.find(({name}) => name === "name")?.values ?? every.map(String);

// ranges: what was chosen on an axis, as two places on it, by the column's name.
const chosen = {theme: prefersDark.matches ? "dark" : "light", sort: null, isDown: false,
  ranges: new Map(), across: null, along: null};
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [230, 190, 40]];  // as plots/colours.py
const SPAN = 50;  // a column whose values span as many times its least is drawn logarithmically
const MOST_AXES = 10, MOST_LABELS = 12, WIDTH = 96, PIECE = 100;
const TOP = 30, BOTTOM = 34, LEFT = 20, RIGHT = 76;  // pixels around the axes

// ---------------------------------------------------------------- columns

const isConfig = ({name}) => name.startsWith("config.");
const isBest = ({name}) => /\.(min|max|last|mean)$/.test(name) && !name.startsWith("config.");
const known = (column) => column.values.filter((value) => value !== null);
const differs = (column) => new Set(known(column)).size > 1;
const numberOf = (text) => (text.trim() === "" ? NaN : Number(text));

/** The order of two texts: those of numbers by their value, before the others. */
function numbersFirst(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  return isNaN(x) - isNaN(y) || x - y || a.localeCompare(b, undefined, {numeric: true});
}

/** The scale of a column: where its values are, from 0 to 1, and its labels. */
function scaleOf(column) {
  if (column.scale) return column.scale;
  const values = known(column);
  if (!column.number) {
    const texts = [...new Set(values)].sort(numbersFirst);
    const place = new Map(texts.map((text, i) => [text, texts.length > 1 ? i / (texts.length - 1) : 0.5]));
    const step = Math.ceil(texts.length / MOST_LABELS);
    const labels = texts.filter((_, i) => i % step === 0).map((text) => [place.get(text), text]);
    column.scale = {at: (value) => place.get(value), labels, type: "category"};
    return column.scale;
  }
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const isLog = low > 0 && high / low > SPAN;
  const of = isLog ? Math.log10 : (value) => value;
  const at = (value) => (low === high ? 0.5
    : Math.min(1, Math.max(0, (of(value) - of(low)) / (of(high) - of(low)))));
  column.scale = {at, labels: labelsOf(finite, low, high, at), type: isLog ? "log" : "linear"};
  return column.scale;
}

/** The values themselves if they are few, else the ends and what is between them. */
function labelsOf(values, low, high, at) {
  const few = [...new Set(values)].sort((a, b) => a - b);
  const shown = (few.length <= 6 ? few : [low, high]).filter(Number.isFinite);
  const isApart = (value, i) => i === 0 || value === high
    || (at(value) - at(shown[i - 1]) > 0.06 && at(high) - at(value) > 0.06);
  return shown.filter(isApart).map((value) => [at(value), format(value)]);
}

function cell(column, i) {
  const value = column.values[i];
  return value === null ? "" : format(value);
}

// ---------------------------------------------------------------- which runs

/** The runs that the filter and the ranges leave. */
function kept() {
  const wanted = document.getElementById("filter").value.toLowerCase();
  const ranges = [...chosen.ranges].map(
    ([name, range]) => [columns.find((column) => column.name === name), range]);
  return every.filter((i) => (
    (!wanted || columns.some((column) => cell(column, i).toLowerCase().includes(wanted)))
    && ranges.every(([column, [low, high]]) => {
      const place = column.values[i] === null ? null : scaleOf(column).at(column.values[i]);
      return place !== null && place >= low && place <= high;
    })));
}

/** The runs in the order of the table: those without a value come last. */
function sorted(some) {
  const column = columns[chosen.sort];
  if (!column) return some;
  const {values, number} = column, sign = chosen.isDown ? -1 : 1;
  return [...some].sort((i, k) => {
    const [a, b] = [values[i], values[k]];
    if (a === null || b === null) return (a === null) - (b === null) || i - k;
    const order = number ? (a > b) - (a < b) : numbersFirst(a, b);
    return sign * order || i - k;
  });
}

function update() {
  const left = kept();
  document.getElementById("count").textContent = left.length < count
    ? `${left.length} of ${counted(count, "run")}` : counted(count, "run");
  document.getElementById("clear").hidden = left.length === count;
  showRows(sorted(left));
  drawAxes(left);
  drawScatter(left);
}

// ---------------------------------------------------------------- the table

const body = document.querySelector("tbody"), head = document.querySelector("thead");
const more = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) addRows();
}, {root: document.getElementById("rows"), rootMargin: "600px"});
let waiting = [];

function makeHead() {
  const longest = columns.length ? every.reduce((n, i) => Math.max(n, cell(columns[0], i).length), 0) : 0;
  body.style.setProperty("--longest", `calc(${longest}ch + 26px)`);
  const line = add(head, "tr");
  columns.forEach((column, k) => {
    const th = add(line, "th", undefined, {scope: "col", className: column.number ? "number" : ""});
    const button = add(th, "button", column.name);
    button.addEventListener("click", () => {
      chosen.isDown = chosen.sort === k && !chosen.isDown;
      chosen.sort = k;
      markSort();
      showRows(sorted(kept()));
    });
  });
}

function markSort() {
  head.querySelectorAll("th").forEach((th, k) => {
    if (k === chosen.sort) th.setAttribute("aria-sort", chosen.isDown ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  });
}

function showRows(order) {
  body.replaceChildren();
  waiting = [...order];
  document.getElementById("rows").scrollTop = 0;
  addRows();
}

/** Adds the next rows; the others come when the reader scrolls to them. */
function addRows() {
  more.disconnect();
  for (const i of waiting.splice(0, PIECE)) {
    const line = add(body, "tr");
    columns.forEach((column, k) => {
      const text = cell(column, i);
      const td = add(line, k ? "td" : "th", text, {className: column.number ? "number" : ""});
      if (text.length > 24) td.title = text;
    });
    line.addEventListener("mouseenter", () => highlight(i));
    line.addEventListener("mouseleave", () => highlight(null));
  }
  if (waiting.length) more.observe(body.lastElementChild);
}

// ---------------------------------------------------------------- parallel coordinates

const axes = document.getElementById("axes");
const canvas = add(axes, "canvas");
const SVG = "http://www.w3.org/2000/svg";
const over = axes.appendChild(document.createElementNS(SVG, "svg"));

function addSvg(parent, tag, properties, text) {
  const made = parent.appendChild(document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The columns that have an axis: the config values that differ, and last the one along y. */
function axesShown() {
  const config = columns.filter((column) => isConfig(column) && differs(column));
  const along = columns[chosen.along];
  return [...config.filter((column) => column !== along).slice(0, MOST_AXES - 1),
    ...(along ? [along] : [])];
}

function geometry() {
  const shown = axesShown();
  const width = Math.max(axes.parentElement.clientWidth, LEFT + RIGHT + WIDTH * (shown.length - 1));
  const height = Math.max(200, axes.parentElement.clientHeight);
  const step = (width - LEFT - RIGHT) / Math.max(1, shown.length - 1);
  const x = (k) => LEFT + k * step;
  const y = (place) => height - BOTTOM - place * (height - TOP - BOTTOM);
  const at = (column, i) => (column.values[i] === null ? height - 9
    : y(scaleOf(column).at(column.values[i])));
  return {shown, width, height, x, y, at, step};
}

/** The colour of a place on the ramp. */
function rampAt(place) {
  const k = Math.min(RAMP.length - 2, Math.floor(place * (RAMP.length - 1)));
  const part = place * (RAMP.length - 1) - k;
  const [low, high] = [RAMP[k], RAMP[k + 1]];
  return `rgb(${low.map((value, i) => Math.round(value + part * (high[i] - value))).join(", ")})`;
}

function colourAt(i) {
  const column = columns[chosen.along], value = column?.values[i] ?? null;
  return value === null ? css("--dim") : visible(rampAt(scaleOf(column).at(value)));
}

function drawAxes(left) {
  const {shown, width, height, x, at} = geometry();
  document.getElementById("axes-card").hidden = shown.length < 2;
  if (shown.length < 2) return;
  const ratio = devicePixelRatio || 1;
  Object.assign(canvas, {width: width * ratio, height: height * ratio});
  for (const element of [canvas, over, axes]) {
    Object.assign(element.style, {width: `${width}px`, height: `${height}px`});
  }
  const brush = canvas.getContext("2d"), isLeft = new Set(left);
  brush.scale(ratio, ratio);
  const line = (i) => {
    brush.beginPath();
    shown.forEach((column, k) => brush[k ? "lineTo" : "moveTo"](x(k), at(column, i)));
    brush.stroke();
  };
  brush.lineWidth = 1;
  brush.strokeStyle = css("--line");
  every.filter((i) => !isLeft.has(i)).forEach(line);
  brush.globalAlpha = Math.min(0.9, Math.max(0.2, 12 / Math.sqrt(left.length + 1)));
  brush.lineWidth = left.length > 300 ? 1 : 1.5;
  for (const i of left) {
    brush.strokeStyle = colourAt(i);
    line(i);
  }
  drawScales();
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label",
    `${counted(left.length, "run")} over ${shown.map(({name}) => name).join(", ")}`);
}

function drawScales() {
  const {shown, width, height, x, y, step} = geometry();
  over.replaceChildren();
  over.setAttribute("viewBox", `0 0 ${width} ${height}`);
  shown.forEach((column, k) => {
    const group = addSvg(over, "g", {class: "axis", "data-name": column.name}), at = x(k);
    addSvg(group, "line", {x1: at, x2: at, y1: y(1), y2: y(0)});
    const anchor = k === 0 ? "start" : k === shown.length - 1 ? "end" : "middle";
    const end = k === 0 ? 4 : k === shown.length - 1 ? width - 4 : at;
    const name = addSvg(group, "text", {x: end, y: 16, "text-anchor": anchor, class: "name"},
      shortened(column.name.replace(/^config\./, ""), step / 7.5));
    addSvg(name, "title", {}, column.name);
    for (const [place, text] of scaleOf(column).labels) {
      const under = addSvg(group, "rect", {class: "under"});
      const box = addSvg(group, "text", {x: at + 7, y: y(place) + 4},
        shortened(text, (k === shown.length - 1 ? RIGHT : step) / 8)).getBBox();
      Object.entries({x: box.x - 2, y: box.y, width: box.width + 4, height: box.height})
        .forEach(([name, value]) => under.setAttribute(name, value));
    }
    if (known(column).length < count) {
      addSvg(group, "text", {x: at, y: height - 4, "text-anchor": "middle", class: "none"}, "none");
    }
    const range = chosen.ranges.get(column.name);
    if (range) {
      addSvg(group, "rect", {x: at - 7, width: 14, y: y(range[1]),
        height: Math.max(2, y(range[0]) - y(range[1])), class: "range"});
    }
    makeHandle(addSvg(group, "rect", {x: at - 16, width: 32, y: y(1) - 6, height: y(0) - y(1) + 12,
      class: "handle"}), column);
  });
  addSvg(over, "path", {class: "highlight", d: ""});
}

function shortened(text, most) {
  return text.length > most ? `${text.slice(0, Math.max(3, Math.floor(most) - 1))}…` : text;
}

/** Lets the reader choose a range of an axis by dragging, and give it up by a click. */
function makeHandle(handle, column) {
  const placeOf = (event) => {
    const {y} = geometry(), top = over.getBoundingClientRect().top;
    return Math.min(1, Math.max(0, (event.clientY - top - y(0)) / (y(1) - y(0))));
  };
  handle.addEventListener("pointerdown", (event) => {
    const first = placeOf(event);
    const ends = (last) => [Math.min(first, last) - 0.005, Math.max(first, last) + 0.005];
    const move = (moved) => {
      chosen.ranges.set(column.name, ends(placeOf(moved)));
      updateSoon();
    };
    const stop = (up) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", stop);
      removeEventListener("pointercancel", stop);
      if (Math.abs(placeOf(up) - first) < 0.01) chosen.ranges.delete(column.name);
      updateSoon();
    };
    event.preventDefault();
    addEventListener("pointermove", move);
    addEventListener("pointerup", stop);
    addEventListener("pointercancel", stop);
  });
}

function updateSoon() {
  if (updateSoon.waits) return;
  updateSoon.waits = true;
  requestAnimationFrame(() => {
    updateSoon.waits = false;
    update();
  });
}

/** Shows a run among the lines. */
function highlight(i) {
  const path = over.querySelector(".highlight");
  if (!path) return;
  const {shown, x, at} = geometry();
  path.setAttribute("d", i === null ? ""
    : `M${shown.map((column, k) => `${x(k)},${at(column, i)}`).join("L")}`);
}

// ---------------------------------------------------------------- the scatter

const scatter = document.getElementById("scatter");

function axisOf(column) {
  const {type} = scaleOf(column);
  return {title: {text: column.name}, type,
    ...(type === "log" ? {exponentformat: "power", dtick: 1} : {})};
}

function drawScatter(left) {
  const [across, along] = [columns[chosen.across], columns[chosen.along]];
  document.getElementById("scatter-card").hidden = !across || !along;
  if (!across || !along) return;
  const told = `${along.name} over ${across.name}`;
  document.querySelector("#scatter-card h2").textContent = told;
  const shown = left.filter((i) => across.values[i] !== null && along.values[i] !== null);
  const trace = {type: "scatter", mode: "markers", text: shown.map((i) => names[i]),
    x: shown.map((i) => across.values[i]), y: shown.map((i) => along.values[i]),
    marker: {size: shown.length > 300 ? 5 : 8, opacity: 0.8, color: shown.map(colourAt)},
    hovertemplate: "%{text}<br>%{x}, %{y}<extra></extra>"};
  const layout = {template: template(), xaxis: axisOf(across), yaxis: axisOf(along),
    showlegend: false, width: scatter.clientWidth, height: scatter.clientHeight,
    hovermode: "closest", uirevision: told,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom"};
  Plotly.react(scatter, literal([trace]), literal(layout), {displayModeBar: false});
  scatter.setAttribute("aria-label", `${told}: ${counted(shown.length, "run")}`);
}

// ---------------------------------------------------------------- what the reader chooses

function makeSelect(id, first) {
  const select = document.getElementById(id);
  columns.forEach((column, k) => {
    if (column.name !== "name") add(select, "option", column.name, {value: k});
  });
  chosen[id] = first;
  if (first !== null) select.value = first;
  select.addEventListener("change", () => {
    chosen[id] = Number(select.value);
    update();
  });
}

/** The index of the first column for which one of the conditions holds, those given first before. */
function firstOf(...conditions) {
  for (const condition of conditions) {
    const found = columns.findIndex(condition);
    if (found >= 0) return found;
  }
  return null;
}

function changeTheme() {
  root.dataset.theme = chosen.theme;
  update();
}

makeChoices("theme", {light: "light", dark: "dark"}, changeTheme);
makeSelect("across", firstOf((column) => isConfig(column) && column.number && differs(column),
  (column) => isConfig(column) && differs(column), ({name}) => name === "started"));
makeSelect("along", firstOf(({name, number}) => number && /\.(min|max)$/.test(name) && isBest({name}),
  (column) => column.number && isBest(column), ({name}) => name === "seconds"));
document.getElementById("clear").addEventListener("click", () => {
  chosen.ranges.clear();
  document.getElementById("filter").value = "";
  update();
});
makeFilter(update);
followTheme();
makeHead();
update();
new ResizeObserver(updateSoon).observe(document.getElementById("board"));
