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
    const name = `${`${shown.title} ${trace.label}`.trim()}, last`;
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
    add(chip, "span", shortNames[i]);
    if (run.note) add(chip, "span", run.note, {className: "dim"});
    const state = run.about.state ?? "closed";
    if (!state.startsWith("closed")) add(chip, "span", "not closed", {className: "dim", title: state});
    listen(chip, box, (alone) => turn(i, alone));
  });
  makeScale(row);
  const more = document.getElementById("more");
  more.textContent = `all ${runs.length} runs`;
  more.hidden = row.scrollHeight <= row.clientHeight + 4 && !row.classList.contains("all");
}

/** The colours of a column's values, if runs with equal values share one. */
function makeScale(row) {
  const colours = new Map(runs.map((run, i) => [run.note, runColours[i]]));
  if (!runColours.length || colours.size < 2 || colours.size === runs.length
    || runs.some((run, i) => colours.get(run.note) !== runColours[i])) return;
  const scale = add(row, "span", undefined, {className: "scale dim"});
  row.prepend(scale);
  for (const [note, colour] of colours) {
    add(scale, "i").style.background = visible(colour);
    add(scale, "span", note);
  }
}

/** Boxes for the phases, such as train and val, which turn their lines on and off in all plots. A lone
 *  phase is named where several runs have it: their plots may have no legends. */
function makePhases() {
  const row = document.getElementById("phases"), every = [...phases.keys()];
  row.hidden = every.length < 2 && (runs.length < 2 || !every[0]);
  row.replaceChildren();
  for (const phase of every) {
    const chip = add(row, "label", undefined, {className: "chip", title: "shift-click: alone"});
    const box = add(chip, "input", undefined, {type: "checkbox", value: phase,
      checked: !chosen.offPhases.has(phase)});
    key(chip, "currentColor", phases.get(phase));
    add(chip, "span", phase || "no phase");
    listen(chip, box, (alone) => turnPhase(phase, every, alone));
  }
}

/** Acts on a click on a chip; with Shift it leaves the chip alone. */
function listen(chip, box, act) {
  box.addEventListener("change", () => act(false));
  chip.addEventListener("click", (event) => {
    if (!event.shiftKey) return;
    event.preventDefault();
    act(true);
  });
}

function turnPhase(phase, every, alone) {
  toggle(chosen.offPhases, phase, every, alone);
  checkBoxes("#phases input", (k) => !chosen.offPhases.has(every[k]));
  redraw();
}

function turn(i, alone) {
  toggle(chosen.off, i, runs.map((_, k) => k), alone);
  checkBoxes("#runs input", (k) => !chosen.off.has(k));
  filter();
  redraw();
}

function checkBoxes(selector, isOn) {
  const boxes = document.querySelectorAll(selector);
  setTimeout(() => boxes.forEach((box, k) => { box.checked = isOn(k); }));
}

function makeControls() {
  makeChoices("theme", {light: "light", dark: "dark"}, changeTheme);
  const moving = windows.filter((shown) => shown.data && canMove(shown));
  if (moving.length) {
    const steps = runs.every(({at, step}) => !at || step)
      && runs.some(({step}) => step?.some((own) => own !== step[0]));
    const isStep = markName === "step", isGroup = runs.some(({at, start}) => at && start === null);
    const kept = {mark: !isStep, step: steps && !isStep, time: !isGroup, relative: true, [along]: true};
    const texts = {mark: markName, step: "step", time: "time", relative: "relative"};
    makeChoices("x", Object.fromEntries(Object.entries(texts).filter(([name]) => kept[name])), redraw);
  }
  const curves = windows.filter((shown) => shown.curves);
  const isOneScale = curves.every((shown) => shown.log === curves[0].log);
  if (isOneScale) chosen.scale = curves[0]?.log ? "log" : "linear";
  const scales = {...(!isOneScale && {own: "own"}), linear: "linear", log: "log"};
  if (curves.length) makeChoices("scale", scales, redraw);
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
  makePhases();
  cards.filter((card) => card.plot).forEach(makeLegend);
  redraw();
}

tellRuns();
makeChips();
makePhases();
makeControls();
cards.filter((card) => card.plot).forEach(makeLegend);
filter();
for (const card of cards.filter((card) => card.plot)) {
  watcher.observe(card.plot);
  sizes.observe(card.plot);
}
new ResizeObserver(arrange).observe(board);
document.getElementById("more").addEventListener("click", ({target}) => {
  target.setAttribute("aria-expanded", document.getElementById("runs").classList.toggle("all"));
});
makeFilter(filter);
followTheme();
