// Keys: shows a secret once, and opens the dialog that a link asks for.

import { $, $$ } from "./kit.js";

/** Shows the secret of an answer; it is nowhere else. */
function reveal({ secret, id, warnings }) {
  for (const open of $$("dialog[open]")) open.close();
  const dialog = $("#secret");
  $("[data-secret]", dialog).textContent = secret;
  const snippet = $("[data-snippet]", dialog);
  snippet.textContent = `curl ${snippet.dataset.url}/v1/models -H "Authorization: Bearer ${secret}"`;
  const said = $("[data-warnings]", dialog);
  said.textContent = (warnings ?? []).join(" ");
  said.hidden = !said.textContent;
  $("[data-go-on]", dialog).href = `/gateway/keys/${encodeURIComponent(id)}`;
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
}

document.addEventListener("api:done", (event) => {
  if (event.target.matches("form[data-new-key]")) reveal(event.detail.answer);
});

if (new URLSearchParams(location.search).has("new")) $("#new-key")?.showModal();
