// Announces changes to screen readers, once each: a region that is replaced every two seconds would
// otherwise be read aloud every time. All other updates are htmx attributes.
"use strict";

document.addEventListener("htmx:afterSwap", () => {
  const target = document.getElementById("announcement");
  const source = document.querySelector("[data-announcement]");
  if (target && source && target.textContent !== source.dataset.announcement) {
    target.textContent = source.dataset.announcement;
  }
});

// Show the page of a 422 or 409, which htmx would discard as an error.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 422 || event.detail.xhr.status === 409) {
    event.detail.shouldSwap = true; // the form with its errors
    event.detail.isError = false;
  }
});
