// Budgets and limits: shows the field that goes with a scope, and fills the dialogs that change something.

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

// A dialog begins with what there is, each time it is opened.
document.addEventListener("opened", ({ target, detail: button }) => {
  const form = $("form[data-edits]", target);
  if (!form || !button.dataset.values) return;
  form.elements._id.value = button.dataset.id;
  $("[data-edits-whom]", form).textContent = button.dataset.whom;
  for (const [name, value] of Object.entries(JSON.parse(button.dataset.values))) {
    const field = form.elements[name];
    if (field.type === "checkbox") field.checked = value;
    else field.value = value;
  }
});

for (const list of $$("datalist[data-zones]")) {
  for (const zone of ["UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])]) list.append(element("option", { value: zone }));
}

const wanted = new URLSearchParams(location.search).get("new");
if (wanted === "budget" || wanted === "limit") {
  $(`#new-${wanted}`)?.showModal();
  // Once it is saved the page is loaded anew, without the dialog.
  history.replaceState(null, "", location.pathname);
}
