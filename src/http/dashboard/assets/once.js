// What is shown once: a form or a button with data-once="name" has the answer's member of that name shown in #once.

import { $, $$ } from "./kit.js";

document.addEventListener("api:done", (event) => {
  const name = event.target.dataset?.once;
  if (!name) return;
  const shown = event.detail.answer?.[name];
  // There is none for somebody who signs in elsewhere.
  if (!shown) {
    location.reload();
    return;
  }
  for (const open of $$("dialog[open]")) open.close();
  const dialog = $("#once");
  $("#once-text", dialog).textContent = shown;
  const done = $("[data-once-done]", dialog);
  const next = event.target.dataset.onceGo;
  done.href = next ? next.replace("{id}", encodeURIComponent(event.detail.answer.id)) : location.href;
  dialog.addEventListener("cancel", (cancelled) => cancelled.preventDefault());
  dialog.showModal();
});
