// Lists that are kept up to date: what somebody has opened stays open, and what is marked begins open.

import { $$ } from "./kit.js";

const open = new Set($$("[data-open-first]").map((part) => part.dataset.openKey));
for (const part of $$("[data-open-first]")) part.open = true;

document.addEventListener("toggle", (event) => {
  const key = event.target.dataset?.openKey;
  if (!key || !event.target.isConnected) return;
  if (event.target.open) open.add(key);
  else open.delete(key);
}, true);

document.addEventListener("live", () => {
  for (const part of $$("[data-open-key]")) part.open = open.has(part.dataset.openKey);
});
