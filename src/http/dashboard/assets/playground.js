// The playground: the same /v1 as every caller's, by a key that lives in this page's memory and nowhere else.

import { $, $$, Failure, api, element, toast } from "./kit.js";

const root = $("[data-playground]");
const key = { secret: "", asked: 0 };
const talks = { a: [], b: [] };
let under = [];

const field = $("[data-key]", root);
const words = $("[data-key-words]", root);
const panels = $$("[data-panel]", root);
const shown = () => panels.filter((panel) => !panel.hidden);
const modelOf = (panel) => $("[data-model]", panel).value.trim();

const usd = (nano) => (nano === undefined || nano === null ? "—" : `$${(nano / 1e9).toLocaleString("en-US", { maximumSignificantDigits: 3 })}`);
const ms = (value) => (value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${Math.round(value)} ms`);

function ready() {
  const can = key.secret && shown().every(modelOf) && under.length === 0;
  $("[data-send]", root).disabled = !can;
  $("[data-stop]", root).hidden = under.length === 0;
  const say = $("[data-ask-words]", root);
  if (under.length) say.textContent = "Answering…";
  else if (!key.secret) say.textContent = "Paste a key, or have one made, to begin.";
  else if (!shown().every(modelOf)) say.textContent = "Choose a model.";
  else say.textContent = "";
}

/** Takes a key, and asks which models it may use. */
async function take(secret) {
  key.secret = "";
  key.asked += 1;
  const turn = key.asked;
  ready();
  if (!secret) {
    words.textContent = "";
    return;
  }
  words.textContent = "Looking at the key…";
  try {
    const response = await fetch("/v1/models", { headers: { authorization: `Bearer ${secret}` } });
    const answer = await response.json();
    // Another key was taken meanwhile.
    if (turn !== key.asked) return;
    if (!response.ok) throw new Error(answer.error?.message ?? `The gateway answered ${response.status}.`);
    const names = answer.data.map((model) => model.id).sort();
    $("[data-served]", root).replaceChildren(...names.map((name) => element("option", { value: name })));
    key.secret = secret;
    words.textContent = names.length === 1 ? "The key may use 1 model." : `The key may use ${names.length} models.`;
    panels.forEach((panel, place) => {
      const input = $("[data-model]", panel);
      if (!names.includes(input.value)) input.value = names[Math.min(place, names.length - 1)] ?? "";
    });
  } catch (error) {
    words.textContent = `The key is not good: ${error.message}`;
  }
  ready();
}

field.addEventListener("change", () => take(field.value.trim()));

$("[data-make-key]", root)?.addEventListener("click", async (event) => {
  const button = event.currentTarget;
  button.setAttribute("aria-busy", "true");
  try {
    const until = new Date(Date.now() + 3600_000);
    const name = `Playground, ${until.toISOString().slice(0, 16).replace("T", " ")}`;
    const { answer } = await api("POST", "/api/gateway/keys", { name, expires_at: until.toISOString() });
    field.value = "";
    await take(answer.secret);
    const link = element("a", { href: `/gateway/keys/${encodeURIComponent(answer.id)}` }, "See it");
    words.append(` It ends at ${until.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}. `, link);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    toast(failure.message, true);
  } finally {
    button.removeAttribute("aria-busy");
  }
});

for (const input of $$("[data-model]", root)) {
  input.addEventListener("input", ready);
}

$("[data-both]", root).addEventListener("change", (event) => {
  panels[1].hidden = !event.target.checked;
  root.classList.toggle("both", event.target.checked);
  ready();
});

// Talking

function bubble(panel, role, text) {
  const made = element("div", { class: `bubble ${role}` }, element("span", { class: "visually-hidden" }, role === "user" ? "You: " : "Model: "), element("span", { class: "said" }, text));
  const talk = $("[data-talk]", panel);
  $(".empty", talk)?.remove();
  talk.append(made);
  talk.scrollTop = talk.scrollHeight;
  return $(".said", made);
}

function figure(panel, name, value) {
  $(`[data-figure="${name}"]`, panel).textContent = value;
}

function fault(panel, text) {
  const box = $("[data-panel-fault]", panel);
  $("[data-fault-words]", box).textContent = text ?? "";
  box.hidden = !text;
}

/** The events of a stream, as parsed JSON. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

/** What the request cost, which is known shortly after its end. Those who do not see the log are not told. */
async function cost(panel, id) {
  if (root.dataset.seesLogs === undefined || !id) return;
  for (const wait of [1500, 1500, 3000, 5000]) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    try {
      const { answer } = await api("GET", `/api/gateway/logs/${encodeURIComponent(id)}`);
      figure(panel, "cost", usd(answer.request.cost_nanousd));
      $('[data-figure="cost"]', panel).title = answer.request.provider ? `served by ${answer.request.provider}` : "";
      return;
    } catch (failure) {
      if (!(failure instanceof Failure)) throw failure;
    }
  }
}

function terms() {
  const { system, temperature, most } = $("[data-terms]", root).elements;
  const body = {};
  // What is no number is sent as it is: what is wrong with it is the gateway's to say.
  const number = (text) => (Number.isFinite(Number(text)) ? Number(text) : text);
  if (temperature.value.trim()) body.temperature = number(temperature.value.trim());
  if (most.value.trim()) body.max_completion_tokens = number(most.value.trim());
  return { body, system: system.value.trim() };
}

async function ask(panel, prompt, signal) {
  const talk = talks[panel.dataset.panel];
  const { body, system } = terms();
  bubble(panel, "user", prompt);
  talk.push({ role: "user", content: prompt });
  fault(panel, null);
  for (const name of ["cost", "first", "total", "speed", "tokens"]) figure(panel, name, "…");
  const began = performance.now();
  let first = null;
  let said = null;
  let text = "";
  let usage = null;
  let id = null;
  try {
    const messages = system ? [{ role: "system", content: system }, ...talk] : talk;
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { authorization: `Bearer ${key.secret}`, "content-type": "application/json" },
      body: JSON.stringify({ model: modelOf(panel), messages, stream: true, stream_options: { include_usage: true }, ...body }),
      signal,
    });
    id = response.headers.get("x-request-id");
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      throw new Error(answer.error?.message ?? `The gateway answered ${response.status}.`);
    }
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      const piece = event.choices?.[0]?.delta?.content;
      if (!piece) continue;
      first ??= performance.now();
      said ??= bubble(panel, "model", "");
      text += piece;
      said.textContent = text;
      const box = $("[data-talk]", panel);
      box.scrollTop = box.scrollHeight;
    }
    talk.push({ role: "assistant", content: text });
  } catch (error) {
    // What was not answered is not part of the conversation.
    if (text) talk.push({ role: "assistant", content: text });
    else talk.pop();
    fault(panel, error.name === "AbortError" ? "Stopped." : error.message);
  }
  const ended = performance.now();
  figure(panel, "first", first === null ? "—" : ms(first - began));
  figure(panel, "total", ms(ended - began));
  figure(panel, "tokens", usage ? `${usage.prompt_tokens} → ${usage.completion_tokens}` : "—");
  const seconds = first === null ? 0 : (ended - first) / 1000;
  figure(panel, "speed", usage && seconds > 0.02 ? `${Math.round(usage.completion_tokens / seconds)} tok/s` : "—");
  figure(panel, "cost", id ? "…" : "—");
  cost(panel, id).finally(() => {
    const box = $('[data-figure="cost"]', panel);
    if (box.textContent === "…") box.textContent = "—";
  });
}

const form = $("[data-ask]", root);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const prompt = form.elements.prompt.value.trim();
  if (!prompt || $("[data-send]", root).disabled) return;
  form.elements.prompt.value = "";
  under = shown().map(() => new AbortController());
  ready();
  await Promise.all(shown().map((panel, place) => ask(panel, prompt, under[place].signal)));
  under = [];
  ready();
  form.elements.prompt.focus();
});

form.elements.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

$("[data-stop]", root).addEventListener("click", () => under.forEach((one) => one.abort()));

$("[data-clear]", root).addEventListener("click", () => {
  under.forEach((one) => one.abort());
  for (const panel of panels) {
    talks[panel.dataset.panel] = [];
    $("[data-talk]", panel).replaceChildren();
    fault(panel, null);
    for (const name of ["cost", "first", "total", "speed", "tokens"]) figure(panel, name, "—");
  }
});

// A browser that comes back to the page may have kept what was typed.
field.value = "";
addEventListener("pagehide", () => {
  field.value = "";
  key.secret = "";
});
ready();
