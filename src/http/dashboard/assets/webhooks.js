// Webhooks: what somebody has opened stays open when the list is brought up to date.

import { $$ } from "./kit.js";

const open = new Set();

document.addEventListener("toggle", (event) => {
  const key = event.target.dataset?.openKey;
  if (!key || !event.target.isConnected) return;
  if (event.target.open) open.add(key);
  else open.delete(key);
}, true);

document.addEventListener("live", () => {
  for (const part of $$("[data-open-key]")) part.open = open.has(part.dataset.openKey);
});
