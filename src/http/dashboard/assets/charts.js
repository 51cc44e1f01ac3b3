// Draws [data-chart], whose form is chart.rs's, with Plotly. It is loaded when the first chart comes near the window.
// What is of a part of an hour, a day or a month, such as the present one, is drawn lighter or dashed, and says so under the
// pointer. The legend is the page's own: all of it is seen, however many series there are, and its buttons can be reached by
// the keyboard. For those who do not point, or do not see, the same values are a table, which is made when it is opened.

import { $$, element, theme } from "./kit.js";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const variable = (place) => `--series-${(place % 8) + 1}`;
const faded = (hex, alpha) => `${hex}${Math.round(alpha * 255).toString(16).padStart(2, "0")}`;

let loading = null;

/** Plotly, which is loaded once; what could not be loaded is asked for anew by the next who needs it. */
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.querySelector('meta[name="plotly"]').content;
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      script.remove();
      loading = null;
      reject(new Error("Plotly cannot be loaded"));
    });
    document.head.append(script);
  });
  return loading;
}

const FORMS = {
  count: { hover: ",.0f", axis: { tickformat: "~s" } },
  usd: { hover: "$,.4~f", axis: { tickformat: "$,.3~r" } },
  ms: { hover: ",.0f", suffix: " ms", axis: { tickformat: ",~f", ticksuffix: " ms" } },
  s: { hover: ",.2f", suffix: " s", axis: { tickformat: ",~f", ticksuffix: " s" } },
  percent: { hover: ".2~%", axis: { tickformat: "~%" } },
};
/** From how many milliseconds on an axis is of seconds. */
const SECONDS_FROM = 2000;
/** The lightness of what is told in part. */
const PARTLY = 0.4;
/** What is as high as one row of bars that lie. */
const ROW = 46;

/** What is described, with its units as people read them and where it is told in part. */
function read(node) {
  const chart = JSON.parse(node.dataset.chart);
  const [from, to] = chart.whole ?? [0, chart.x.length];
  chart.partly = chart.x.map((_, place) => place < from || place >= to);
  chart.notes = chart.x.map((_, place) => (place < from ? " (from the start of the period)" : place >= to ? " (so far)" : ""));
  // Names are data: what Plotly would take for markup of its own is shown as it is.
  chart.series = chart.series.map((series) => ({ ...series, plain: series.name.replaceAll("&", "&amp;").replaceAll("<", "&lt;") }));
  const most = Math.max(0, ...chart.series.flatMap(({ y }) => y.map((value) => value ?? 0)));
  if (chart.unit === "ms" && most >= SECONDS_FROM) {
    chart.unit = "s";
    for (const series of chart.series) series.y = series.y.map((value) => (value === null ? null : value / 1000));
  }
  return chart;
}

/** The traces, each with the place of its series: a line that is dashed at its ends is drawn by two of them. */
function traces({ x, kind, unit, series, partly, notes }) {
  const form = FORMS[unit] ?? FORMS.count;
  const several = series.length > 1;
  return series.flatMap(({ plain, y, color }, place) => {
    const own = css(color ?? variable(place));
    const value = (axis) => `%{${axis}:${form.hover}}${form.suffix ?? ""}%{customdata}<extra>${several ? plain : ""}</extra>`;
    const common = { x, y, name: plain, customdata: notes, hovertemplate: value("y"), meta: { series: place } };
    if (kind === "lying") {
      return [{ ...common, x: y, y: x, type: "bar", orientation: "h", hovertemplate: value("x"), marker: { color: own, line: { width: 0 } } }];
    }
    if (kind === "stacked" || kind === "grouped") {
      return [{ ...common, type: "bar", marker: { color: own, opacity: partly.map((part) => (part ? PARTLY : 1)), line: { width: 0 } } }];
    }
    const line = {
      ...common,
      type: "scatter",
      // What stands alone between times without a value would not be seen as a line.
      mode: y.includes(null) || x.length < 2 ? "lines+markers" : "lines",
      marker: { size: 5 },
      // A line straight from point to point: it never says more than there was.
      line: { color: own, width: 2, shape: "linear" },
      connectgaps: false,
      fill: several ? "none" : "tozeroy",
      fillcolor: faded(own, 0.1),
    };
    if (!partly.some(Boolean)) return [line];
    // Whole points are joined by one line, and what is told in part is joined to its neighbour by a dashed one, which says
    // nothing where the other one does.
    const at = (place) => partly[place] || partly[place - 1] || partly[place + 1];
    const dashed = {
      ...line,
      y: y.map((value, place) => (at(place) ? value : null)),
      hoverinfo: partly.map((part) => (part ? "all" : "skip")),
      hovertemplate: partly.map((part) => (part ? line.hovertemplate : "")),
      line: { ...line.line, dash: "dot" },
      fill: "none",
    };
    return [{ ...line, y: y.map((value, place) => (partly[place] ? null : value)) }, dashed];
  });
}

function layout({ x, kind, unit, axis, series }, node) {
  const form = FORMS[unit] ?? FORMS.count;
  const grid = css("--line");
  const narrow = node.clientWidth < 480;
  // Halves of a request would be shown as thousandths of one.
  const few = unit === "count" && series.every(({ y }) => y.every((value) => value < 4));
  const values = { ...form.axis, rangemode: "tozero", ...(few ? { dtick: 1 } : {}), gridcolor: grid, zerolinecolor: grid, fixedrange: true, nticks: 5, automargin: true };
  const places = { type: axis, gridcolor: "rgba(0,0,0,0)", linecolor: grid, tickcolor: grid, fixedrange: false, automargin: true };
  const lying = kind === "lying";
  return {
    autosize: true,
    height: lying ? x.length * ROW + 40 : undefined,
    barmode: kind === "stacked" ? "stack" : "group",
    bargap: 0.28,
    margin: { l: lying ? 12 : 52, r: 10, t: 8, b: axis === "date" ? 40 : 30, pad: lying ? 6 : 2 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--font"), size: 12, color: css("--muted") },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--text") },
    hovermode: lying ? "y unified" : "x unified",
    hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line-strong"), font: { color: css("--text"), size: 12 }, namelength: 32 },
    showlegend: false,
    xaxis: lying ? values : { ...places, nticks: narrow ? 5 : 9, hoverformat: axis === "date" ? "%b %e, %H:%M" : undefined, spikemode: "across", spikethickness: 1, spikecolor: css("--line-strong"), spikedash: "solid" },
    // The first name is the uppermost.
    yaxis: lying ? { ...places, autorange: "reversed", fixedrange: true } : values,
  };
}

// Where there is no pointer to hover with, the buttons would lie over the chart for good.
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage", "autoScale2d"], scrollZoom: false };

/** The traces of a series, by their places. */
const tracesOf = (node, place) => node.data.map((trace, at) => [trace, at]).filter(([trace]) => trace.meta?.series === place).map(([, at]) => at);

/** Fills the legend beside a chart, whose buttons take series out and put them back. */
function legend(node, { series }) {
  const box = node.nextElementSibling;
  if (!box?.matches(".chart-legend")) return;
  const buttons = series.map(({ name, color }, place) => {
    const mark = element("span", { class: "mark", "aria-hidden": "true" });
    mark.style.background = `var(${color ?? variable(place)})`;
    const button = element("button", { type: "button", "aria-pressed": "true" }, mark, name);
    button.addEventListener("click", async () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      const Plotly = await plotly();
      await Plotly.restyle(node, { visible: shown }, tracesOf(node, place));
    });
    return button;
  });
  box.replaceChildren(...buttons);
}

/** Says in a chart's place that it cannot be drawn, and how to go on. */
function failed(node) {
  const again = element("button", { type: "button", class: "button" }, "Try again");
  again.addEventListener("click", () => {
    again.disabled = true;
    draw(node);
  });
  node.replaceChildren(element("div", { class: "chart-failed", role: "alert" }, element("p", {}, "The chart could not be loaded. Its values are in the table below."), again));
}

/** Draws, or draws anew, what an element describes. */
export async function draw(node) {
  const described = read(node);
  let Plotly;
  try {
    Plotly = await plotly();
  } catch {
    failed(node);
    return;
  }
  const first = !node.dataset.drawn;
  if (first) {
    node.replaceChildren();
    legend(node, described);
    node.classList.toggle("lying", described.kind === "lying");
  }
  node.dataset.drawn = theme();
  const drawn = traces(described);
  // What somebody has taken out stays out when the colours change.
  const out = first ? [] : $$("button", node.nextElementSibling ?? node).map((button) => button.getAttribute("aria-pressed") === "false");
  for (const trace of drawn) if (out[trace.meta.series]) trace.visible = false;
  await Plotly.react(node, drawn, layout(described, node), CONFIG);
}

const WORDS = {
  count: (value) => value.toLocaleString("en", { maximumFractionDigits: 2 }),
  usd: (value) => `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 6 })}`,
  ms: (value) => `${value.toLocaleString("en", { maximumFractionDigits: 0 })} ms`,
  s: (value) => `${value.toLocaleString("en", { maximumFractionDigits: 2 })} s`,
  percent: (value) => `${(value * 100).toLocaleString("en", { maximumFractionDigits: 2 })}%`,
};

/** What a chart shows, as a table: a line for each place, a column for each series. */
function tabulate({ x, axis, unit, series, notes }) {
  const words = WORDS[unit] ?? WORDS.count;
  const head = [axis === "date" ? "Time (UTC)" : "Name", ...series.map(({ name }) => name)];
  const lines = x.map((at, place) => element("tr", {},
    element("th", { scope: "row" }, `${at}${notes[place]}`),
    ...series.map(({ y }) => element("td", { class: "right" }, y[place] === null ? "—" : words(y[place])))));
  return element("table", { class: "table" },
    element("thead", {}, element("tr", {}, ...head.map((name, place) => element("th", { scope: "col", ...(place ? { class: "right" } : {}) }, name)))),
    element("tbody", {}, ...lines));
}

// The event does not bubble, so it is heard on its way down.
document.addEventListener("toggle", ({ target }) => {
  if (!target.matches?.("[data-table-of]") || !target.open) return;
  target.lastElementChild.replaceChildren(tabulate(read(document.getElementById(target.dataset.tableOf))));
}, true);

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    draw(target);
  }
}, { rootMargin: "200px" });

/** Draws the charts in an element when they come near the window. */
export function watch(within = document) {
  for (const node of $$("[data-chart]:not([data-drawn])", within)) near.observe(node);
}

document.addEventListener("theme", () => $$("[data-chart][data-drawn]").forEach(draw));
document.addEventListener("live", () => watch());
watch();
