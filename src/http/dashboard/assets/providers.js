// Providers: says what came of a test, and changes one of the organization's own prices.

import { $, Failure, api, element, gather, showFaults, toast } from "./kit.js";

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

dialog?.addEventListener("opened", (event) => {
  const { deployment, own, input, output, cacheRead, cacheWrite } = event.detail.dataset;
  $("[data-price-of]", dialog).textContent = deployment;
  form.reset();
  form.elements.deployment.value = deployment;
  form.elements.input_usd.value = input ?? "";
  form.elements.output_usd.value = output ?? "";
  form.elements.cache_read_usd.value = cacheRead ?? "";
  form.elements.cache_write_usd.value = cacheWrite ?? "";
  $("[data-price-reset]", dialog).hidden = own === undefined;
});

/** Puts a price into the config in the place of those the deployment has, unless somebody else was faster. */
async function save(deployment, price) {
  const { answer: config, response } = await api("GET", "/api/gateway/config");
  const prices = (config.prices ?? []).filter((one) => one.deployment !== deployment);
  if (price) prices.push(price);
  const draft = { ...config, prices };
  if (!prices.length) delete draft.prices;
  try {
    await api("PUT", "/api/gateway/config", draft, { "if-match": response.headers.get("etag") });
  } catch (failure) {
    if (!(failure instanceof Failure) || !price) throw failure;
    // What is wrong is said of the price's place among all; here it is the only one.
    const errors = (failure.problem.errors ?? []).map((fault) => ({ ...fault, pointer: fault.pointer.replace(/^\/prices\/\d+/, "") }));
    throw new Failure({ ...failure.problem, errors });
  }
  location.reload();
}

async function saving(button, deployment, price) {
  button.setAttribute("aria-busy", "true");
  try {
    await save(deployment, price);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    showFaults(form, failure.problem);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const price = gather(form);
  // A hidden field is gathered like any other.
  price.deployment = form.elements.deployment.value;
  saving(event.submitter, price.deployment, price);
});

$("[data-price-reset]")?.addEventListener("click", (event) => {
  saving(event.currentTarget, form.elements.deployment.value, null);
  toast("The list price holds again.");
});
