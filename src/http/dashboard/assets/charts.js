// Draws [data-chart], whose form is chart.rs's, with Plotly. It is loaded when the first chart comes near the window.

import { $$, theme } from "./kit.js";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (place) => css(`--series-${(place % 8) + 1}`);
const faded = (hex, alpha) => `${hex}${Math.round(alpha * 255).toString(16).padStart(2, "0")}`;

let loading = null;

/** Plotly, which is loaded once. */
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.querySelector('meta[name="plotly"]').content;
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("Plotly cannot be loaded")));
    document.head.append(script);
  });
  return loading;
}

const FORMS = {
  count: { hover: ",.0f", axis: { tickformat: "~s", rangemode: "tozero" } },
  usd: { hover: "$,.4~f", axis: { tickformat: "$,.3~r", rangemode: "tozero" } },
  ms: { hover: ",.0f", suffix: " ms", axis: { tickformat: "~s", ticksuffix: " ms", rangemode: "tozero" } },
  percent: { hover: ".2~%", axis: { tickformat: "~%", rangemode: "tozero" } },
};

function traces({ x, kind, unit, series }) {
  const form = FORMS[unit] ?? FORMS.count;
  const several = series.length > 1;
  return series.map(({ name, y, color, dash, fill }, place) => {
    const own = color ? css(color) : colour(place);
    // Names are data: what Plotly would take for markup of its own is shown as it is.
    const plain = name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    const hovertemplate = `%{y:${form.hover}}${form.suffix ?? ""}<extra>${several ? plain : ""}</extra>`;
    const common = { x, y, name: plain, hovertemplate };
    if (kind === "stacked" || kind === "grouped") return { ...common, type: "bar", marker: { color: own, line: { width: 0 } } };
    const line = { color: own, width: 2, shape: "spline", smoothing: 0.5, dash };
    const single = !several && kind !== "areas";
    return {
      ...common,
      type: "scatter",
      mode: x.length > 1 ? "lines" : "markers",
      line,
      connectgaps: false,
      stackgroup: kind === "areas" ? "all" : undefined,
      fill: kind === "areas" ? "tonexty" : fill ?? (single ? "tozeroy" : "none"),
      fillcolor: faded(own, kind === "areas" ? 0.28 : 0.1),
    };
  });
}

function layout({ kind, unit, axis, series }, node) {
  const form = FORMS[unit] ?? FORMS.count;
  const grid = css("--line");
  const narrow = node.clientWidth < 480;
  // The legend lies below everything, in columns as wide as its longest word.
  const widest = Math.max(...series.map(({ name }) => Math.min(name.length, 40) * 6.8 + 52));
  const columns = Math.max(1, Math.floor((node.clientWidth - 30) / widest));
  const lines = series.length > 1 ? Math.ceil(series.length / columns) : 0;
  return {
    autosize: true,
    barmode: kind === "stacked" ? "stack" : "group",
    bargap: 0.28,
    margin: { l: 52, r: 10, t: 8, b: (axis === "date" ? 40 : 30) + lines * 20, pad: 2 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--font"), size: 12, color: css("--muted") },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--text") },
    hovermode: "x unified",
    hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line-strong"), font: { color: css("--text"), size: 12 }, namelength: 32 },
    showlegend: series.length > 1,
    legend: { orientation: "h", xref: "container", x: 0, entrywidth: widest - 34, entrywidthmode: "pixels", yref: "container", y: 0, yanchor: "bottom", traceorder: "normal", font: { color: css("--soft"), size: 12 }, itemsizing: "constant" },
    xaxis: { type: axis, gridcolor: "rgba(0,0,0,0)", linecolor: grid, tickcolor: grid, fixedrange: false, automargin: true, nticks: narrow ? 5 : 9, hoverformat: axis === "date" ? "%b %e, %H:%M" : undefined, spikemode: "across", spikethickness: 1, spikecolor: css("--line-strong"), spikedash: "solid" },
    yaxis: { ...form.axis, gridcolor: grid, zerolinecolor: grid, fixedrange: true, nticks: 5, automargin: true },
  };
}

// Where there is no pointer to hover with, the buttons would lie over the chart for good.
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage", "autoScale2d"], scrollZoom: false };

/** Draws, or draws anew, what an element describes. */
export async function draw(node) {
  const described = JSON.parse(node.dataset.chart);
  const Plotly = await plotly();
  if (!node.dataset.drawn) node.replaceChildren();
  node.dataset.drawn = theme();
  await Plotly.react(node, traces(described), layout(described, node), CONFIG);
}

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
