// Everything works without this file; it only spares the reader work.
"use strict";

// Moments in the reader's own zone; the server's UTC stays in the title.
const zoned = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
function localise(root) {
  for (const time of root.querySelectorAll("time[data-moment]")) {
    time.textContent = zoned.format(new Date(time.dateTime));
  }
}

// Live parts ask for themselves while the page is seen, nothing in them is selected or has the
// focus, and there is something left to happen.
function refreshable(part) {
  const chosen = window.getSelection();
  return (
    document.visibilityState === "visible" &&
    !part.querySelector("[data-final]") &&
    !part.querySelector("input:checked:not([name=dependants])") &&
    !part.contains(document.activeElement?.closest("form, summary") ?? null) &&
    !(chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode))
  );
}

function keepFresh(part) {
  const seconds = Number(part.dataset.refresh);
  window.setInterval(() => refreshable(part) && htmx.trigger(part, "refresh"), seconds * 1000);
}

// "Select page" and the count of what is selected.
function showSelected(form) {
  const boxes = [...form.querySelectorAll("input[name=task]")];
  const chosen = boxes.filter((box) => box.checked).length;
  const place = form.querySelector("[data-selected]");
  if (place) place.textContent = chosen ? `${chosen} selected` : "";
  const all = form.querySelector("[data-select-all]");
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
  }
}

document.addEventListener("change", (event) => {
  const form = event.target.closest("form.selection");
  if (!form) return;
  if (event.target.matches("[data-select-all]")) {
    for (const box of form.querySelectorAll("input[name=task]")) box.checked = event.target.checked;
  }
  showSelected(form);
});

document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
// A fragment that swaps in keeps open what the reader had opened.
document.addEventListener("htmx:beforeSwap", (event) => {
  const open = [...event.detail.target.querySelectorAll("details")].map((part) => part.open);
  event.detail.target.addEventListener(
    "htmx:afterSettle",
    () => {
      const parts = [...event.detail.target.querySelectorAll("details")];
      if (parts.length === open.length) parts.forEach((part, n) => (part.open = open[n]));
    },
    { once: true },
  );
});

document.documentElement.classList.add("js");
localise(document);
document.querySelectorAll("[data-refresh]").forEach(keepFresh);
document.querySelectorAll("form.selection").forEach(showSelected);
