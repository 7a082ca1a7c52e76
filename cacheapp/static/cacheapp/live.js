// Says what changed to those who listen, once: a region that is replaced every other second would
// otherwise be read aloud every time. Everything else that moves is htmx's, by attributes.
"use strict";

document.addEventListener("htmx:afterSwap", () => {
  const said = document.getElementById("said");
  const news = document.querySelector("[data-said]");
  if (said && news && said.textContent !== news.dataset.said) {
    said.textContent = news.dataset.said;
  }
});

// A worker that was just replaced, or a network that is gone, is no reason to stop asking.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 422 || event.detail.xhr.status === 409) {
    event.detail.shouldSwap = true; // the form again, with what was wrong
    event.detail.isError = false;
  }
});
