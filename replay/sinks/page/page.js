"use strict";
// Draws the page from plain data: windows and runs, as windows.py and runs.py give them.
// A text from a recording is only ever set as textContent, or escaped for plotly by literal().

const windows = unpacked(JSON.parse(document.getElementById("data-windows").textContent));
const runs = JSON.parse(document.getElementById("data-runs").textContent);
const root = document.documentElement;
const board = document.getElementById("board");

// What the reader has chosen. smooth and scale: null is what each window asks for itself.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const chosen = {smooth: null, x: "mark", scale: null, theme: prefersDark.matches ? "dark" : "light",
  off: new Set()};
const config = {displayModeBar: false, doubleClickDelay: 400};
const GAP = 12, NARROWEST = 380;  // pixels between plots, and of a plot where there is room

/** Data with the numbers that page.py packed; null where there is a gap. */
function unpacked(value) {
  if (!value || typeof value !== "object") return value;
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(unpacked);
  if (value.f64 === undefined) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, unpacked(item)]));
  }
  const text = atob(value.f64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return Array.from(new Float64Array(bytes.buffer), (number) => (isNaN(number) ? null : number));
}

// ---------------------------------------------------------------- elements and texts

function add(parent, tag, text, properties = {}) {
  const made = parent.appendChild(document.createElement(tag));
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function format(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value);
}

const TEMPLATES = ["hovertemplate", "texttemplate"];

/** Escapes every text in plotly's data or layout: plotly renders some markup, such as links. */
function literal(value) {
  if (typeof value === "string") return value.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  if (Array.isArray(value)) {
    return value.some((item) => item && typeof item !== "number") ? value.map(literal) : value;
  }
  if (!value || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(
    ([name, item]) => [name, TEMPLATES.includes(name) ? item : literal(item)]));
}

// ---------------------------------------------------------------- colours

function css(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

/** [red, green, blue] of #rrggbb, rgb(…) or black; null for other ways to write a colour. */
function parts(colour) {
  if (colour === "black") return [0, 0, 0];
  const hex = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(colour);
  if (hex) return hex.slice(1).map((part) => parseInt(part, 16));
  const rgb = /^rgb\((\d+), ?(\d+), ?(\d+)\)$/.exec(colour);
  return rgb ? rgb.slice(1).map(Number) : null;
}

/** The relative luminance of WCAG, from 0 to 1. */
function luminance(rgb) {
  const [red, green, blue] = rgb.map((part) => (
    part <= 10 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The colour, made lighter on a dark page until it stands out from it. */
function visible(colour) {
  if (Array.isArray(colour)) return colour.map(visible);
  const rgb = chosen.theme === "dark" ? parts(colour) : null;
  if (!rgb) return colour;
  const ground = luminance(parts(css("--card"))) + 0.05;
  let mixed = rgb;
  for (let white = 0.1; (luminance(mixed) + 0.05) / ground < 3.5; white += 0.1) {
    mixed = rgb.map((part) => Math.round(part + (255 - part) * white));
  }
  return `rgb(${mixed.join(", ")})`;
}

function visibleMarker(marker) {
  const found = {...marker};
  if (marker.color) found.color = visible(marker.color);
  if (marker.line?.color) found.line = {...marker.line, color: visible(marker.line.color)};
  return found;
}

/** An axis, its own colours made visible; ticks of a second axis are its own, too. */
function visibleAxis(axis) {
  const found = axis.overlaying ? {tickmode: "auto", showgrid: false, ...axis} : {...axis};
  if (axis.tickfont?.color) found.tickfont = {...axis.tickfont, color: visible(axis.tickfont.color)};
  if (axis.title?.font?.color) {
    found.title = {...axis.title, font: {...axis.title.font, color: visible(axis.title.font.color)}};
  }
  return found;
}

/** A colour scale whose pale end is the page's ground on a dark page. */
function onGround(scale) {
  if (chosen.theme === "light" || !Array.isArray(scale)) return scale;
  return scale.map(([place, colour]) => (
    [place, parts(colour) && luminance(parts(colour)) > 0.85 ? css("--back") : colour]));
}

function template() {
  const [ink, dim, line, card] = ["--ink", "--dim", "--line", "--card"].map(css);
  const axis = {gridcolor: line, linecolor: line, tickcolor: line, zerolinecolor: line,
    automargin: true, ticklabeloverflow: "allow", zeroline: false, hoverformat: ".5~g",
    title: {font: {color: dim, size: 12}, standoff: 6}};
  const solid = {color: dim, gridcolor: line, backgroundcolor: card, showbackground: true};
  const bar = {colorbar: {thickness: 11, outlinewidth: 0}};
  return {
    layout: {
      font: {color: ink, size: 12, family: "system-ui, sans-serif"},
      paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
      margin: {l: 42, r: 14, t: 10, b: 32}, xaxis: {...axis, hoverformat: undefined}, yaxis: axis,
      hoverlabel: {bgcolor: card, bordercolor: line, font: {color: ink}, namelength: 60},
      legend: {orientation: "h", yanchor: "top", y: -0.2, x: 0},
      scene: {xaxis: solid, yaxis: solid, zaxis: solid},
    },
    data: {heatmap: [bar], contour: [bar], surface: [bar]},
  };
}

// ---------------------------------------------------------------- what a window shows

/** TensorBoard's exponential average, with its start debiased; gaps stay and do not count. */
function smoothed(values, weight) {
  let average = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    total = total * weight + 1;
    average += (value - average) / total;
    return average;
  });
}

function smoothing(shown) {
  return shown.smooth === null ? 0 : chosen.smooth ?? shown.smooth;
}

/** Whether a trace is a line of its own, not the edge of a band or one of many in the background. */
function isLine(trace) {
  return trace.showlegend !== false;
}

function isLog(shown) {
  return shown.curves && (chosen.scale ? chosen.scale === "log" : shown.log);
}

function isOn(card, trace) {
  return !chosen.off.has(trace.run) && !card.off.has(trace.name);
}

function colourOf(trace) {
  const colour = trace.line?.color ?? trace.marker?.color;
  return Array.isArray(colour) ? colour[0] : colour;
}

const [unit, seconds] = unitOf(Math.max(0, ...runs.map((run) => run.seconds?.at(-1) ?? 0)));

function unitOf(longest) {
  if (longest > 3 * 3600) return ["hours", 3600];
  return longest > 300 ? ["minutes", 60] : ["seconds", 1];
}

/** The place of mark i of a run on the chosen axis; a time is that of the reader's own clock. */
function placeOf(run, i) {
  if (chosen.x === "step") return run.step[i];
  if (chosen.x === "relative") return run.seconds[i] / seconds;
  const time = 1000 * (run.start + run.seconds[i]);
  return time - 60000 * new Date(time).getTimezoneOffset();
}

/** The index of the mark of a run at x. */
function markAt(shown, run, x) {
  run.places ??= new Map(run.x.map((own, i) => [own, i]));
  return run.places.get(shown.layout.xaxis?.type === "date" ? x / 1000 : x);
}

/** Whether every x of a window is that of a mark whose step and time are known. */
function canMove(shown) {
  shown.canMove ??= shown.marks && shown.data.every(({run, x}) => runs[run]?.x
    && x.every((own) => own === null || markAt(shown, runs[run], own) !== undefined));
  return shown.canMove;
}

/** The positions of a trace on the chosen x axis. */
function positions(shown, trace) {
  if (chosen.x === "mark" || !canMove(shown) || !trace.x) return trace.x;
  const run = runs[trace.run];
  return trace.x.map((x) => (x === null ? null : placeOf(run, markAt(shown, run, x))));
}

function xaxisOf(shown) {
  if (chosen.x === "mark" || !canMove(shown)) return shown.layout.xaxis ?? {};
  const title = {step: "step", time: "time", relative: unit}[chosen.x];
  return {title: {text: title}, type: chosen.x === "time" ? "date" : "linear"};
}

function yaxisOf(shown, values) {
  const axis = shown.layout.yaxis ?? {};
  if (isLog(shown)) return {...axis, type: "log", exponentformat: "power", ...decades(values)};
  const [low, high] = extremes(values);
  if (low !== high || low === 0 || axis.range) return axis;
  return {...axis, range: [Math.min(0, 2 * low), Math.max(0, 2 * low)]};  // a constant, seen from 0
}

function extremes(values) {
  const known = values.filter((value) => value !== null);
  return [known.reduce((a, b) => Math.min(a, b), Infinity),
    known.reduce((a, b) => Math.max(a, b), -Infinity)];
}

/** Ticks at powers of ten; if fewer than two lie among the values, at 2 and 5 times them too. */
function decades(values) {
  const [low, high] = extremes(values.filter((value) => value > 0)).map(Math.log10);
  if (!Number.isFinite(low)) return {};
  const inside = Math.floor(high) - Math.ceil(low) + 1;
  if (inside >= 2) return {tickmode: "linear", tick0: 0, dtick: Math.ceil(inside / 8)};
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    ticks.push(...[1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  }
  return {tickmode: "array", tickvals: ticks, ticktext: ticks.map(format)};
}

/** Marks at the lower end of a logarithmic axis for zeros, which it cannot show. */
function zeros(made, least) {
  const at = made.x.filter((_, i) => made.y[i] === 0), y = Number.isFinite(least) ? least / 3 : 1;
  if (!at.length) return [];
  return [{type: "scatter", mode: "markers", name: made.name, meta: made.meta, x: at, y: at.map(() => y),
    marker: {symbol: "triangle-down-open", size: 8, color: colourOf(made)},
    hovertemplate: "exactly 0", showlegend: false, yaxis: made.yaxis ?? "y"}];
}

/** plotly's traces and layout of a card. */
function figureOf(card) {
  const {shown} = card, weight = smoothing(shown), data = [];
  for (const [meta, trace] of shown.data.entries()) {
    const made = {...trace, meta, visible: isOn(card, trace)};
    if (trace.x) made.x = positions(shown, trace);
    if (trace.line) made.line = {...trace.line, color: visible(trace.line.color)};
    if (trace.marker) made.marker = visibleMarker(trace.marker);
    if (trace.colorscale) made.colorscale = onGround(trace.colorscale);
    if (weight) {
      if (isLine(trace)) data.push({...made, opacity: 0.3, hoverinfo: "skip", showlegend: false});
      made.y = smoothed(trace.y, weight);
    }
    data.push(made);
  }
  const layout = {...shown.layout, template: template(), xaxis: xaxisOf(shown),
    width: card.plot.clientWidth, height: card.plot.clientHeight,
    hovermode: data.length > 24 ? "closest" : "x unified", uirevision: `${chosen.x} ${chosen.scale}`,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom"};  // a finger scrolls the page
  // The page's own legends wrap; a lone name says nothing.
  if (shown.curves || (data.length === 1 && !data[0].labels)) layout.showlegend = false;
  if (shown.curves) {
    const values = data.filter((made) => made.visible).flatMap((made) => made.y);
    layout.yaxis = yaxisOf(shown, values);
    if (isLog(shown)) {
      const [least] = extremes(values.filter((value) => value > 0));
      data.push(...data.filter((made) => made.visible && made.hoverinfo !== "skip")
        .flatMap((made) => zeros(made, least)));
    }
  }
  for (const name of ["xaxis", "yaxis", "yaxis2"]) {
    if (layout[name]) layout[name] = visibleAxis(layout[name]);
  }
  if (isSquare(shown.data[0])) {
    layout.xaxis = {...layout.xaxis, constrain: "domain"};
    layout.yaxis = {...layout.yaxis, constrain: "domain", scaleanchor: "x"};
    data[0].showscale = !data[0].texttemplate;  // the cells say it in numbers
  }
  return {data: literal(data), layout: literal(layout)};
}

function isSquare(trace) {
  return trace.type === "heatmap" && !trace.x && trace.z.length === trace.z[0]?.length;
}

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
    if (shown.height) card.plot.style.minHeight = `${shown.height}px`;
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
}

function draw(card) {
  card.stale = false;
  const {data, layout} = figureOf(card);
  Plotly.react(card.plot, data, layout, config);
  if (!card.drawn && card.shown.curves) {
    card.cursor = add(card.plot, "i", undefined, {className: "cursor", hidden: true});
    card.plot.on("plotly_hover", ({points}) => showCursors(card, points[0].x));
    card.plot.on("plotly_unhover", hideCursors);
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

/** Shows where x is in all other plots in view that have the same axis. */
function showCursors(from, x) {
  for (const card of cards.filter((other) => other.cursor)) {
    const {xaxis: axis, _size: area} = card.plot._fullLayout, at = axis.d2p(x);
    card.cursor.hidden = card === from || !card.inView || nameOfX(card) !== nameOfX(from)
      || !(at >= 0 && at <= area.w);
    Object.assign(card.cursor.style, {left: `${area.l + at}px`, top: `${area.t}px`,
      height: `${area.h}px`});
  }
}

function hideCursors() {
  for (const {cursor} of cards) if (cursor) cursor.hidden = true;
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

/** Every x at which a line that is shown has a value, in order. */
function stops({plot}) {
  const xs = plot.data.filter((made) => made.visible).flatMap(
    (made) => made.x.filter((x, i) => x !== null && made.y[i] !== null));
  return [...new Set(xs)].sort((a, b) => a - b);
}

function moveTo(card, x, xs) {
  const {plot} = card, found = [];
  plot.data.forEach((made, curveNumber) => {
    const pointNumber = made.visible && made.hoverinfo !== "skip" ? made.x.indexOf(x) : -1;
    if (pointNumber >= 0) found.push({curveNumber, pointNumber});
  });
  card.at = x;
  Plotly.Fx.hover(plot, {xval: x});
  showCursors(card, x);
  const values = found.slice(0, 12).map(({curveNumber: k, pointNumber: i}) => (
    `${card.shown.data[plot.data[k].meta].name} ${format(plot.data[k].y[i] ?? "no value")}`));
  plot.setAttribute("aria-valuenow", xs.indexOf(x));
  plot.setAttribute("aria-valuetext", `${nameOfX(card)} ${shownX(x)}: ${values.join(", ")}`);
}

function shownX(x) {
  return chosen.x === "time" ? new Date(x).toISOString().slice(0, 19).replace("T", " ") : format(x);
}

function leave(card) {
  if (card.at === undefined) return;
  card.at = undefined;
  Plotly.Fx.unhover(card.plot);
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
    const x = positions(shown, trace) ?? trace.labels, y = trace.y ?? trace.values;
    if (trace.z) {
      trace.z.forEach((line, i) => line.forEach(
        (value, k) => rows.push([trace.name, x?.[k] ?? k, y?.[i] ?? i, value])));
      continue;
    }
    const means = weight ? smoothed(y, weight) : null;
    (y ?? x).forEach((value, i) => rows.push(
      [trace.name, y ? x?.[i] ?? i : "", value, ...(means ? [means[i]] : [])]));
  }
  return rows.map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");
}

/** A cell that no spreadsheet takes for a formula. */
function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

// ---------------------------------------------------------------- legends

const DASHES = {dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "12 4",
  longdashdot: "12 3 2 3"};

/** A short stroke, or a dot, that shows how a trace is drawn. */
function key(parent, colour, trace) {
  const drawing = "http://www.w3.org/2000/svg";
  const image = parent.appendChild(document.createElementNS(drawing, "svg"));
  image.setAttribute("class", "key");
  const isDot = trace.mode === "markers";
  const shape = image.appendChild(document.createElementNS(drawing, isDot ? "circle" : "line"));
  const given = isDot ? {cx: 13, cy: 4, r: 4, fill: colour} : {x1: 0, x2: 26, y1: 4, y2: 4,
    stroke: colour, "stroke-width": 2.5, "stroke-dasharray": DASHES[trace.line?.dash] ?? "none"};
  for (const [name, value] of Object.entries(given)) shape.setAttribute(name, value);
}

function makeLegend(card) {
  const {shown, legend} = card;
  legend.replaceChildren();
  if (!shown.curves || shown.layout.showlegend === false || isToldAbove(card)) return;
  for (const trace of shown.data.filter(isLine)) {
    const entry = add(add(legend, "li"), "button", undefined, {title: trace.name});
    entry.setAttribute("aria-pressed", !card.off.has(trace.name));
    key(entry, visible(colourOf(trace)), trace);
    add(entry, "span", trace.name);
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
    if (colours.every((own) => own.size === 1) && every.size === runs.length) {
      return colours.map((own) => [...own][0]);
    }
  }
  return [];
})();

function dashOf(trace) {
  return trace.line?.dash ?? "solid";
}

/** What is left of a trace's name without that of its run: mostly a phase. */
function phaseOf(trace) {
  return trace.name.slice(runs[trace.run].name.length).trim();
}

function hasRunColours({curves, data}) {
  return curves && data.filter(isLine).every(
    (trace) => trace.run !== null && colourOf(trace) === runColours[trace.run]);
}

/** The dash of each phase, in windows whose colours are the runs'. */
const phases = new Map();
for (const shown of runs.length > 1 ? windows.filter(hasRunColours) : []) {
  for (const trace of shown.data.filter(isLine)) {
    if (!phases.has(phaseOf(trace))) phases.set(phaseOf(trace), trace);
  }
}

/** Whether the head's runs and phases say all that a legend would. */
function isToldAbove({shown}) {
  return runs.length > 1 && hasRunColours(shown) && shown.data.filter(isLine).every(
    (trace) => dashOf(phases.get(phaseOf(trace))) === dashOf(trace));
}

// ---------------------------------------------------------------- the head

/** The leaves of a config by their paths: {"optimizer.lr": 0.1}. */
function leaves(value, path = "", found = {}) {
  if (value && typeof value === "object" && Object.keys(value).length && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) {
      leaves(inner, path ? `${path}.${name}` : name, found);
    }
  } else if (path || value !== null) {
    found[path || "config"] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return found;
}

const told = runs.map((run) => ({...leaves(run.config), ...run.about}));
const names = [...new Set(told.flatMap(Object.keys))];
const differing = names.filter((name) => new Set(told.map((own) => own[name])).size > 1);

function makeTable(parent, rows) {
  const table = add(parent, "table");
  for (const [i, row] of rows.entries()) {
    const line = add(table, "tr");
    row.forEach((text, k) => add(line, k && i ? "td" : "th", text ?? ""));
  }
}

/** The last values of the runs' lines, by window and phase: what one looks for first. */
const lasts = new Map();
for (const shown of runs.length > 1 ? windows.filter(hasRunColours).slice(0, 4) : []) {
  for (const trace of shown.data.filter(isLine)) {
    const name = `${`${shown.title} ${phaseOf(trace)}`.trim()}, last`;
    if (!lasts.has(name)) lasts.set(name, []);
    lasts.get(name)[trace.run] = format(trace.y.findLast((value) => value !== null) ?? "");
  }
}

for (const [name, own] of lasts) if (new Set(own).size === 1) lasts.delete(name);

function tellRuns() {
  const about = document.getElementById("about"), inside = about.querySelector("div");
  const same = names.filter((name) => !differing.includes(name));
  about.hidden = !names.length && !lasts.size;
  about.querySelector("summary").textContent = runs.length > 1
    ? "What differs between the runs" : "Config and command";
  if (runs.length > 1) {
    makeTable(inside, [["run", ...lasts.keys(), ...differing], ...runs.map((run, i) => [run.name,
      ...[...lasts.values()].map((own) => own[i]), ...differing.map((name) => told[i][name])])]);
  }
  if (!same.length) return;
  const rest = runs.length > 1 ? add(inside, "details") : inside;
  if (runs.length > 1) add(rest, "summary", "The same in all runs");
  makeTable(rest, [["", ""], ...same.map((name) => [name, told[0][name]])]);
}

function makeChips() {
  const row = document.getElementById("runs");
  row.hidden = runs.length < 2;
  row.replaceChildren();
  runs.forEach((run, i) => {
    const chip = add(row, "label", undefined, {className: "chip", title: "shift-click: alone"});
    const box = add(chip, "input", undefined, {type: "checkbox", checked: !chosen.off.has(i)});
    if (runColours.length) add(chip, "i").style.background = visible(runColours[i]);
    add(chip, "span", run.name);
    const state = run.about.state ?? "closed";
    if (!state.startsWith("closed")) add(chip, "span", "not closed", {className: "dim", title: state});
    box.addEventListener("change", () => turn(i, false));
    chip.addEventListener("click", (event) => {
      if (!event.shiftKey) return;
      event.preventDefault();
      turn(i, true);
    });
  });
  for (const [phase, trace] of phases) {
    if (!phase || phases.size < 2) continue;
    const shown = add(row, "span", undefined, {className: "phase dim"});
    key(shown, "currentColor", trace);
    add(shown, "span", phase);
  }
}

function turn(i, alone) {
  toggle(chosen.off, i, runs.map((_, k) => k), alone);
  const boxes = document.querySelectorAll("#runs input");
  setTimeout(() => boxes.forEach((box, k) => { box.checked = !chosen.off.has(k); }));
  filter();
  redraw();
}

/** A row of choices, of which at most one is taken. */
function makeChoices(name, choices, onChange) {
  const group = document.getElementById(name);
  group.hidden = false;
  for (const [value, text] of Object.entries(choices)) {
    const label = add(group, "label");
    const input = add(label, "input", undefined, {type: "radio", name, value});
    input.checked = chosen[name] === value;
    add(label, "span", text);
    input.addEventListener("change", () => {
      chosen[name] = value;
      onChange();
    });
  }
}

function makeControls() {
  makeChoices("theme", {light: "light", dark: "dark"}, changeTheme);
  const moving = windows.filter((shown) => shown.data && canMove(shown));
  if (moving.length) {
    const named = new Set(moving.map((shown) => shown.layout.xaxis?.title?.text));
    const mark = (named.size === 1 && [...named][0]) || "mark";
    makeChoices("x", {...(mark === "step" ? {} : {mark}), step: "step", time: "time",
      relative: "relative"}, redraw);
  }
  const curves = windows.filter((shown) => shown.curves);
  if (curves.length) makeChoices("scale", {linear: "linear", log: "log"}, redraw);
  makeSlider(curves.filter((shown) => shown.smooth !== null).map((shown) => shown.smooth));
}

function makeSlider(weights) {
  const label = document.getElementById("smooth"), slider = label.querySelector("input");
  label.hidden = !weights.length;
  slider.value = Math.max(0, ...weights);
  label.querySelector("output").textContent = slider.value;
  slider.addEventListener("input", () => {
    chosen.smooth = Number(slider.value);
    label.querySelector("output").textContent = slider.value;
    redraw();
  });
}

function changeTheme() {
  root.dataset.theme = chosen.theme;
  makeChips();
  cards.filter((card) => card.plot).forEach(makeLegend);
  redraw();
}

// ---------------------------------------------------------------- which cards, and where

function filter() {
  const wanted = document.getElementById("filter").value.toLowerCase();
  for (const {shown, element} of cards) {
    element.hidden = chosen.off.has(shown.run) || !shown.title.toLowerCase().includes(wanted);
  }
  const left = cards.filter((card) => !card.element.hidden).length;
  const every = counted(cards.length, "window");
  const count = left < cards.length ? `${left} of ${every}` : every;
  const {state, started} = runs[0]?.about ?? {};
  const said = runs.length > 1 ? [counted(runs.length, "run"), count]
    : [count, state, started && `started ${started}`];
  document.getElementById("count").textContent = said.filter(Boolean).join(" · ");
  arrange();
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

tellRuns();
makeChips();
makeControls();
cards.filter((card) => card.plot).forEach(makeLegend);
filter();
for (const card of cards.filter((card) => card.plot)) {
  watcher.observe(card.plot);
  sizes.observe(card.plot);
}
new ResizeObserver(arrange).observe(board);
document.getElementById("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input")) return;
  event.preventDefault();
  document.getElementById("filter").focus();
});
prefersDark.addEventListener("change", () => document.querySelector(
  `#theme [value=${prefersDark.matches ? "dark" : "light"}]`).click());
