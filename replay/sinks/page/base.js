"use strict";
// What the pages share: their data, elements, texts, colours and choices. A page's own script comes
// behind it, and declares `chosen`, with the theme.
// A text from a recording is only ever set as textContent, or escaped for plotly by literal().

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function dataOf(name) {
  return JSON.parse(document.getElementById(`data-${name}`).textContent);
}

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

/** A number in five digits, or whole; other values as they are. */
function format(value) {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return String(value);
  return String(Number(value.toPrecision(5)));
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
  const [, opaque, alpha] = /^rgba\((.*), ?([\d.]+)\)$/.exec(colour) ?? [];
  if (opaque) return visible(`rgb(${opaque})`).replace("rgb(", "rgba(").replace(")", `, ${alpha})`);
  const rgb = chosen.theme === "dark" ? parts(colour) : null;
  if (!rgb) return colour;
  const ground = luminance(parts(css("--card"))) + 0.05;
  let mixed = rgb;
  for (let white = 0.1; (luminance(mixed) + 0.05) / ground < 3.5; white += 0.1) {
    mixed = rgb.map((part) => Math.round(part + (255 - part) * white));
  }
  return `rgb(${mixed.join(", ")})`;
}

function template() {
  const [ink, dim, line, card] = ["--ink", "--dim", "--line", "--card"].map(css);
  const axis = {gridcolor: line, linecolor: line, tickcolor: line, zerolinecolor: line,
    automargin: true, ticklabeloverflow: "allow", zeroline: false, hoverformat: ".5~g",
    exponentformat: "power", minexponent: 5,  // 20000, not 2×10⁴ nor 0.2×10⁵
    title: {font: {color: dim, size: 12}, standoff: 6}};
  const solid = {color: dim, gridcolor: line, backgroundcolor: card, showbackground: true};
  const bar = {colorbar: {thickness: 11, outlinewidth: 0}};
  return {
    layout: {
      font: {color: ink, size: 12, family: "system-ui, sans-serif"},
      paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
      margin: {l: 42, r: 14, t: 10, b: 32}, xaxis: {...axis, hoverformat: undefined}, yaxis: axis,
      hoverlabel: {bgcolor: card, bordercolor: line, font: {color: ink}, namelength: 60},
      legend: {orientation: "h", yref: "container", yanchor: "bottom", y: 0.01, x: 0},
      scene: {xaxis: solid, yaxis: solid, zaxis: solid},
    },
    data: {heatmap: [bar], contour: [bar], surface: [bar]},
  };
}

// ---------------------------------------------------------------- choices

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

/** Follows the system when it turns light or dark. */
function followTheme() {
  prefersDark.addEventListener("change", () => document.querySelector(
    `#theme [value=${prefersDark.matches ? "dark" : "light"}]`).click());
}

/** Goes to the filter when / is typed. */
function makeFilter(onInput) {
  const input = document.getElementById("filter");
  input.addEventListener("input", onInput);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input")) return;
    event.preventDefault();
    input.focus();
  });
}
