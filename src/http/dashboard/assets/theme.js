// Runs before anything is painted: the theme that was chosen, so that no page flashes in the other one.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("bonito-theme");
  } catch {
    // Storage is switched off: the system's theme it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  document.documentElement.classList.add("js");
})();
