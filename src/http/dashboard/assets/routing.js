// Routing: one draft of the config, which is the text of #document. Controls change the text, and the text fills the controls.

import { $, $$, Failure, api, element, gather, showFaults, toast } from "./kit.js";
import { draw } from "./charts.js";

const root = $("[data-routing]");
const area = $("[data-document]");
const version = root.dataset.version;
const saved = area.value;
let draft = JSON.parse(area.value);

const FALLBACKS = { generic: "all its deployments fail", context_window: "the prompt does not fit", content_policy: "a content policy refuses it", budget_exhausted: "a budget is used up" };
const STAGES = { primary: "first choice", generic: "fallback", context_window: "fallback: prompt too long", content_policy: "fallback: content policy", budget_exhausted: "fallback: budget used up" };
const STRATEGIES = { balanced: "Balanced", "cost-optimized": "Cost", "latency-optimized": "Latency", failover: "Failover" };
/** Dollars as format.rs writes them: cents, and more digits where the amount is small. */
function usd(nano) {
  if (nano === undefined || nano === null) return "—";
  const digits = Math.abs(nano) >= 1e8 || nano === 0 ? 2 : Math.abs(nano) >= 1e6 ? 4 : 6;
  return new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: digits }).format(nano / 1e9);
}
const ms = (value) => (value === undefined || value === null ? "—" : value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${Math.round(value)} ms`);
const count = (value) => new Intl.NumberFormat("en-US").format(value);

// Where things are in the text

/** Where each value of a JSON text is, by its pointer. What is no JSON is thrown with its place. */
function locate(text) {
  const places = new Map();
  let at = 0;
  const fail = (words) => {
    throw Object.assign(new SyntaxError(words), { at });
  };
  const space = () => {
    while (/\s/.test(text[at] ?? "")) at += 1;
  };
  const string = () => {
    const start = at;
    at += 1;
    while (at < text.length && text[at] !== '"' && text[at] !== "\n") at += text[at] === "\\" ? 2 : 1;
    if (text[at] !== '"') fail("a quotation mark is missing here");
    at += 1;
    try {
      return JSON.parse(text.slice(start, at));
    } catch {
      at = start;
      return fail("this text has a character that JSON does not allow");
    }
  };
  const list = (end, item) => {
    at += 1;
    space();
    if (text[at] === end) {
      at += 1;
      return;
    }
    for (let place = 0; ; place += 1) {
      item(place);
      space();
      if (text[at] === end) break;
      if (text[at] !== ",") fail(`a comma or ${end} is missing here`);
      at += 1;
    }
    at += 1;
  };
  const value = (pointer) => {
    space();
    const start = at;
    if (text[at] === "{") {
      list("}", () => {
        space();
        if (text[at] !== '"') fail("a name in quotation marks is missing here");
        const name = string();
        space();
        if (text[at] !== ":") fail("a colon is missing here");
        at += 1;
        value(`${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`);
      });
    } else if (text[at] === "[") list("]", (place) => value(`${pointer}/${place}`));
    else if (text[at] === '"') string();
    else {
      const found = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)/.exec(text.slice(at, at + 64));
      if (!found) fail(at >= text.length ? "the document is not complete" : "this is not a valid JSON value");
      at += found[0].length;
    }
    places.set(pointer, [start, at]);
  };
  value("");
  space();
  if (at < text.length) fail("there is something after the end of the document");
  return places;
}

const lineOf = (at) => area.value.slice(0, at).split("\n").length;

/** The place of a fault: of what its pointer names, or else of what that would be in. */
function placeOf({ pointer, problem }) {
  let places;
  try {
    places = locate(area.value);
  } catch (error) {
    return [error.at, error.at + 1];
  }
  let at = pointer;
  while (at && !places.has(at)) at = at.slice(0, at.lastIndexOf("/"));
  const [start, end] = places.get(at) ?? [0, 0];
  // A condition's fault has a place of its own in the condition's text.
  const inside = /^line 1, column (\d+):/.exec(problem);
  return inside && area.value[start] === '"' ? [start + Number(inside[1]), end - 1] : [start, end];
}

function show([start, end]) {
  area.focus();
  area.setSelectionRange(start, end);
  const height = Number.parseFloat(getComputedStyle(area).lineHeight);
  area.scrollTop = Math.max(0, (lineOf(start) - 4) * height);
}

function faults(list) {
  const box = $("[data-faults]");
  box.replaceChildren(...list.map((fault) => {
    const place = fault.place ?? placeOf(fault);
    const words = fault.pointer ? `${fault.pointer}: ${fault.problem}` : fault.problem;
    const button = element("button", { type: "button" }, element("span", { class: "fault-line" }, `Line ${lineOf(place[0])}`), element("span", {}, words));
    button.addEventListener("click", () => show(place));
    return element("li", {}, button);
  }));
  box.hidden = list.length === 0;
  if (list.length) area.setAttribute("aria-invalid", "true");
  else area.removeAttribute("aria-invalid");
}

// The draft

const words = $("[data-draft-words]");

function state() {
  const changed = area.value.trim() !== saved.trim();
  words.textContent = draft === null ? "The draft is not valid JSON" : changed ? "Unsaved changes" : "No changes";
  root.classList.toggle("changed", changed);
  const save = $("[data-save]");
  if (save) save.disabled = !changed || draft === null;
  const discard = $("[data-discard]");
  if (discard) discard.hidden = !changed;
  for (const control of $$("[data-strategy], [data-rule-new], [data-check], [data-opens=fallback]")) control.disabled = draft === null;
}

/** Changes the draft by its controls. */
function change(by) {
  by(draft);
  area.value = JSON.stringify(draft, null, 2);
  faults([]);
  render();
}

area.addEventListener("input", () => {
  try {
    const places = locate(area.value);
    const read = JSON.parse(area.value);
    if (typeof read !== "object" || read === null || Array.isArray(read)) {
      draft = null;
      faults([{ pointer: "", problem: "The document must be an object: { … }", place: places.get("") }]);
    } else {
      draft = read;
      faults([]);
      render();
      return;
    }
  } catch (error) {
    draft = null;
    faults([{ pointer: "", problem: error.message, place: [error.at ?? 0, (error.at ?? 0) + 1] }]);
  }
  state();
});

function actionWords(then) {
  const [name, value] = Object.entries(then ?? {})[0] ?? [];
  const all = Array.isArray(value) ? value.join(" → ") : String(value ?? "");
  return { route: `route to ${all}`, pin: `only ${Array.isArray(value) ? value.join(", ") : all}`, deny: `refuse: ${all}`, strategy: `strategy ${all}` }[name] ?? "no action";
}

function tool(label, text, action, disabled = false) {
  const button = element("button", { type: "button", class: "icon-button", "aria-label": label, title: label, disabled }, text);
  button.addEventListener("click", action);
  return button;
}

function move(from, to) {
  change((config) => config.rules.splice(to, 0, ...config.rules.splice(from, 1)));
  $$("[data-rules] li")[to]?.querySelector("button:not(:disabled)")?.focus();
}

function renderRules() {
  const rules = Array.isArray(draft.rules) ? draft.rules : [];
  const rows = rules.map((rule, place) => {
    const name = String(rule?.name ?? "unnamed");
    const share = rule?.percent === undefined ? "" : `${rule.percent}% of requests, `;
    const about = element("div", { class: "grow" },
      element("p", { class: "strong" }, name, rule?.enabled === false ? element("span", { class: "pill quiet" }, "off") : null),
      element("p", { class: "rule-when" }, element("code", {}, rule?.when ?? "always")),
      element("p", { class: "muted small" }, share + actionWords(rule?.then)));
    return element("li", {}, about, element("div", { class: "rule-tools" },
      tool(`Move ${name} up`, "↑", () => move(place, place - 1), place === 0),
      tool(`Move ${name} down`, "↓", () => move(place, place + 1), place === rules.length - 1),
      tool(`Edit ${name}`, "✎", () => openRule(place)),
      tool(`Remove ${name}`, "×", () => change((config) => config.rules.splice(place, 1)))));
  });
  $("[data-rules]").replaceChildren(...(rows.length ? rows : [element("li", { class: "muted" }, "No rules. The strategy applies to all requests.")]));
}

function renderFallbacks() {
  const rows = [];
  for (const [kind, models] of Object.entries(draft.fallback_models ?? {})) {
    for (const [model, others] of Object.entries(models ?? {})) {
      const about = element("div", { class: "grow" },
        element("p", { class: "strong" }, `${model === "*" ? "every model" : model} → ${[others].flat().join(" → ")}`),
        element("p", { class: "muted small" }, `when ${FALLBACKS[kind] ?? kind}`));
      rows.push(element("li", {}, about, tool(`Remove the fallback of ${model}`, "×", () => change((config) => {
        delete config.fallback_models[kind][model];
        if (!Object.keys(config.fallback_models[kind]).length) delete config.fallback_models[kind];
        if (!Object.keys(config.fallback_models).length) delete config.fallback_models;
      }))));
    }
  }
  $("[data-fallbacks]").replaceChildren(...(rows.length ? rows : [element("li", { class: "muted" }, "No fallbacks. A request fails if no deployment of its model answers.")]));
}

function render() {
  for (const radio of $$("[data-strategy]")) radio.checked = radio.value === (draft.strategy ?? "balanced");
  renderRules();
  renderFallbacks();
  state();
}

for (const radio of $$("[data-strategy]")) {
  radio.addEventListener("change", () => change((config) => {
    config.strategy = radio.value;
  }));
}

// Rules and fallbacks in their dialogs

const ruleDialog = $("#rule");
const ruleForm = $("form", ruleDialog);
let editing = null;

function chooseAction() {
  for (const part of $$("[data-for]", ruleForm)) part.hidden = part.dataset.for !== ruleForm.elements._action.value;
}

function fillTokens(input, values) {
  input.value = [values].flat().filter(Boolean).join(",");
  input.dispatchEvent(new Event("change"));
}

function openRule(place) {
  editing = place;
  const rule = place === null ? {} : draft.rules[place];
  const fields = ruleForm.elements;
  ruleForm.reset();
  fields.name.value = rule.name ?? "";
  fields.when.value = rule.when ?? "";
  fields.percent.value = rule.percent ?? "";
  fields.percent_by.value = rule.percent_by ?? "request";
  fields.enabled.checked = rule.enabled !== false;
  const [action, value] = Object.entries(rule.then ?? { route: [] })[0] ?? ["route", []];
  fields._action.value = action;
  if (action === "route" || action === "pin") fillTokens(fields[action], value);
  else if (fields[action]) fields[action].value = value;
  chooseAction();
  ruleDialog.showModal();
}

ruleForm.elements._action.addEventListener("change", chooseAction);
$("[data-rule-new]").addEventListener("click", () => openRule(null));

ruleForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const { route, pin, deny, strategy, enabled, ...rest } = gather(ruleForm);
  const action = ruleForm.elements._action.value;
  const value = { route, pin, deny, strategy }[action];
  if (value === undefined || value.length === 0) {
    showFaults(ruleForm, { errors: [{ pointer: `/${action}`, problem: "is needed" }] });
    return;
  }
  const rule = { ...rest, then: { [action]: value } };
  if (!enabled) rule.enabled = false;
  change((config) => {
    config.rules = Array.isArray(config.rules) ? config.rules : [];
    if (editing === null) config.rules.push(rule);
    else config.rules[editing] = rule;
  });
  ruleDialog.close();
  check();
});

const fallbackDialog = $("#fallback");
const fallbackForm = $("form", fallbackDialog);
fallbackDialog.addEventListener("opened", () => fallbackForm.reset());
fallbackForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const { kind, model, others } = gather(fallbackForm);
  if (!others?.length) {
    showFaults(fallbackForm, { errors: [{ pointer: "/others", problem: "must name a model" }] });
    return;
  }
  change((config) => {
    config.fallback_models ??= {};
    config.fallback_models[kind] ??= {};
    config.fallback_models[kind][model] = others;
  });
  fallbackDialog.close();
  check();
});

// Asking and saving

/** The faults of the draft that a failure is about, if it is about the draft. */
function ofDraft(failure, at) {
  const errors = failure.problem.errors ?? [];
  if (!errors.length || !errors.every(({ pointer }) => pointer === at || pointer.startsWith(`${at}/`))) return false;
  faults(errors.map(({ pointer, problem }) => ({ pointer: pointer.slice(at.length), problem })));
  words.textContent = errors.length === 1 ? "1 problem" : `${errors.length} problems`;
  return true;
}

async function busy(button, work, form) {
  if (button?.getAttribute("aria-busy")) return undefined;
  button?.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    if (ofDraft(failure, "/config")) toast("The draft has problems", true);
    else if (form) showFaults(form, failure.problem);
    else toast(failure.message, true);
    return undefined;
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

/** Has the API check the draft, which explaining anything by it does. */
async function check(button) {
  const done = await busy(button, () => api("POST", "/api/gateway/routing/explain", { model: "any", config: draft }));
  if (!done) return;
  faults([]);
  state();
  if (button) toast("No problems found");
}

$("[data-check]").addEventListener("click", (event) => check(event.currentTarget));

$("[data-discard]")?.addEventListener("click", () => {
  area.value = saved;
  area.dispatchEvent(new Event("input"));
});

$("[data-save]")?.addEventListener("click", async (event) => {
  const button = event.currentTarget;
  button.setAttribute("aria-busy", "true");
  try {
    await api("PUT", "/api/gateway/config", draft, { "if-match": `"${version}"` });
    root.classList.remove("changed");
    // What is in force now is said at the top.
    scrollTo(0, 0);
    location.reload();
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    if (failure.problem.status === 412) {
      // Nothing is overwritten unseen: what somebody else saved is to be looked at first.
      const link = element("a", { href: "/gateway/routing/versions" }, "View versions");
      words.replaceChildren("Someone else saved a newer version. Your draft is still here. ", link);
      toast("The config has changed", true);
    } else if (!ofDraft(failure, "")) toast(failure.message, true);
  } finally {
    button.removeAttribute("aria-busy");
  }
});

addEventListener("beforeunload", (event) => {
  if (root.classList.contains("changed")) event.preventDefault();
});

// Explaining

function table(label, heads, rows) {
  const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { class: kind }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, place) => element("td", { class: heads[place][1] }, cell))));
  return element("div", { class: "table-wrap boxed", tabindex: "0", role: "region", "aria-label": label },
    element("table", { class: "table" }, element("thead", {}, head), element("tbody", {}, ...body)));
}

$("[data-explain]").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  for (const fault of $$("[data-fault], [data-form-fault]", form)) fault.hidden = true;
  const question = { ...gather(form), config: draft };
  const done = await busy(event.submitter, () => api("POST", "/api/gateway/routing/explain", question), form);
  if (!done) return;
  const { answer } = done;
  const parts = [];
  const rules = answer.rules.length ? `${answer.rules.length === 1 ? "Matching rule" : "Matching rules"}: ${answer.rules.join(", ")}.` : "No rule matched.";
  parts.push(element("p", { class: "soft" }, `Strategy: ${STRATEGIES[answer.strategy] ?? answer.strategy}. ${rules}`));
  if (answer.refusal) parts.push(element("div", { class: "notice bad" }, element("div", {}, `Would be refused: ${answer.refusal.message}.`)));
  if (answer.attempts.length) {
    const rows = answer.attempts.map((attempt, place) => [
      String(place + 1), element("code", {}, attempt.deployment), STAGES[attempt.stage] ?? attempt.stage, usd(attempt.cost_nanousd), ms(attempt.expected_ms),
    ]);
    parts.push(table("Attempts, in order", [["#"], ["Deployment", "wrap"], ["When"], ["Est. cost", "right"], ["Est. time", "right"]], rows));
  }
  if (answer.excluded.length) {
    const rows = answer.excluded.map((one) => [element("code", {}, one.deployment), one.explanation]);
    parts.push(element("details", { class: "more-fields" }, element("summary", {}, `${answer.excluded.length} excluded`), table("Excluded", [["Deployment", "wrap"], ["Reason", "wrap"]], rows)));
  }
  $("[data-explained]").replaceChildren(...parts);
});

// Simulating

const figure = (label, value, note) => element("div", { class: "figure" }, element("span", { class: "tile-label" }, label), element("span", { class: "tile-value" }, value), element("span", { class: "muted small" }, note));

$("[data-simulate]").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const done = await busy(event.submitter, () => api("POST", "/api/gateway/routing/simulate", { ...gather(form), config: draft }), form);
  if (!done) return;
  const { requests, current, draft: after, moved, cost_difference_nanousd: difference } = done.answer;
  const box = $("[data-simulated]");
  if (requests === 0) {
    box.replaceChildren(element("p", { class: "notice quiet" }, "There are no recorded requests to simulate yet."));
    return;
  }
  const names = [...new Set([...Object.keys(current.split), ...Object.keys(after.split)])].sort((a, b) => (after.split[b] ?? 0) - (after.split[a] ?? 0));
  const refused = current.refused + after.refused > 0 ? ["refused"] : [];
  const side = (one) => [...names.map((name) => one.split[name] ?? 0), ...refused.map(() => one.refused)];
  // A provider and a model stand below each other, so that there is room for both on a phone.
  const places = [...names, ...refused].map((name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replace("/", "/<br>"));
  const described = { unit: "count", kind: "lying", axis: "category", x: places, series: [{ name: "current config", y: side(current) }, { name: "draft", y: side(after) }] };
  const chart = element("div", { class: "chart", role: "figure", "aria-label": "Requests by deployment, with the current config and with the draft", "data-chart": JSON.stringify(described) });
  const legend = element("div", { class: "chart-legend", role: "group", "aria-label": "Series" });
  const cost = difference === 0 ? `same as now` : `${difference > 0 ? "+" : "−"}${usd(Math.abs(difference))} from ${usd(current.cost_nanousd)}`;
  const from = (one, other, words) => (one === other ? "same as now" : `now ${words}`);
  box.replaceChildren(
    element("div", { class: "figures" },
      figure("Routed differently", count(moved), `of ${count(requests)}`),
      figure("Cost", usd(after.cost_nanousd), cost),
      figure("Est. time", ms(after.mean_expected_ms), from(ms(after.mean_expected_ms), ms(current.mean_expected_ms), ms(current.mean_expected_ms))),
      figure("Refused", count(after.refused), from(after.refused, current.refused, count(current.refused)))),
    chart, legend);
  draw(chart);
});

render();
