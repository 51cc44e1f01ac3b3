// What pages do beyond being read. Everything is said by attributes, so that most pages need no script of their own:
//
//   form[data-api="POST /api/…"]      sends its fields as JSON. A field's name is its place in the body: `limits.requests_per_minute`,
//                                     `budgets.0.amount_usd`. data-type: number, numbers, bool, list (commas or lines), tokens (chips),
//                                     tags (`name=value` chips, an object), time (local, sent as UTC), json; else text.
//                                     An empty field is left out, or null with data-empty="null", or "" with data-empty="text".
//                                     data-with="name" leaves a field out where that other one is empty.
//                                     data-headers='{"if-match": "…"}' adds headers. {name} in the path is the field of that name.
//                                     data-taken="a b" on a field: it is none of these. data-whole="name" on the form: what is
//                                     wrong with the whole of it is said at that field. Names that begin with _ are not sent.
//   button[data-api]                  the same without fields: data-body='{"…": 1}', data-confirm="What will happen", data-verb="Revoke".
//   data-done                         afterwards: reload, close, toast:Words, go:/path/{name}, event. Several with spaces between, words with `_`.
//                                     Whatever it is, `api:done` is raised with {answer, response}, and `api:failed` with {problem}.
//                                     `warnings` of an answer are shown above the page, also the one that comes next; with `event` not.
//   [data-opens="id"], [data-closes]  dialogs. form[data-auto-submit] sends itself when something is chosen.
//   form[data-edits]                  in a dialog: begins with what the button that opens it says: data-values='{"name": …}', data-id for
//                                     its field _id, data-whom for [data-edits-whom].
//   [data-copy="text"], [data-copy-from="#id"]
//   table[data-sort]                  th with data-by (number or text) sort the rows there are by the cells' data-value or text.
//   time[data-relative]               is kept as "3 min ago".
//   body[data-live-url]               [data-live="name"] are replaced by what the stream sends under the name.
//   [data-tabs]                       buttons with data-tab="id" show one of the panels.
//   [data-picks="/api/…"]             a field that is searched by the API as one types; parts::key_picker makes it.
//   [data-search]                     `/` goes there; with data-search="#table" it narrows the rows there are.

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const meta = (name) => $(`meta[name="${name}"]`)?.content ?? "";

/** An element with a text, never with markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

/** Says something in the corner for a while. */
export function toast(words, bad = false) {
  const box = element("div", { class: bad ? "toast bad" : "toast" }, words);
  $("#toasts")?.append(box);
  setTimeout(() => box.remove(), bad ? 9000 : 4500);
}

/** What was wrong with a request. `errors` are {pointer, problem}, as the API's problem details have them. */
export class Failure extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || "the request failed");
    this.problem = problem;
  }
}

/** Asks the API by the session of the page. Gives {answer, response}. */
export async function api(method, path, body, headers = {}) {
  const all = { accept: "application/json", ...headers };
  if (method !== "GET") all["x-bonito-csrf"] = meta("csrf");
  if (body !== undefined) all["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: all, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Failure({ detail: "The gateway does not answer. Is the connection there?" });
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = null;
  }
  if (response.ok) return { answer, response };
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  throw new Failure(answer ?? { title: response.statusText, detail: `The gateway answered ${response.status}.` });
}

// Forms

const lists = (text) => text.split(/[\n,]/).map((item) => item.trim()).filter(Boolean);

/** The value of a field; undefined: it is left out. */
function valueOf(field) {
  const kind = field.dataset.type ?? "text";
  if (field.type === "radio" && !field.checked) return undefined;
  if (kind === "bool" && (field.type === "checkbox" || field.value)) {
    return field.type === "checkbox" ? field.checked : field.value === "true";
  }
  if (kind === "tokens") return tokensOf(field);
  if (kind === "tags") {
    return Object.fromEntries(tokensOf(field).map((tag) => {
      const at = tag.indexOf("=");
      return at < 0 ? [tag, ""] : [tag.slice(0, at).trim(), tag.slice(at + 1).trim()];
    }));
  }
  if (kind === "list") return lists(field.value);
  if (kind === "numbers") return lists(field.value).map(Number);
  const text = field.dataset.keep === undefined ? field.value.trim() : field.value;
  if (text === "") {
    if (field.dataset.empty === "null") return null;
    return field.dataset.empty === "text" ? "" : undefined;
  }
  const wrong = (problem) => new Failure({ errors: [{ pointer: `/${field.name.replaceAll(".", "/")}`, problem }] });
  if (kind === "number") {
    if (!Number.isFinite(Number(text))) throw wrong("must be a number");
    return Number(text);
  }
  if (kind === "time") return new Date(text).toISOString();
  if (kind === "json") {
    try {
      return JSON.parse(text);
    } catch {
      throw wrong("is not valid JSON");
    }
  }
  return text;
}

/** The fields of a form as the body they stand for. */
export function gather(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || field.name.startsWith("_") || field.closest("[hidden]")) continue;
    if (field.dataset.with && !form.elements[field.dataset.with]?.value.trim()) continue;
    const value = valueOf(field);
    if (value === undefined) continue;
    const parts = field.name.split(".");
    let at = body;
    parts.forEach((part, place) => {
      if (place === parts.length - 1) at[part] = value;
      else at = at[part] ??= /^\d+$/.test(parts[place + 1]) ? [] : {};
    });
  }
  return compact(body);
}

/** Lists without the holes that fields which were left out have made. */
function compact(value) {
  if (Array.isArray(value)) return value.filter((item) => item !== undefined && item !== null).map(compact);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, compact(inner)]));
  }
  return value;
}

/** What can be said to be wrong without asking: names that something else has. */
function takenNames(form) {
  const taken = [...form.elements].filter((field) => field.dataset.taken?.split(" ").includes(field.value.trim()));
  if (taken.length) throw new Failure({ errors: taken.map((field) => ({ pointer: `/${field.name}`, problem: "is taken" })) });
}

function clearFaults(form) {
  for (const field of $$("[aria-invalid]", form)) field.removeAttribute("aria-invalid");
  for (const fault of $$("[data-fault], [data-form-fault]", form)) {
    fault.hidden = true;
    fault.textContent = "";
  }
}

/** What the API's reader says of a field, as other faults are said: {pointer, problem}. */
function readerFaults(detail) {
  const found = /field `([^`]+)` verification failed\. (\w+)\(([^,)]*)/.exec(detail ?? "");
  if (!found) return [];
  const [, name, rule, value] = found;
  const words = {
    minimum: `must be at least ${value}`,
    maximum: `must be at most ${value}`,
    maxLength: `must have at most ${value} characters`,
    minLength: `must have at least ${value} characters`,
  };
  return [{ pointer: `/${name.replaceAll(".", "/")}`, problem: words[rule] ?? "is not as it must be" }];
}

/** Shows what is wrong at the fields that it is about, and the rest above the buttons. */
export function showFaults(form, problem) {
  const rest = [];
  let first = null;
  const errors = problem.errors?.length ? problem.errors : readerFaults(problem.detail);
  for (const { pointer, problem: words } of errors) {
    const said = pointer || (form.dataset.whole ? `/${form.dataset.whole}` : "");
    const parts = said.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
    let field = null;
    // A fault inside a list or an object is shown at the field that the whole of it came from.
    for (let length = parts.length; length > 0 && !field; length -= 1) {
      const name = parts.slice(0, length).join(".");
      field = [...form.elements].find((own) => own.name === name && (own.type !== "hidden" || own.closest("[data-picks]"))) ?? null;
    }
    // What is typed into stands for what is sent.
    field = field?.closest("[data-picks]")?.querySelector("input") ?? field;
    const place = field?.closest(".field")?.querySelector("[data-fault]");
    if (!place) {
      rest.push(pointer ? `${parts.join(".")} ${words}` : words);
      continue;
    }
    field.setAttribute("aria-invalid", "true");
    place.id ||= `fault-${Math.random().toString(36).slice(2)}`;
    field.setAttribute("aria-errormessage", place.id);
    place.setAttribute("role", "alert");
    // Most faults are sentences without their subject; some have one.
    const sentence = /^(must|is|are|has|have|may|can|cannot|does|needs|was|names)\b/.test(words) ? `This ${words}.` : `${words[0].toUpperCase()}${words.slice(1)}.`;
    place.textContent = [place.textContent, sentence].filter(Boolean).join(" ");
    place.hidden = false;
    for (let folded = field.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
    first ??= field;
  }
  if (!errors.length) rest.push(problem.detail || problem.title);
  const box = $("[data-form-fault]", form);
  if (rest.length && box) {
    box.textContent = rest.join("; ");
    box.hidden = false;
  } else if (rest.length) {
    toast(rest.join("; "), true);
  }
  first?.focus();
}

/** A path with the values of fields in the places of their names. */
function filled(target, pattern) {
  const values = target.elements;
  return pattern.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values?.[name]?.value ?? values?.[`_${name}`]?.value ?? ""));
}

/** Where warnings wait for the page that comes next. */
const WARNED = "bonito-warnings";

/** Shows above the page what is not wrong, and more often than not a slip. It stays until it is put away. */
export function showWarnings(warnings) {
  const close = element("button", { type: "button", class: "icon-button", "aria-label": "Dismiss the warnings" }, "×");
  const said = warnings.map((words) => element("p", {}, `${words[0].toUpperCase()}${words.slice(1)}.`));
  const box = element("div", { class: "notice warn", role: "alert", "data-warned": true }, element("div", {}, ...said), close);
  close.addEventListener("click", () => box.remove());
  $("#main")?.prepend(box);
}

/** What an answer warns of is shown here, or on the page that one goes on to. */
function warn(warnings, leaves) {
  if (leaves) {
    try {
      sessionStorage.setItem(WARNED, JSON.stringify(warnings));
      return;
    } catch {
      // Without a place to keep them they are shown while there is time.
    }
  }
  showWarnings(warnings);
}

try {
  const kept = sessionStorage.getItem(WARNED);
  sessionStorage.removeItem(WARNED);
  if (kept) showWarnings(JSON.parse(kept));
} catch {
  // There is no such place, and nothing was kept.
}

function finish(target, what, done) {
  target.dispatchEvent(new CustomEvent("api:done", { bubbles: true, detail: done }));
  const steps = (what ?? "reload").split(/\s+/);
  const warnings = done.answer?.warnings ?? [];
  // Whoever goes on by the event shows them as well.
  if (warnings.length && !steps.includes("event")) {
    warn(warnings, steps.some((step) => step === "reload" || step.startsWith("go:")));
  }
  for (const step of steps) {
    if (step === "reload") location.reload();
    else if (step === "close") target.closest("dialog")?.close();
    else if (step.startsWith("toast:")) toast(step.slice(6).replaceAll("_", " "));
    else if (step.startsWith("go:")) location.assign(filled(target, step.slice(3)));
  }
}

async function send(target, path, body, button) {
  const [method, pattern] = path.split(" ");
  const url = filled(target, pattern);
  button?.setAttribute("aria-busy", "true");
  try {
    const headers = JSON.parse(target.dataset.headers ?? "{}");
    const done = await api(method, url, body, headers);
    finish(target, target.dataset.done, done);
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.api) return;
  event.preventDefault();
  const button = event.submitter;
  if (button?.getAttribute("aria-busy")) return;
  clearFaults(form);
  try {
    takenNames(form);
    if (form.dataset.confirm && !(await confirmed(form.dataset.confirm, form.dataset.verb))) return;
    const body = form.dataset.api.startsWith("GET") || form.dataset.api.startsWith("DELETE") ? undefined : gather(form);
    await send(form, form.dataset.api, body, button);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    showFaults(form, failure.problem);
    form.dispatchEvent(new CustomEvent("api:failed", { bubbles: true, detail: failure }));
  }
});

/** Asks whether something is meant. */
export function confirmed(words, verb = "Yes") {
  const dialog = $("#confirmation");
  $("[data-confirm-text]", dialog).textContent = words;
  $("[data-confirm-yes]", dialog).textContent = verb;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function act(button) {
  if (button.getAttribute("aria-busy")) return;
  if (button.dataset.confirm && !(await confirmed(button.dataset.confirm, button.dataset.verb))) return;
  try {
    const body = button.dataset.body === undefined ? undefined : JSON.parse(button.dataset.body);
    await send(button, button.dataset.api, body, button);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    toast(failure.message, true);
    button.dispatchEvent(new CustomEvent("api:failed", { bubbles: true, detail: failure }));
  }
}

// Chips

const shownTokens = (input) => $$(".token", input.parentElement).map((token) => token.dataset.value);

function tokensOf(input) {
  const rest = input.value.trim();
  return rest ? [...shownTokens(input), ...lists(rest)] : shownTokens(input);
}

function addTokens(input) {
  for (const text of lists(input.value)) {
    if (shownTokens(input).includes(text)) continue;
    const remove = element("button", { type: "button", "aria-label": `Remove ${text}` }, "×");
    const token = element("span", { class: "token", "data-value": text }, text, remove);
    remove.addEventListener("click", () => {
      token.remove();
      input.focus();
    });
    input.before(token);
  }
  input.value = "";
}

/** Makes a plain input one of chips; what it has is separated by commas. */
export function chips(input) {
  input.before(element("div", { class: "tokens" }));
  input.previousSibling.append(input);
  addTokens(input);
  input.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === ",") && input.value.trim()) {
      event.preventDefault();
      addTokens(input);
    } else if (event.key === "Backspace" && input.value === "") {
      input.previousElementSibling?.remove();
    }
  });
  input.addEventListener("change", () => addTokens(input));
  input.form?.addEventListener("reset", () => $$(".token", input.parentElement).forEach((token) => token.remove()));
}

// Keys, found by the API

const AN_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** After how many milliseconds without another letter it is asked, and how many keys are offered. */
const PICK_AFTER = 150;
const PICKED = 20;

/** A field in which what is typed is looked for; what is sent is the id of what was found. */
function picker(box) {
  const [text, hidden, list] = [$("input:not([type=hidden])", box), $("input[type=hidden]", box), $("datalist", box)];
  const first = [text.value, hidden.value];
  const ids = new Map(first[1] ? [first] : []);
  let asked = 0;
  let timer = 0;
  /** Takes what is written, if it says which one is meant. */
  const take = () => {
    const said = text.value.trim();
    const id = said === "" ? "" : AN_ID.test(said) ? said.toLowerCase() : ids.get(said);
    hidden.value = id ?? "";
    text.setCustomValidity(id === undefined ? "Choose a key from the list, or enter its ID." : "");
    return id !== undefined;
  };
  const search = async () => {
    asked += 1;
    const mine = asked;
    const query = new URLSearchParams({ limit: PICKED, search: text.value.trim() });
    let answer;
    try {
      ({ answer } = await api("GET", `${box.dataset.picks}?${query}`));
    } catch (failure) {
      // An id can be entered all the same.
      if (failure instanceof Failure) return;
      throw failure;
    }
    if (mine !== asked) return;
    const names = answer.data.map(({ name }) => name);
    list.replaceChildren(...answer.data.map(({ id, name, prefix }) => {
      // Of several with one name each is told by its prefix.
      const words = names.indexOf(name) === names.lastIndexOf(name) ? name : `${name} (${prefix})`;
      ids.set(words, id);
      return element("option", { value: words }, `${prefix}…`);
    }));
    take();
  };
  text.addEventListener("focus", search);
  text.addEventListener("input", () => {
    take();
    clearTimeout(timer);
    timer = setTimeout(search, PICK_AFTER);
  });
  text.addEventListener("change", async (event) => {
    if (take()) return;
    // What is not known yet is not sent yet.
    event.stopPropagation();
    clearTimeout(timer);
    await search();
    if (!take()) text.reportValidity();
    else if (text.form?.dataset.autoSubmit !== undefined) text.form.requestSubmit();
  });
  // What is not shown is not asked for, and must not hold the form back.
  text.form?.addEventListener("change", () => {
    if (box.closest("[hidden]")) text.setCustomValidity("");
  });
  text.form?.addEventListener("reset", () => {
    hidden.value = first[1];
    text.setCustomValidity("");
  });
}

// Dialogs, copying, menus, themes

// A dialog that changes something begins with what there is, each time it is opened.
document.addEventListener("opened", ({ target, detail: button }) => {
  const form = $("form[data-edits]", target);
  if (!form || !button.dataset.values) return;
  form.reset();
  clearFaults(form);
  form.elements._id.value = button.dataset.id;
  $("[data-edits-whom]", form).textContent = button.dataset.whom;
  for (const [name, value] of Object.entries(JSON.parse(button.dataset.values))) {
    const field = form.elements[name];
    if (field.type === "checkbox") field.checked = value;
    else field.value = value;
    if (field.dataset?.type === "tokens") addTokens(field);
  }
  // What is folded away and says something is unfolded.
  for (const folded of $$("details", form)) folded.open = $$("input, select", folded).some((field) => (field.tagName === "SELECT" ? field.selectedIndex > 0 : field.type !== "checkbox" && field.value));
});

async function copy(button) {
  const from = button.dataset.copyFrom ? $(button.dataset.copyFrom) : null;
  const text = from ? from.value ?? from.textContent : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS there is no clipboard to ask; an element that is selected can be copied from all the same.
    const area = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    area.value = text;
    (button.closest("dialog") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  toast("Copied");
}

export function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function switchTheme() {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("bonito-theme", next);
  } catch {
    // It is for this page alone then.
  }
  document.dispatchEvent(new CustomEvent("theme"));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("theme")));

function openMenu(open) {
  document.body.classList.toggle("menu-open", open);
  $("[data-menu]")?.setAttribute("aria-expanded", String(open));
  if (open) $("#sidebar a")?.focus();
  else if ($("#sidebar")?.contains(document.activeElement)) $("[data-menu]")?.focus();
}

document.addEventListener("click", (event) => {
  const on = (selector) => event.target.closest?.(selector);
  for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  let found;
  if ((found = on("[data-copy], [data-copy-from]"))) copy(found);
  else if ((found = on("[data-opens]"))) {
    const dialog = document.getElementById(found.dataset.opens);
    dialog?.showModal();
    dialog?.dispatchEvent(new CustomEvent("opened", { bubbles: true, detail: found }));
  } else if ((found = on("[data-closes]"))) found.closest("dialog")?.close();
  else if ((found = on("button[data-api]"))) act(found);
  else if (on("[data-theme-toggle]")) switchTheme();
  else if (on("[data-menu]")) openMenu(!document.body.classList.contains("menu-open"));
  else if (on("[data-scrim]")) openMenu(false);
  else if ((found = on("[data-refresh]"))) {
    event.preventDefault();
    location.reload();
  } else if ((found = on("button.sort"))) sortBy(found.closest("th"));
  else if ((found = on("[data-tab]"))) showTab(found);
  // The backdrop is the dialog itself, where nothing of it is.
  else if (event.target instanceof HTMLDialogElement && event.target.dataset.stays === undefined) {
    const box = event.target.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside) event.target.close();
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = $("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
  if (event.key === "Escape") {
    for (const menu of $$("details.menu[open]")) {
      menu.open = false;
      $("summary", menu)?.focus();
    }
    if (document.body.classList.contains("menu-open")) openMenu(false);
  }
});

document.addEventListener("change", (event) => {
  event.target.closest?.("form[data-auto-submit]")?.requestSubmit();
});

document.addEventListener("input", (event) => {
  const search = event.target.closest?.("[data-search]");
  if (!search?.dataset.search) return;
  const wanted = search.value.trim().toLowerCase();
  for (const row of $$(`${search.dataset.search} tbody tr`)) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});

function showTab(tab) {
  const tabs = tab.closest("[data-tabs]");
  for (const other of $$("[data-tab]", tabs)) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.dataset.tab).hidden = !chosen;
  }
}

document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.('[role="tab"][data-tab]');
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!tab || !step) return;
  const all = $$("[data-tab]", tab.closest("[data-tabs]"));
  const next = all[(all.indexOf(tab) + step + all.length) % all.length];
  next.focus();
  showTab(next);
});

// Tables

function sortBy(head) {
  const table = head.closest("table");
  const heads = [...head.parentElement.children];
  const place = heads.indexOf(head);
  const descending = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.dataset.by === "number");
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (row) => {
    const cell = row.children[place];
    const text = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    return head.dataset.by === "number" ? Number.parseFloat(text) || 0 : text.toLowerCase();
  };
  const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => (a < b ? -1 : Number(a > b)) * (descending ? -1 : 1));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

// What goes on beyond an edge

const WIDE = ".table-wrap, .tabs, .code pre";

/** Marks what can be scrolled sideways with where there is more of it, which the style lets fade. */
function edges() {
  for (const box of $$(WIDE)) {
    const rest = box.scrollWidth - box.clientWidth - Math.abs(box.scrollLeft);
    const more = [box.scrollLeft > 1 && "left", rest > 1 && "right"].filter(Boolean);
    const said = more.length === 2 ? "both" : more[0];
    if (said) box.dataset.more = said;
    else delete box.dataset.more;
  }
}

let looking = 0;
const look = () => {
  looking ||= requestAnimationFrame(() => {
    looking = 0;
    edges();
  });
};
addEventListener("resize", look);
addEventListener("load", look);
// Neither of these bubbles.
document.addEventListener("scroll", (event) => event.target.matches?.(WIDE) && look(), { capture: true, passive: true });
document.addEventListener("toggle", look, { capture: true });
new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
look();

// Times

const UNITS = [[63072000, 31536000, "years"], [5184000, 2592000, "months"], [86400, 86400, "d"], [3600, 3600, "h"], [60, 60, "min"], [5, 1, "s"]];

export function ago(time) {
  const seconds = Math.round((Date.now() - time) / 1000);
  const [, size, word] = UNITS.find(([least]) => Math.abs(seconds) >= least) ?? [];
  if (!size) return "just now";
  const words = `${Math.floor(Math.abs(seconds) / size)} ${word}`;
  return seconds < 0 ? `in ${words}` : `${words} ago`;
}

function tick() {
  for (const time of $$("time[data-relative]")) {
    const words = ago(new Date(time.dateTime));
    if (time.textContent !== words) time.textContent = words;
  }
}

// Parts that are kept up to date

function live(url) {
  const dot = $("[data-live-dot]");
  const mark = (on) => {
    dot?.classList.toggle("on", on);
    dot?.classList.toggle("off", !on);
  };
  const source = new EventSource(url);
  const names = new Set($$("[data-live]").map((part) => part.dataset.live));
  const heard = () => {
    mark(true);
    const fresh = $("time[data-fresh]");
    if (fresh) fresh.dateTime = new Date().toISOString();
  };
  source.addEventListener("open", heard);
  source.addEventListener("error", () => {
    mark(false);
    // The browser asks again by itself, unless it got another answer than a stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => live(url), 10000);
  });
  source.addEventListener("over", () => {
    source.close();
    location.reload();
  });
  for (const name of names) {
    source.addEventListener(name, (event) => {
      heard();
      for (const part of $$(`[data-live="${name}"]`)) {
        // What the gateway has made and escaped itself, like the page; rows that are new are shown to be.
        const made = new DOMParser().parseFromString(event.data, "text/html").body;
        const before = new Set($$("[data-key]", part).map((row) => row.dataset.key));
        if (before.size) for (const row of $$("[data-key]", made)) row.classList.toggle("new", !before.has(row.dataset.key));
        part.replaceChildren(...made.childNodes);
      }
      tick();
      document.dispatchEvent(new CustomEvent("live", { detail: name }));
    });
  }
  addEventListener("pagehide", () => source.close(), { once: true });
}

// Times are given in UTC and shown in the viewer's zone.
for (const input of $$("input[data-utc]")) {
  const time = new Date(input.dataset.utc);
  input.value = new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
for (const input of $$('input[data-type="tokens"], input[data-type="tags"]')) chips(input);
for (const box of $$("[data-picks]")) picker(box);
tick();
setInterval(tick, 1000);
if (document.body.dataset.liveUrl) live(document.body.dataset.liveUrl);
