// Budgets and limits: shows the field that goes with a scope.

import { $, $$, element } from "./kit.js";

/** Shows what goes with the chosen scope; the field that says which one is sent under its name, the others are not. */
function follow(select) {
  for (const part of $$("[data-scope-for]", select.form)) {
    part.hidden = !part.dataset.scopeFor.split(" ").includes(select.value);
    for (const field of $$("[data-reference]", part)) field.name = part.hidden ? "_reference" : "reference";
  }
}

for (const select of $$("select[data-scope]")) {
  select.addEventListener("change", () => follow(select));
  follow(select);
}

for (const list of $$("datalist[data-zones]")) {
  for (const zone of ["UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])]) list.append(element("option", { value: zone }));
}

const wanted = new URLSearchParams(location.search).get("new");
if (wanted === "budget" || wanted === "limit") {
  $(`#new-${wanted}`)?.showModal();
  // Once it is saved the page is loaded anew, without the dialog.
  history.replaceState(null, "", location.pathname);
}
