// Says what changed to those who listen, once: a region that is replaced every other second would
// otherwise be read aloud every time. Everything else that moves is htmx's, by attributes.
"use strict";

document.addEventListener("htmx:afterSwap", () => {
  const target = document.getElementById("announcement");
  const source = document.querySelector("[data-announcement]");
  if (target && source && target.textContent !== source.dataset.announcement) {
    target.textContent = source.dataset.announcement;
  }
});

// A worker that was just replaced, or a network that is gone, is no reason to stop asking.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 422 || event.detail.xhr.status === 409) {
    event.detail.shouldSwap = true; // the form again, with what was wrong
    event.detail.isError = false;
  }
});
