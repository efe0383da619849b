// The cards of the windows: drawing them, their cursors, legends and downloads, and their places.

// ---------------------------------------------------------------- cards

const cards = windows.map(makeCard);
const watcher = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) target.card.inView = isIntersecting;
  drawSoon();
}, {rootMargin: "300px"});
const sizes = new ResizeObserver((entries) => {
  redraw(entries.map(({target}) => target.card).filter((card) => card.drawn));
});

function makeCard(shown) {
  const element = add(board, "figure"), caption = add(element, "figcaption");
  const card = {shown, element, off: new Set(), stale: true, wide: shown.width > 600};
  add(caption, "h2", shown.title);
  element.classList.toggle("wide", card.wide);
  if (shown.data) {
    makeMenu(card, caption);
    card.plot = add(element, "div", undefined, {className: "plot", card});
    const {z, texttemplate} = shown.data[0];
    if (shown.height) card.plot.style.minHeight = `${shown.height}px`;
    else if (texttemplate) card.plot.style.minHeight = `max(var(--height), ${z.length * LABEL + MARGINS}px)`;
    card.plot.setAttribute("role", shown.curves ? "slider" : "img");
    if (shown.curves) makeCursor(card);
    card.legend = add(element, "ul", undefined, {className: "legend"});
  } else if (shown.src) {
    makePicture(element, shown);
  } else {
    add(element, "pre", shown.text, {tabIndex: 0});
  }
  return card;
}

function makePicture(element, shown) {
  const image = add(element, "img", undefined, {alt: shown.title});
  image.addEventListener("load", () => {
    const fits = Math.min((shown.width || Infinity) / image.naturalWidth,
      (shown.height || Infinity) / image.naturalHeight);
    image.width = Math.round(image.naturalWidth * fits);  // in its proportions
  });
  image.src = shown.src;
  if (shown.caption) add(element, "p", shown.caption);
  if (shown.frames) makeHistory(element, shown, image);
}

/** A slider through the pictures of earlier marks; the latest is at its end. */
function makeHistory(element, {title, frames, src}, image) {
  const label = add(element, "label", undefined, {className: "row history"});
  const slider = add(label, "input", undefined, {type: "range", min: 0, max: frames.length,
    value: frames.length, ariaLabel: `${title}, earlier pictures`});
  const said = add(label, "output");
  const show = () => {
    const frame = frames[slider.value];
    image.src = frame?.src ?? src;
    said.textContent = frame ? `${markName} ${format(frame.x)}` : "latest";
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  slider.addEventListener("input", show);
  show();
}

/** Draws a plot; one that cannot be drawn says so, and leaves the others. */
function draw(card) {
  card.stale = false;
  try {
    const {data, layout} = figureOf(card);
    Plotly.react(card.plot, data, layout, config);
  } catch (error) {
    console.error(error);
    card.plot.textContent = `cannot be drawn: ${error.message}`;
    return;
  }
  if (!card.drawn && card.shown.curves) {
    card.cursor = add(card.plot, "i", undefined, {className: "cursor", hidden: true});
    card.plot.on("plotly_hover", ({points: every, event}) => {
      const points = together(every, event);
      showCursors(card, points[0].x);
      showValues(card, points, event);
    });
    card.plot.on("plotly_unhover", hideCursors);
    card.plot.on("plotly_relayout", (changed) => {  // ticks that suit what is zoomed into
      if (Object.keys(changed).some((name) => name.startsWith("yaxis."))) redraw([card]);
    });
  }
  card.drawn = true;
  hideCursors();
  describe(card);
}

/** Draws what is in view and stale, a few plots a frame, so that the page answers meanwhile. */
function drawSoon() {
  if (drawSoon.waits) return;
  drawSoon.waits = true;
  requestAnimationFrame(() => {
    drawSoon.waits = false;
    const end = performance.now() + 50;
    for (const card of cards.filter((card) => card.plot && card.stale && card.inView)) {
      if (performance.now() > end) return drawSoon();
      draw(card);
    }
  });
}

function redraw(some = cards) {
  for (const card of some) card.stale = true;
  drawSoon();
}

// ---------------------------------------------------------------- cursors

function nameOfX({shown}) {
  return xaxisOf(shown).title?.text || "x";
}

/** Shows where x is in all plots in view that have the same axis. */
function showCursors(from, x) {
  for (const card of cards.filter((other) => other.cursor)) {
    const {xaxis: axis, _size: area} = card.plot._fullLayout, at = axis.d2p(x);
    card.cursor.hidden = !card.inView || nameOfX(card) !== nameOfX(from)
      || !(at >= 0 && at <= area.w);
    Object.assign(card.cursor.style, {left: `${area.l + at}px`, top: `${area.t}px`,
      height: `${area.h}px`});
  }
}

function hideCursors() {
  for (const {cursor} of cards) if (cursor) cursor.hidden = true;
  valueBox.hidden = true;
}

/** The points near that which is nearest to the pointer along x. */
function together(points, event) {
  const placeOf = ({x, xaxis}) => xaxis._offset + xaxis.d2p(x);
  const area = event?.target?.closest?.(".plot")?.getBoundingClientRect();
  const at = area ? event.clientX - area.left : placeOf(points[0]);
  const nearest = points.map(placeOf).reduce((a, b) => (Math.abs(a - at) <= Math.abs(b - at) ? a : b));
  return points.filter((point) => Math.abs(placeOf(point) - nearest) <= NEAR);
}

const NEAR = 10;  // pixels between points that count as being at one x
const valueBox = add(document.body, "div", undefined, {className: "values", hidden: true});
valueBox.ariaHidden = "true";  // a plot says them itself, see moveTo
const MOST = 24;  // lines in the box of values

/** Shows the values at an x in a box beside the pointer, the greatest first; of many lines those that
 *  are next to the pointer. The line that is nearest is bold. */
function showValues(card, points, event) {
  const {plot} = card, frame = plot.getBoundingClientRect();
  const found = points.map(({data, x, y, xaxis, yaxis}) => ({
    trace: card.shown.data[data.meta], x, y: data.isZero ? 0 : y,
    left: xaxis._offset + xaxis.d2p(x), top: yaxis._offset + yaxis.d2p(y)}));
  const at = event?.clientY === undefined ? found[0].top : event.clientY - frame.top;
  found.sort((a, b) => Math.abs(a.top - at) - Math.abs(b.top - at));
  const nearest = found[0], shown = found.slice(0, MOST).sort((a, b) => b.y - a.y);
  valueBox.replaceChildren();
  add(valueBox, "p", `${nameOfX(card)} ${shownX(card, nearest.x)}`, {className: "dim"});
  for (const one of shown) {
    const row = add(valueBox, "div", undefined, {className: one === nearest ? "near" : ""});
    key(row, visible(colourOf(one.trace)), one.trace);
    add(row, "span", nameOf(one.trace));
    add(row, "b", format(one.y));
  }
  if (found.length > MOST) add(valueBox, "p", `and ${found.length - MOST} more`, {className: "dim"});
  valueBox.hidden = false;
  const {width, height} = valueBox.getBoundingClientRect(), x = frame.left + nearest.left;
  const left = x + 14 + width < innerWidth ? x + 14 : Math.max(4, x - 14 - width);
  const top = Math.min(frame.top + Math.max(0, at - height / 2), innerHeight - height - 4);
  Object.assign(valueBox.style, {left: `${left}px`, top: `${Math.max(4, top)}px`});
}

/** The name of a trace, with that of its run shortened. */
function nameOf({name, run, label, note}) {
  if (runs.length < 2 || run === null) return name;
  return [shortNames[run], label, note && runs[run].note !== note ? `(${note})` : ""].filter(Boolean)
    .join(" ");
}

/** Lets the keys move along a plot's x as along a slider, which screen readers read out. */
function makeCursor(card) {
  const {plot} = card;
  plot.tabIndex = 0;
  plot.addEventListener("keydown", (event) => {
    const xs = card.drawn ? stops(card) : [], at = xs.indexOf(card.at), last = xs.length - 1;
    const far = Math.max(1, Math.round(xs.length / 10));
    const moved = {ArrowLeft: at - 1, ArrowRight: at + 1, ArrowDown: at - 1, ArrowUp: at + 1,
      PageDown: at - far, PageUp: at + far, Home: 0, End: last}[event.key];
    if (event.key === "Escape") leave(card);
    if (moved === undefined || !xs.length) return;
    event.preventDefault();
    moveTo(card, xs[Math.min(last, Math.max(0, moved))], xs);
  });
  plot.addEventListener("focus", () => {
    plot.setAttribute("aria-valuemin", 0);
    plot.setAttribute("aria-valuemax", card.drawn ? Math.max(0, stops(card).length - 1) : 0);
  });
  plot.addEventListener("blur", () => leave(card));
}

/** The lines that are shown and have values to tell. */
function linesOf({plot}) {
  return plot.data.filter((made) => made.visible && made.hoverinfo !== "skip");
}

/** Every x at which such a line has a value, in order. */
function stops(card) {
  const xs = linesOf(card).flatMap(({x, y}) => x.filter((own, i) => own !== null && y[i] !== null));
  return [...new Set(xs)].sort((a, b) => a - b);
}

function moveTo(card, x, xs) {
  const {plot} = card, found = [];
  for (const data of linesOf(card)) {
    const known = data.x.findLastIndex((own, k) => own === x && data.y[k] !== null);
    const i = known < 0 ? data.x.indexOf(x) : known;  // a gap beside a value at the same x
    const {xaxis, [data.yaxis === "y2" ? "yaxis2" : "yaxis"]: yaxis} = plot._fullLayout;
    if (i >= 0) found.push({data, x, y: data.y[i], xaxis, yaxis});
  }
  card.at = x;
  showCursors(card, x);
  showValues(card, found.filter(({y}) => y !== null));
  const values = found.slice(0, 12).map(({data, y}) => (
    `${nameOf(card.shown.data[data.meta])} ${data.isZero ? 0 : format(y ?? "no value")}`));
  plot.setAttribute("aria-valuenow", xs.indexOf(x));
  plot.setAttribute("aria-valuetext", `${nameOfX(card)} ${shownX(card, x)}: ${values.join(", ")}`);
}

function shownX(card, x) {
  return isDate(card) ? dateText(x).slice(0, 19) : format(x);
}

function isDate({shown}) {
  return xaxisOf(shown).type === "date";
}

function dateText(milliseconds) {
  return new Date(milliseconds).toISOString().slice(0, 23).replace("T", " ");
}

function leave(card) {
  if (card.at === undefined) return;
  card.at = undefined;
  hideCursors();
  describe(card);
}

/** Tells screen readers what a plot shows. */
function describe(card) {
  const {shown, plot} = card;
  const drawn = shown.data.filter((trace) => isOn(card, trace) && isLine(trace));
  if (!shown.curves) {
    plot.setAttribute("aria-label", `${shown.title}: ${shown.data[0].type}`);
    return;
  }
  const isKnown = (value) => value !== null;
  const ends = drawn.slice(0, 12).map(({name, y}) => (
    `${name} from ${format(y.find(isKnown) ?? "nothing")} to ${format(y.findLast(isKnown) ?? "")}`));
  plot.setAttribute("aria-label",
    `${shown.title}: ${counted(drawn.length, "line")} over ${nameOfX(card)}`);
  plot.setAttribute("aria-valuenow", 0);
  plot.setAttribute("aria-valuetext", ends.join(", "));
}

// ---------------------------------------------------------------- legends

const DASHES = {dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "12 4",
  longdashdot: "12 3 2 3"};

/** A short stroke, a dot, or both, that show how a trace is drawn. */
function key(parent, colour, {mode, line, marker}) {
  const drawing = "http://www.w3.org/2000/svg", dash = DASHES[line?.dash] ?? "none";
  const image = parent.appendChild(document.createElementNS(drawing, "svg"));
  image.setAttribute("class", "key");
  const draw = (kind, given) => {
    const shape = image.appendChild(document.createElementNS(drawing, kind));
    for (const [name, value] of Object.entries(given)) shape.setAttribute(name, value);
  };
  if (mode !== "markers") draw("line", {x1: 0, x2: 26, y1: 4, y2: 4, stroke: colour,
    "stroke-width": 2.5, "stroke-dasharray": dash});
  if (!/markers/.test(mode)) return;
  const turned = {square: 0, diamond: 45}[marker?.symbol];
  if (turned === undefined) draw("circle", {cx: 13, cy: 4, r: 4, fill: colour});
  else draw("rect", {x: 10, y: 1, width: 6, height: 6, transform: `rotate(${turned} 13 4)`, fill: colour});
}

function makeLegend(card) {
  const {shown, legend} = card;
  legend.replaceChildren();
  if (!shown.curves || shown.layout.showlegend === false || isToldAbove(card)) return;
  for (const trace of shown.data.filter(isLine)) {
    const entry = add(add(legend, "li"), "button", undefined, {title: trace.name});
    entry.setAttribute("aria-pressed", !card.off.has(trace.name));
    key(entry, visible(colourOf(trace)), trace);
    add(entry, "span", nameOf(trace));
    entry.addEventListener("click", (event) => {
      const names = [...new Set(shown.data.map((other) => other.name))];
      toggle(card.off, trace.name, names, event.shiftKey);
      makeLegend(card);
      redraw([card]);
    });
  }
}

/** Puts an item into the set of those that are off, or takes it out; or leaves it on alone. */
function toggle(off, item, every, alone) {
  if (!alone) {
    if (!off.delete(item)) off.add(item);
  } else if (off.size === every.length - 1 && !off.has(item)) {
    off.clear();
  } else {
    off.clear();
    every.filter((other) => other !== item).forEach((other) => off.add(other));
  }
}

/** The colour of each run where lines of a run share one; an empty list where there is no such. */
const runColours = (() => {
  for (const {curves, data} of windows) {
    if (!curves) continue;
    const colours = runs.map((_, i) => new Set(
      data.filter((trace) => isLine(trace) && trace.run === i).map(colourOf)));
    const every = new Set(colours.flatMap((own) => [...own]));
    if (colours.every((own) => own.size === 1) && every.size > 1) {
      return colours.map((own) => [...own][0]);
    }
  }
  return [];
})();

for (const [i, run] of runs.entries()) {
  const notes = new Set(windows.filter(({curves}) => curves).flatMap(({data}) => data)
    .filter((trace) => trace.run === i && isLine(trace)).map(({note}) => note));
  run.note = notes.size === 1 ? [...notes][0] : "";
}

/** The names of the runs; long ones without the words that all of them share. */
const shortNames = (() => {
  const names = runs.map(({name}) => name), words = names.map((name) => name.split(/[_ /]+/));
  const isShared = (_, k) => words.every((own) => own[k] === words[0][k]);
  const short = words.map((own) => own.filter((word, k) => !isShared(word, k)).join(" "));
  const isLong = names.some((name) => name.length > 24) && words.every((own) => own.length === words[0].length);
  return isLong && new Set(short).size === names.length && !short.includes("") ? short : names;
})();

function dashOf(trace) {
  return trace.line?.dash ?? "solid";
}

function hasRunColours({curves, data}) {
  return curves && data.filter(isLine).every(
    (trace) => trace.run !== null && colourOf(trace) === runColours[trace.run]);
}

/** A line of each phase, and one without a phase if there are such beside them. */
const phases = new Map();
for (const shown of windows.filter(isPhased)) {
  for (const trace of shown.data.filter(isLine)) {
    if (!phases.get(trace.phase)?.line) phases.set(trace.phase, trace);  // a dot has no dash
  }
}

/** Whether the head's runs and phases say all that a legend would. */
function isToldAbove({shown}) {
  return runs.length > 1 && hasRunColours(shown) && shown.data.filter(isLine).every((trace) => (
    ["", trace.phase, shown.title.toLowerCase()].includes(trace.label.toLowerCase())
    && dashOf(phases.get(trace.phase) ?? trace) === dashOf(trace)));
}

// ---------------------------------------------------------------- downloads

function makeMenu(card, caption) {
  const menu = add(caption, "details", undefined, {className: "menu"});
  add(menu, "summary", "save").setAttribute("aria-label", `save ${card.shown.title}`);
  const choices = add(menu, "div");
  const actions = {PNG: () => savePicture(card, "png"), SVG: () => savePicture(card, "svg"),
    CSV: () => save(card, new Blob([csvOf(card)], {type: "text/csv"}), "csv")};
  for (const [name, act] of Object.entries(actions)) {
    add(choices, "button", name).addEventListener("click", () => {
      menu.open = false;
      act();
    });
  }
  menu.addEventListener("focusout", (event) => {
    if (!menu.contains(event.relatedTarget)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

function save({shown}, blob, suffix) {
  const name = `${document.title} ${shown.title}`.replace(/[^\p{L}\p{N}_.-]+/gu, " ").trim();
  const link = document.createElement("a");
  link.download = `${name.slice(0, 100)}.${suffix}`;
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** The plot as it is seen, with its title and a legend, which on the page are outside of it. */
async function savePicture(card, kind) {
  const {data, layout} = figureOf(card), {width, height} = card.plot.getBoundingClientRect();
  const named = {...layout, paper_bgcolor: css("--card"), width, height: height + 60,
    margin: {l: 48, r: 20, t: 44, b: 36}, title: {text: literal(card.shown.title), x: 0.02}};
  if (card.shown.curves) named.showlegend = new Set(data.map((made) => made.name)).size > 1;
  const url = await Plotly.toImage({data, layout: named}, {format: kind, width, height: height + 60,
    scale: kind === "png" ? 2 : 1});
  const [head, body] = [url.slice(0, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
  const bytes = kind === "svg" ? decodeURIComponent(body)
    : Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  save(card, new Blob([bytes], {type: head.slice(5).split(";")[0]}), kind);
}

/** The values that the plot shows: a row for each point, or for each cell of a matrix. */
function csvOf(card) {
  const {shown} = card, weight = smoothing(shown);
  const rows = [["trace", shown.curves ? nameOfX(card) : "x", shown.data[0].z ? "row" : "value",
    ...(weight ? ["smoothed"] : shown.data[0].z ? ["value"] : [])]];
  for (const trace of shown.data.filter((one) => isOn(card, one))) {
    const xs = positions(shown, trace) ?? trace.labels, y = valuesOf(shown, trace);
    const x = xs && isDate(card) ? xs.map((own) => (own === null ? own : dateText(own))) : xs;
    if (trace.z) {
      trace.z.forEach((line, i) => line.forEach(
        (value, k) => rows.push([trace.name, x?.[k] ?? k, y?.[i] ?? i, value])));
      continue;
    }
    const means = weight ? smoothed(y, weight) : null, name = csvNameOf(trace);
    (y ?? x).forEach((value, i) => rows.push(
      [name, y ? x?.[i] ?? i : "", value, ...(means ? [means[i]] : [])]));
  }
  return rows.map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");
}

/** The values of a trace; a fan is drawn at their places on its axis, see ticks.py. */
function valuesOf({unit}, {y, values}) {
  if (!unit) return y ?? values;
  return y.map((place) => place && Number(
    (Math.sign(place) * unit * (10 ** Math.abs(place) - 1)).toPrecision(12)));
}

/** The name of a trace, with the side of the band that it bounds. */
function csvNameOf({name, fill, line}) {
  if (fill === "tonexty") return `${name}, upper`;
  return line?.width === 0 ? `${name}, lower` : name;
}

/** A cell that no spreadsheet takes for a formula. */
function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

// ---------------------------------------------------------------- which cards, and where

function filter() {
  const wanted = document.getElementById("filter").value.toLowerCase();
  const has = (text) => text.toLowerCase().includes(wanted);
  for (const {shown, element} of cards) {
    const isWanted = has(shown.title) || (shown.data ?? []).some(({name}) => name && has(name));
    element.hidden = chosen.off.has(shown.run) || !isWanted;
  }
  const left = cards.filter((card) => !card.element.hidden).length;
  const none = document.getElementById("none");
  none.hidden = left > 0;
  none.textContent = wanted ? `No plot has “${wanted}” in its title or in the names of its lines.`
    : "No plot is shown: all runs are off.";
  const every = counted(cards.length, "window");
  const count = left < cards.length ? `${left} of ${every}` : every;
  const {state, started} = runs[0]?.about ?? {};
  const said = runs.length > 1 ? [countedRuns(), count]
    : [countedRuns(), count, state, started && `started ${started}`];
  document.getElementById("count").textContent = said.filter(Boolean).join(" · ");
  arrange();
}

/** How many runs there are, also in groups of which the means are drawn; "" for one. */
function countedRuns() {
  const total = runs.reduce((sum, {about}) => sum + Number(about.runs ?? 1), 0);
  const groups = runs.length > 1 && runs.some(({about}) => about.runs);
  if (total < 2) return "";
  return counted(total, "run") + (groups ? ` in ${counted(runs.length, "group")}` : "");
}

/** Chooses the columns: as many as have room, or fewer if they leave less of the last row empty. */
function arrange() {
  const width = board.clientWidth - 32;
  const cells = cards.reduce((n, card) => n + (card.element.hidden ? 0 : card.wide ? 2 : 1), 0);
  const most = Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP)));
  let columns = Math.max(1, Math.min(most, cells));
  const empty = (n) => (Math.ceil(cells / n) * n - cells) / n;
  for (let n = columns; n >= 0.7 * most; n--) if (empty(n) < empty(columns)) columns = n;
  const cell = Math.floor((width - (columns - 1) * GAP) / columns);
  board.style.setProperty("--basis", `${cell}px`);
  const pairs = Math.ceil(columns / 2);
  board.style.setProperty("--wide", `${Math.floor((width - (pairs - 1) * GAP) / pairs)}px`);
  const height = Math.min(Math.max(250, 0.6 * cell), 0.7 * innerHeight);
  board.style.setProperty("--height", `${Math.round(height)}px`);
}
