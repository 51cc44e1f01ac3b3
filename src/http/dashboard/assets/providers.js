// Providers: says what came of a test, and changes the organization's own prices.

import { $, Failure, api, element, gather, showFaults } from "./kit.js";

document.addEventListener("submit", (event) => {
  if (event.target.matches("form[data-test]")) $("[data-test-result]").replaceChildren(element("p", { class: "muted" }, "Asking…"));
});

document.addEventListener("api:failed", (event) => {
  if (event.target.matches("form[data-test]")) $("[data-test-result]").replaceChildren();
});

document.addEventListener("api:done", (event) => {
  if (!event.target.matches("form[data-test]")) return;
  const { ok, deployment, latency_ms: took, status, reason, message } = event.detail.answer;
  const words = ok ? `${deployment} answered in ${took} ms.` : `${deployment} did not answer: ${[reason, status].filter(Boolean).join(", ")}.`;
  const box = element("div", { class: `notice ${ok ? "good" : "bad"}` }, element("div", {}, element("p", { class: "strong" }, words), message ? element("p", {}, message) : null));
  $("[data-test-result]").replaceChildren(box);
});

const dialog = $("#price");
const form = dialog && $("form", dialog);

const moment = (time) => (time ? new Date(time).getTime() : 0);
const day = (time) => (time ? `from ${new Date(time).toLocaleString()}` : "from the beginning");

/** The own prices in force, and how to say that one has changed them since. */
async function own() {
  const { answer: config, response } = await api("GET", "/api/gateway/config");
  return { config, prices: config.prices ?? [], etag: response.headers.get("etag") };
}

/** Writes all own prices, unless somebody else was faster. `place` is that of the one that is new, of whose faults the form tells. */
async function write({ config, etag }, prices, place) {
  const draft = { ...config, prices };
  if (!prices.length) delete draft.prices;
  try {
    await api("PUT", "/api/gateway/config", draft, { "if-match": etag });
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    const errors = (failure.problem.errors ?? []).map((fault) => ({ ...fault, pointer: fault.pointer.replace(`/prices/${place}/`, "/") }));
    throw new Failure({ ...failure.problem, errors });
  }
  location.reload();
}

/** Does something with the prices; what is wrong is said in the dialog. */
async function change(button, what) {
  button.setAttribute("aria-busy", "true");
  try {
    await what(await own());
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    showFaults(form, failure.problem);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

function remove(price) {
  const button = element("button", { type: "button", class: "button small", "aria-label": `Remove the price ${day(price.from)}` }, "Remove");
  const same = (other) => other.deployment === price.deployment && moment(other.from) === moment(price.from);
  button.addEventListener("click", () => change(button, (now) => write(now, now.prices.filter((other) => !same(other)))));
  return button;
}

async function list(deployment) {
  const prices = (await own()).prices.filter((price) => price.deployment === deployment).sort((one, other) => moment(one.from) - moment(other.from));
  if (form.elements.deployment.value !== deployment) return;
  const rows = prices.map((price) => element("li", {}, element("div", { class: "grow" }, `$${price.input_usd} in, $${price.output_usd} out`, element("div", { class: "muted small" }, day(price.from))), remove(price)));
  $("[data-price-list]", dialog).replaceChildren(...rows);
  $("[data-price-own]", dialog).hidden = !rows.length;
  $("[data-price-reset]", dialog).hidden = !rows.length;
}

dialog?.addEventListener("opened", async (event) => {
  const { deployment, input, output, cacheRead, cacheWrite } = event.detail.dataset;
  $("[data-price-of]", dialog).textContent = deployment;
  form.reset();
  form.elements.deployment.value = deployment;
  form.elements.input_usd.value = input ?? "";
  form.elements.output_usd.value = output ?? "";
  form.elements.cache_read_usd.value = cacheRead ?? "";
  form.elements.cache_write_usd.value = cacheWrite ?? "";
  form.elements.cache_write_1h_usd.value = event.detail.getAttribute("data-cache-write-1h") ?? "";
  $("[data-price-own]", dialog).hidden = true;
  $("[data-price-reset]", dialog).hidden = true;
  try {
    await list(deployment);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    showFaults(form, failure.problem);
  }
});

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  change(event.submitter, (now) => {
    const price = gather(form);
    // A hidden field is gathered like any other.
    price.deployment = form.elements.deployment.value;
    // One price holds from a moment on: another of the same moment stands in its place.
    const prices = now.prices.filter((other) => other.deployment !== price.deployment || moment(other.from) !== moment(price.from));
    return write(now, [...prices, price], prices.length);
  });
});

$("[data-price-reset]")?.addEventListener("click", (event) => {
  change(event.currentTarget, (now) => write(now, now.prices.filter((price) => price.deployment !== form.elements.deployment.value)));
});
