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
  // on a phone the legend would be larger than the figure; a tap on a marker names the method
  if (innerWidth < 640) Object.assign(layout, { showlegend: false, margin: { ...layout.margin, l: 8, r: 8, t: 30 } });
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

// --- one method against another, on all tasks that both have

function comparePair() {
  const source = document.getElementById("pairs");
  if (!source) return;
  const tables = JSON.parse(source.textContent);
  const [first, second] = ["pair-first", "pair-second"].map((id) => document.getElementById(id));
  const names = [...new Set(tables.flatMap((table) => table.pairs.flatMap((pair) => [pair[0], pair[1]])))].sort();
  for (const list of [first, second]) names.forEach((name) => list.add(new Option(name, name)));
  first.value = names.find((name) => name !== "baseline") ?? names[0];
  second.value = names.includes("baseline") ? "baseline" : names[1];
  const turned = { better: "worse", worse: "better" };
  // the text of a ratio with its interval, the other way round
  const inverse = (text) => {
    const numbers = text.match(/[\d.]+/g)?.map((number) => (1 / Number(number)).toFixed(2));
    if (!numbers) return text;
    return numbers.length === 3 ? `${numbers[0]} [${numbers[2]}, ${numbers[1]}]` : numbers[0];
  };
  const complement = (text) => ({ "> .99": "< .01", "< .01": "> .99" })[text]
    ?? (Number.isNaN(Number(text)) ? text : (1 - Number(text)).toFixed(2).replace(/^0/, ""));
  const show = () => {
    const rows = tables.flatMap((table) => table.pairs
      .filter(([a, b]) => (a === first.value && b === second.value) || (a === second.value && b === first.value))
      .map(([a, , ratio, p, verdict, needed]) => (a === first.value
        ? [table.name, ratio, p, verdict, needed]
        : [table.name, inverse(ratio), complement(p), turned[verdict] ?? verdict, needed])));
    const body = document.querySelector("#pair-table tbody");
    body.replaceChildren(...(rows.length ? rows : [["they share no task", "—", "—", "—", "—"]]).map((row) => {
      const line = document.createElement("tr");
      row.forEach((text) => { line.insertCell().textContent = text || "—"; });
      return line;
    }));
  };
  [first, second].forEach((list) => list.addEventListener("change", show));
  show();
}

applyTheme();
openTarget();
comparePair();
enhanceTables();
