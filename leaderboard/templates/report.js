"use strict";

// --- theme: the reader's system decides until the reader does

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;

function applyTheme() {
  const theme = chosen ?? (dark.matches ? "dark" : "light");
  root.dataset.theme = theme;
  root.classList.toggle("dark", theme === "dark");
  document.querySelectorAll(".canvas.js-plotly-plot").forEach((div) => Plotly.relayout(div, colours(div.layout)));
}

// text, grid and lines of a figure in the colours of the page
function colours(layout) {
  const style = getComputedStyle(root);
  const [text, line, page] = ["--text", "--line", "--page"].map((name) => style.getPropertyValue(name).trim());
  const change = {
    "font.color": text, "hoverlabel.bgcolor": page, "hoverlabel.font.color": text,
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": line, "modebar.activecolor": text,
  };
  for (const key of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(key)) {
      Object.assign(change, {
        [`${key}.gridcolor`]: line, [`${key}.zerolinecolor`]: line, [`${key}.linecolor`]: line,
        [`${key}.tickcolor`]: line, [`${key}.showgrid`]: true,
      });
    }
  }
  (layout.shapes ?? []).forEach((shape, i) => {
    if (shape.name === "themed") change[`shapes[${i}].line.color`] = text;
  });
  return change;
}

dark.addEventListener("change", applyTheme);
document.getElementById("theme").addEventListener("click", () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  applyTheme();
});

// --- figures: drawn when they come into view, so that the page opens at once

const drawn = new Map();

function draw(figure) {
  const name = figure.dataset.plot;
  if (drawn.has(name)) return drawn.get(name);
  const source = document.querySelector(`script[data-figure="${CSS.escape(name)}"]`);
  const { data, layout } = JSON.parse(source.textContent);
  const div = figure.querySelector(".canvas");
  const done = Plotly.newPlot(div, data, layout, { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]] })
    .then(() => Plotly.relayout(div, colours(div.layout)));
  drawn.set(name, done);
  return done;
}

const watch = new IntersectionObserver((entries) => {
  entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watch.unobserve(entry.target);
    draw(entry.target);
  });
}, { rootMargin: "300px" });
document.querySelectorAll("figure.plot").forEach((figure) => watch.observe(figure));

// paper has no scroll: all of it is drawn and opened first
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  document.querySelectorAll("figure.plot").forEach(draw);
});

// a link to a task opens it
function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
}
addEventListener("hashchange", openTarget);

// --- tables: sorted and filtered by the library, plain tables until it is there

async function enhanceTables() {
  const code = document.getElementById("table-library").textContent;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { jQuery } = await import(url);
  URL.revokeObjectURL(url);
  document.querySelectorAll("table.board").forEach((table) => {
    jQuery(table).DataTable({
      paging: false, info: false, order: [], autoWidth: false,
      layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
      language: { search: "Filter:" },
    });
  });
  root.dataset.tables = "ready";
}

applyTheme();
openTarget();
enhanceTables();
