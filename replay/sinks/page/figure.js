// What a window shows: plotly's traces and layout, from the plain data of windows.py and runs.py and
// from what the reader has chosen. page.py puts base.js before it, and board.js and head.js behind it.

const windows = unpacked(dataOf("windows"));
const runs = dataOf("runs");
const board = document.getElementById("board");

// What the windows' x axes show as they were made: mark, step, time or relative.
const along = root.dataset.x;
// What the reader has chosen. With smooth: null and scale: own, each window is as it asks to be. Runs and
// phases that are off are in no plot.
const chosen = {smooth: null, x: along, scale: "own", theme: prefersDark.matches ? "dark" : "light",
  off: new Set(), offPhases: new Set()};
const config = {displayModeBar: false, doubleClickDelay: 400};
const GAP = 12, NARROWEST = 380;  // pixels between plots, and of a plot where there is room

function visibleMarker(marker) {
  const found = {...marker};
  if (marker.color) found.color = visible(marker.color);
  if (marker.line?.color) found.line = {...marker.line, color: visible(marker.line.color)};
  if (marker.colorscale) found.line = {...marker.line, width: 0.6, color: css("--dim")};
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

/** Whether a trace is one of many runs in the background; a guide has no run. */
function isMuted(trace) {
  return !isLine(trace) && trace.hoverinfo === "name" && runs.length > 1 && trace.run !== null;
}

/** Whether a trace is a horizontal line that stands for no values. */
function isGuide(trace) {
  return !isLine(trace) && trace.hoverinfo === "name" && !isMuted(trace);
}

/** Whether lines of a window are of phases, such as train and val. */
function isPhased(shown) {
  shown.isPhased ??= shown.curves && shown.data.some((trace) => isLine(trace) && trace.phase);
  return shown.isPhased;
}

function isLog(shown) {
  return shown.curves && (chosen.scale === "own" ? shown.log : chosen.scale === "log");
}

function isOn(card, trace) {
  return !chosen.off.has(trace.run) && !card.off.has(trace.name)
    && !(isPhased(card.shown) && chosen.offPhases.has(trace.phase) && !isGuide(trace));
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
  if (chosen.x === "mark") return (run.mark ?? run.at)[i];
  if (chosen.x === "step") return run.step[i];
  if (chosen.x === "relative") return run.seconds[i] / seconds;
  const time = 1000 * (run.start + run.seconds[i]);
  return time - 60000 * new Date(time).getTimezoneOffset();
}

/** The index of the mark of a run at x. */
function markAt(shown, run, x) {
  const scale = shown.layout.xaxis?.type === "date" ? 1000 : 1;
  run.places ??= {};
  run.places[scale] ??= new Map(run.at.map((own, i) => [own * scale, i]));
  return run.places[scale].get(x);
}

/** Whether every x of a window is that of a mark whose step and time are known. */
function canMove(shown) {
  shown.canMove ??= shown.marks && shown.data.every(({run, x}) => runs[run]?.at
    && x.every((own) => own === null || markAt(shown, runs[run], own) !== undefined));
  return shown.canMove;
}

/** The positions of a trace on the chosen x axis. */
function positions(shown, trace) {
  if (chosen.x === along || !canMove(shown) || !trace.x) return trace.x;
  const run = runs[trace.run];
  return trace.x.map((x) => (x === null ? null : placeOf(run, markAt(shown, run, x))));
}

function xaxisOf(shown) {
  if (chosen.x === along || !canMove(shown)) return shown.layout.xaxis ?? {};
  const title = {mark: markName, step: "step", time: "time", relative: unit}[chosen.x];
  return {title: {text: title}, type: chosen.x === "time" ? "date" : "linear"};
}

/** The name of the marks' x, such as epoch. */
const markName = (() => {
  const moving = windows.filter((shown) => shown.data && canMove(shown));
  const named = new Set(along === "mark" ? moving.map((shown) => shown.layout.xaxis?.title?.text)
    : runs.map((run) => run.axis));
  return (named.size === 1 && [...named][0]) || "mark";
})();

function yaxisOf(shown, values, zoomed) {
  const axis = shown.layout.yaxis ?? {};
  if (isLog(shown)) {
    const [low, high] = zoomed ?? extremes(values.filter((value) => value > 0)).map(Math.log10);
    const ends = low === high ? [low - 1, high + 1] : [low, high];  // as plotly shows a constant
    return {...axis, type: "log", exponentformat: "power", ...decades(...ends)};
  }
  const [low, high] = extremes(values);
  if (low !== high || low === 0 || axis.range) return axis;
  const ends = [Math.min(0, 2 * low), Math.max(0, 2 * low)], room = 0.1 * Math.abs(low);
  return {...axis, range: [ends[0] - room, ends[1] + room]};  // a constant, seen from 0
}

function extremes(values) {
  const known = values.filter((value) => value !== null);
  return [known.reduce((a, b) => Math.min(a, b), Infinity),
    known.reduce((a, b) => Math.max(a, b), -Infinity)];
}

/** Ticks of a logarithmic axis between two powers of ten: at whole powers, or if there are fewer than
 *  three, at 2 and 5 times them too; plotly's own ticks if there are few of these as well. Without
 *  positive values there are no labels: they would be those of the marks for zeros. */
function decades(low, high) {
  if (!Number.isFinite(low)) return {dtick: 1, showticklabels: false};
  const whole = Math.floor(high) - Math.ceil(low) + 1, every = Math.ceil(whole / 8), ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    if (power % every === 0) ticks.push(Number(`1e${power}`));
    if (whole < 3) ticks.push(Number(`2e${power}`), Number(`5e${power}`));
  }
  const inside = ticks.filter((tick) => low <= Math.log10(tick) && Math.log10(tick) <= high);
  if (inside.length < 2) return {};
  const isWide = Math.max(...inside) >= 1e5 || Math.min(...inside) < 1e-3;
  return {tickmode: "array", tickvals: ticks, ticktext: ticks.map(isWide ? powerText : format)};
}

/** A number as digits and a power of ten: 2×10⁻⁵. */
function powerText(value) {
  const [digits, power] = value.toExponential().split("e");
  const raised = [...String(Number(power))].map((sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? "⁻").join("");
  return `${digits === "1" ? "" : `${digits}×`}10${raised}`;
}

/** Marks at the lower end of a logarithmic axis for zeros, which it cannot show. */
function zeros(made, least) {
  const at = made.x.filter((_, i) => made.y[i] === 0), y = Number.isFinite(least) ? least / 3 : 1;
  if (!at.length) return [];
  return [{type: "scatter", mode: "markers", name: made.name, meta: made.meta, x: at, y: at.map(() => y),
    marker: {symbol: "triangle-down-open", size: 8, color: colourOf(made)},
    hoverinfo: "none", isZero: true, showlegend: false, yaxis: made.yaxis ?? "y"}];
}

const POINT = 6;  // pixels

/** Whether no line shows a value: it has a gap on both sides. */
function hasLone(values) {
  const isGap = (value) => (value ?? null) === null;
  return values.some((value, i) => !isGap(value) && isGap(values[i - 1]) && isGap(values[i + 1]));
}

/** Why a plot of lines is empty; "" if it is not, or if all its lines are off. */
function lack(values, isLog) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return values.length ? "no finite values" : "";
  return isLog && known.every((value) => value < 0) ? "no positive values" : "";
}

/** plotly's traces and layout of a card. */
function figureOf(card) {
  const {shown} = card, weight = smoothing(shown), data = [];
  for (const [meta, trace] of shown.data.entries()) {
    const made = {...trace, meta, visible: isOn(card, trace)};
    if (trace.x) made.x = positions(shown, trace);
    if (trace.line) made.line = {...trace.line, color: visible(trace.line.color)};
    if (isMuted(trace) && chosen.theme === "dark") made.opacity = 0.3;  // its pale grey stands out
    if (trace.fillcolor) made.fillcolor = visible(trace.fillcolor);
    if (trace.marker) made.marker = visibleMarker(trace.marker);
    if (trace.colorscale) made.colorscale = onGround(trace.colorscale);
    if (shown.curves && made.hoverinfo !== "skip") made.hoverinfo = "none";  // see showValues
    if (weight) {
      if (isLine(trace)) data.push({...made, opacity: 0.3, hoverinfo: "skip", showlegend: false});
      made.y = smoothed(trace.y, weight);
    }
    data.push(made);
  }
  const layout = {...shown.layout, template: template(), xaxis: xaxisOf(shown),
    width: card.plot.clientWidth, height: card.plot.clientHeight,
    hovermode: shown.curves ? "x" : "x unified", hoverdistance: shown.curves ? -1 : 20, uirevision: `${chosen.x} ${chosen.scale}`,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom"};  // a finger scrolls the page
  if (layout.scene) layout.margin ??= {l: 0, r: 0, t: 0, b: 0};  // its axes have their names inside
  if (layout.colorway) layout.colorway = layout.colorway.map(visible);
  // The page's own legends wrap; a lone name says nothing.
  if (shown.curves || (data.length === 1 && !data[0].labels)) layout.showlegend = false;
  if (shown.curves) {
    const values = data.filter((made) => made.visible).flatMap((made) => made.y);
    layout.yaxis = yaxisOf(shown, values, zoomOf(card, layout));
    const lacking = lack(values, isLog(shown));
    if (lacking) {
      layout.yaxis = {...layout.yaxis, showticklabels: false};
      layout.annotations = [{text: lacking, showarrow: false, xref: "paper", yref: "paper",
        x: 0.5, y: 0.5, font: {color: css("--dim")}}];
    }
    if (isLog(shown)) {
      const [least] = extremes(values.filter((value) => value > 0));
      const lines = data.filter((made) => made.visible && made.line?.width !== 0 && made.yaxis !== "y2");
      const marks = lines.filter((made) => made.hoverinfo !== "skip").flatMap((made) => zeros(made, least));
      for (const made of lines) {
        made.y = made.y.map((value) => (value > 0 ? value : null));
        if (made.mode === "lines" && hasLone(made.y)) {
          Object.assign(made, {mode: "lines+markers", marker: {...made.marker, size: POINT}});
        }
      }
      data.push(...marks);
    }
  }
  for (const name of ["xaxis", "yaxis", "yaxis2"]) {
    if (layout[name]) layout[name] = visibleAxis(layout[name]);
  }
  if (shown.data[0].type === "heatmap") {
    const {z} = shown.data[0], room = Math.min(layout.width, layout.height) - MARGINS;
    if (layout.xaxis) layout.xaxis = spacedAxis(layout.xaxis, room / z[0]?.length);
    if (layout.yaxis) layout.yaxis = spacedAxis(layout.yaxis, room / z.length);
  }
  if (isSquare(shown.data[0])) {
    layout.xaxis = {...layout.xaxis, constrain: "domain"};
    layout.yaxis = {...layout.yaxis, constrain: "domain", scaleanchor: "x"};
    data[0].showscale = !data[0].texttemplate;  // the cells say it in numbers
  }
  return {data: literal(data), layout: literal(layout)};
}

const MARGINS = 80;  // pixels beside a matrix, about
const LABEL = 18;  // pixels that the label of a class takes, or the number in a cell

/** The axis of a matrix, without the labels of some classes where those of all would overlap. */
function spacedAxis(axis, cell) {
  if (axis.dtick !== 1) return axis;
  return {...axis, dtick: [1, 2, 5].find((every) => every * cell >= LABEL) ?? 10};
}

/** The ends of a logarithmic y axis into which the reader has zoomed. */
function zoomOf({plot}, {uirevision}) {
  const axis = plot.layout?.uirevision === uirevision && plot._fullLayout?.yaxis;
  return axis && axis.type === "log" && !axis.autorange ? axis.range : undefined;
}

function isSquare(trace) {
  return trace.type === "heatmap" && !trace.x && trace.z.length === trace.z[0]?.length;
}
