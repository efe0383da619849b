"use strict";
// Draws the windows of the page; each plot when it first comes into view, so that many open fast.
const windows = JSON.parse(document.getElementById("windows").textContent);
const board = document.getElementById("board");
const count = document.getElementById("count");
const drawing = new Map();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && drawing.has(entry.target)) {
      const shown = drawing.get(entry.target);
      drawing.delete(entry.target);
      watcher.unobserve(entry.target);
      Plotly.newPlot(entry.target, shown.data, shown.layout, {displaylogo: false, responsive: true});
    }
  }
}, {rootMargin: "400px"});

function add(parent, tag, text) {
  const made = parent.appendChild(document.createElement(tag));
  if (text !== undefined) made.textContent = text;  // never markup
  return made;
}

function picture(section, shown) {
  const image = add(section, "img");
  image.alt = shown.title;
  image.addEventListener("load", () => {
    const fits = Math.min((shown.width || Infinity) / image.naturalWidth,
      (shown.height || Infinity) / image.naturalHeight);
    image.width = Math.round(image.naturalWidth * fits);  // in its proportions
  });
  image.src = shown.src;
  if (shown.caption) add(section, "p", shown.caption);
}

for (const shown of windows) {
  const section = add(board, "section");
  section.dataset.title = shown.title.toLowerCase();
  if (shown.data) {
    const plot = add(section, "div");
    section.classList.toggle("wide", shown.width > 600);  // which fills its columns
    plot.style.height = `${shown.height || 360}px`;
    drawing.set(plot, shown);
    watcher.observe(plot);
  } else {
    add(section, "h2", shown.title);
    if (shown.src) {
      picture(section, shown);
    } else {
      add(section, "pre", shown.text);
    }
  }
}

function filter(wanted) {
  let left = 0;
  for (const section of board.children) {
    section.hidden = !section.dataset.title.includes(wanted.toLowerCase());
    left += section.hidden ? 0 : 1;
  }
  const every = `${windows.length} window${windows.length === 1 ? "" : "s"}`;
  count.textContent = wanted ? `${left} of ${every}` : every;
}

document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));
filter("");
