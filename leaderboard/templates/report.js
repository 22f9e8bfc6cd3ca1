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
        [`${key}.tickcolor`]: line, [`${key}.showgrid`]: layout[key].showgrid ?? true,
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

// --- what is packed in the page: the libraries, and the figures and files as one JSON document

const unpacked = new Map();

// the text of a packed part; unpacked once
function unpack(id) {
  if (!unpacked.has(id)) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(id, new Response(stream).text());
  }
  return unpacked.get(id);
}

let parsed;
const content = () => (parsed ??= unpack("data").then(JSON.parse));

function scriptAddress(code) {
  return URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
}

let plotly;
function loadPlotly() {
  plotly ??= unpack("plotly").then((code) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: scriptAddress(code), onload: resolve, onerror: reject });
    document.head.append(script);
  }));
  return plotly;
}

// --- figures: drawn when they come into view, so that the page opens at once

const drawn = new Map();

function draw(figure) {
  const name = figure.dataset.plot;
  if (!drawn.has(name)) drawn.set(name, drawNow(figure.querySelector(".canvas"), name));
  return drawn.get(name);
}

async function drawNow(div, name) {
  const [{ figures }] = await Promise.all([content(), loadPlotly()]);
  const { data, layout } = figures[name];
  if (innerWidth < 640) fitPhone(layout);
  await Plotly.newPlot(div, data, layout, { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]] });
  await Plotly.relayout(div, colours(div.layout));
}

// on a phone the legend would be larger than the figure; a tap on a marker names the method
function fitPhone(layout) {
  const rows = Object.keys(layout).some((key) => /^xaxis[2-9]/.test(key));
  Object.assign(layout, { showlegend: false, margin: { ...layout.margin, l: rows ? 8 : 48, r: 8, t: 40 } });
  layout.font.size = 10;
  (layout.annotations ?? []).forEach((note) => { note.font = { ...note.font, size: 9 }; });
}

const watch = new IntersectionObserver((entries) => {
  entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watch.unobserve(entry.target);
    draw(entry.target);
  });
}, { rootMargin: "300px" });
document.querySelectorAll("figure.plot").forEach((figure) => watch.observe(figure));

// paper has what is open on the screen, and a print does not wait: what is open is drawn as soon as there is time
async function drawWhatIsOpen() {
  for (const figure of document.querySelectorAll("figure.plot")) {
    if (figure.offsetParent) {
      await draw(figure);
      await new Promise((resolve) => { (window.requestIdleCallback ?? setTimeout)(resolve); });
    }
  }
}
document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", drawWhatIsOpen));

// a link to a task opens it
function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
}
addEventListener("hashchange", openTarget);

// --- tables: sorted and filtered by the library, plain tables until it is there

let jQuery;
const sorted = new Map();

// make a table one that is sorted and filtered; `order` as the library takes it
function enhance(table, order = []) {
  sorted.get(table)?.destroy();
  const hidden = [...table.tHead.rows[0].cells].flatMap((cell, i) => (cell.hidden ? [i] : []));
  sorted.set(table, jQuery(table).DataTable({
    paging: false, info: false, order, autoWidth: false,
    columnDefs: [{ targets: hidden, visible: false }],
    layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
    language: { search: "Filter:" },
  }));
}

const RELATIVE = "relative error";
const parts = [...document.querySelectorAll(".of-board")];
const chooseBoard = document.getElementById("choose-board");
const chooseMetric = document.getElementById("choose-metric");

// show one of the tables, and offer its metrics
function showBoard(anchor) {
  parts.forEach((part) => { part.hidden = part.dataset.board !== anchor; });
  const part = parts.find((one) => !one.hidden);
  const metrics = JSON.parse(part.dataset.metrics);
  chooseMetric.replaceChildren(new Option(RELATIVE), ...Object.entries(metrics).map(([name, arrow]) => new Option(`${name} ${arrow}`, name)));
  chooseMetric.disabled = Object.keys(metrics).length === 0;
  showMetric();
}

// rank the table that is shown by a metric; one that has no column of its own gets the last one
async function showMetric() {
  const part = parts.find((one) => !one.hidden);
  const table = part.querySelector("table.board");
  const metric = chooseMetric.value;
  const headers = () => [...table.tHead.rows[0].cells];
  sorted.get(table)?.destroy();
  sorted.delete(table);
  const own = headers().findIndex((cell) => !cell.classList.contains("chosen")
    && (cell.textContent === metric || cell.textContent.replace(/ [↑↓]$/, "") === metric));
  const extra = metric !== RELATIVE && own < 0;
  table.querySelectorAll(".chosen").forEach((cell) => { cell.hidden = !extra; });
  let order = [];
  if (metric !== RELATIVE) {
    const { board } = await content();
    const { better, means } = board.tasks.find((task) => board.suites.length + board.tasks.indexOf(task) === Number(part.dataset.number)).metrics[metric];
    if (extra) {
      table.querySelector("th.chosen").textContent = chooseMetric.selectedOptions[0].text;
      [...table.tBodies[0].rows].forEach((row) => {
        const value = means[row.cells[0].textContent];
        const cell = row.querySelector("td.chosen");
        cell.textContent = value === null || value === undefined ? "—" : String(Number(value.toPrecision(3)));
        cell.dataset.order = value ?? (better === "higher" ? -1e300 : 1e300);
      });
    }
    order = [[extra ? headers().length - 1 : own, better === "higher" ? "desc" : "asc"]];
  }
  enhance(table, order);
}

async function enhanceTables() {
  const address = scriptAddress(await unpack("datatables"));
  ({ jQuery } = await import(address));
  URL.revokeObjectURL(address);
  document.querySelectorAll("table.board").forEach((table) => { if (!table.closest(".of-board")) enhance(table); });
  if (parts.length) {
    chooseBoard.addEventListener("change", () => showBoard(chooseBoard.value));
    chooseMetric.addEventListener("change", showMetric);
    document.querySelectorAll("a.to-board").forEach((link) => link.addEventListener("click", () => {
      chooseBoard.value = link.dataset.board;
      showBoard(link.dataset.board);
    }));
    showBoard(chooseBoard.value);
  }
  root.dataset.tables = "ready";
}

// --- the tables as files

async function offerDownloads() {
  const place = document.getElementById("downloads");
  if (!place) return;
  const { files, board } = await content();
  const all = { ...files, "leaderboard.json": JSON.stringify(board, null, 1) };
  Object.entries(all).forEach(([name, text], i) => {
    const link = document.createElement("a");
    const type = name.endsWith("json") ? "application/json" : "text/csv";
    Object.assign(link, { download: name, href: URL.createObjectURL(new Blob([text], { type })), textContent: name });
    place.append(i ? ", " : "", link);
  });
}

// --- one method against another, on all tasks that both have

const percent = (p) => (p === null ? "—" : p > 0.99 ? "> .99" : p < 0.01 ? "< .01" : p.toFixed(2).replace(/^0/, ""));

async function comparePair() {
  const [first, second] = ["pair-first", "pair-second"].map((id) => document.getElementById(id));
  if (!first) return;
  const { board } = await content();
  const tables = [...board.suites, ...board.tasks].map((table, i) => ({ ...table, name: chooseBoard.options[i].text }));
  const names = [...new Set(tables.flatMap(({ pairs }) => pairs.flatMap(({ method, other }) => [method, other])))].sort();
  for (const list of [first, second]) names.forEach((name) => list.add(new Option(name, name)));
  // at first the best method, against what it has to beat
  const best = tables.find(({ pairs }) => pairs.length).methods.find(({ method }) => method !== "baseline" && names.includes(method));
  first.value = best?.method ?? names[0];
  second.value = names.includes("baseline") ? "baseline" : names.find((name) => name !== first.value);
  const turned = { better: "worse", worse: "better" };
  const row = ({ name, draws }, pair) => {
    const as = pair.method === first.value;
    const turn = (x) => (x === null ? null : as ? x : 1 / x);
    const [ratio, low, high] = [turn(pair.ratio), ...(as ? [pair.low, pair.high] : [pair.high, pair.low]).map(turn)];
    const needed = pair.replicates_for_10_percent;
    const unit = draws ? (draws.length > 1 ? "draws" : "units") : "";
    return [
      name,
      ratio === null ? "—" : `${ratio.toFixed(2)}${low === null ? "" : ` [${low.toFixed(2)}, ${high.toFixed(2)}]`}`,
      percent(pair.p_better === null || as ? pair.p_better : 1 - pair.p_better),
      (as ? pair.verdict : turned[pair.verdict] ?? pair.verdict) || "—",
      unit && needed !== null && needed < 1e6 ? `${Math.ceil(needed).toLocaleString("en")} ${unit}` : "—",
    ];
  };
  const headings = [...document.querySelectorAll("#pair-table th")].map((cell) => cell.textContent);
  const show = () => {
    const asked = [first.value, second.value].sort().join();
    const rows = tables.flatMap((table) => table.pairs
      .filter(({ method, other }) => [method, other].sort().join() === asked)
      .map((pair) => row(table, pair)));
    document.querySelector("#pair-table tbody").replaceChildren(...(rows.length ? rows : [["they share no task", "—", "—", "—", "—"]]).map((texts) => {
      const line = document.createElement("tr");
      texts.forEach((text, i) => {
        const cell = line.insertCell();
        cell.textContent = text;
        if (i) cell.dataset.label = headings[i];
      });
      return line;
    }));
  };
  [first, second].forEach((list) => list.addEventListener("change", show));
  show();
}

applyTheme();
openTarget();
enhanceTables();
comparePair();
offerDownloads();
addEventListener("load", () => setTimeout(drawWhatIsOpen, 1000));
