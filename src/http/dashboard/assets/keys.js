// Keys: shows a secret once, and opens the dialog that a link asks for.

import { $, $$ } from "./kit.js";

/** The model that one tries a key with: the cheapest that costs something and can be talked to, or else any. */
async function modelFor(secret) {
  const response = await fetch("/v1/models", { headers: { authorization: `Bearer ${secret}` } });
  if (!response.ok) return undefined;
  const models = (await response.json()).data.filter((model) => model.mode === "chat");
  const price = (model) => Number(model.pricing?.input_usd ?? 0) + Number(model.pricing?.output_usd ?? 0);
  const priced = models.filter((model) => price(model) > 0).sort((one, other) => price(one) - price(other));
  return (priced[0] ?? models[0])?.id;
}

/** What to paste in order to try a key. */
function command(url, secret, model) {
  if (!model) return `curl ${url}/v1/models -H "Authorization: Bearer ${secret}"`;
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] });
  return [
    `curl ${url}/v1/chat/completions \\`,
    `  -H "Authorization: Bearer ${secret}" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d '${body.replaceAll("'", "'\\''")}'`,
  ].join("\n");
}

/** Shows the secret of an answer; it is nowhere else. */
async function reveal({ secret, id, warnings }) {
  for (const open of $$("dialog[open]")) open.close();
  const dialog = $("#secret");
  $("[data-secret]", dialog).textContent = secret;
  const snippet = $("[data-snippet]", dialog);
  snippet.textContent = command(snippet.dataset.url, secret);
  const said = $("[data-warnings]", dialog);
  said.textContent = (warnings ?? []).join(" ");
  said.hidden = !said.textContent;
  $("[data-go-on]", dialog).href = `/gateway/keys/${encodeURIComponent(id)}`;
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  // A key that is not for this network, or for no model that there is, is tried by asking what it may use.
  const model = await modelFor(secret).catch(() => undefined);
  snippet.textContent = command(snippet.dataset.url, secret, model);
}

document.addEventListener("api:done", (event) => {
  if (event.target.matches("form[data-new-key]")) reveal(event.detail.answer);
});

if (new URLSearchParams(location.search).has("new")) $("#new-key")?.showModal();
