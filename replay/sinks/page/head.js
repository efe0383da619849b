// The head: what it tells of the runs, and the choices of the reader. At its end the page starts.

/** The leaves of a config by their paths: {"optimizer.lr": 0.1}. */
function leaves(value, path = "", found = Object.create(null)) {
  if (value && typeof value === "object" && Object.keys(value).length && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) {
      leaves(inner, path ? `${path}.${name}` : name, found);
    }
  } else if (path || value !== null) {
    found[path || "config"] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return found;
}

const told = runs.map(({config: own, about}) => ({...Object.fromEntries(Object.entries(leaves(own)).map(
  ([name, text]) => [name in about ? `config.${name}` : name, text])), ...about}));
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
    if (!phase) continue;
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
    const steps = mark !== "step" && runs.some(({step}) => step?.some((own) => own !== step[0]));
    makeChoices("x", {mark, ...(steps ? {step: "step"} : {}), time: "time", relative: "relative"},
      redraw);
  }
  const curves = windows.filter((shown) => shown.curves);
  if (curves.every((shown) => shown.log === curves[0].log)) {
    chosen.scale = curves[0]?.log ? "log" : "linear";
  }
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
