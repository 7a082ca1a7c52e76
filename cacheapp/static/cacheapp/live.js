// What htmx attributes cannot do: keep what a person did to a page while its figures change, say
// that they are old, and show which button works.
"use strict";

// A morph keeps each <details> and each checkbox as the reader left it.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(name === "open" && node.nodeName === "DETAILS") && !(name === "checked" && node.nodeName === "INPUT");

// Regions with data-live are requested again and again; the value is the expected number of seconds
// between two responses.
const LATE_FACTOR = 3;
const LATE_MS = 6000;
let lastGood = Date.now();

function setConnected(isConnected) {
  const bar = document.getElementById("offline");
  if (isConnected) {
    lastGood = Date.now();
    bar.hidden = true;
  } else if (bar.hidden) {
    const since = new Date(lastGood).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    bar.textContent = `Not connected since ${since}; these figures are old.`;
    bar.hidden = false;
  }
}

document.addEventListener("htmx:afterRequest", (event) => {
  const { elt, successful, requestConfig } = event.detail;
  if (requestConfig.verb === "get" && elt.matches("[data-live]")) {
    setConnected(successful);
  }
});

document.addEventListener("visibilitychange", () => {
  lastGood = Date.now(); // a hidden tab makes no requests
});

setInterval(() => {
  const region = document.querySelector("[data-live][hx-trigger*='every']");
  const expected = region === null ? 0 : Number(region.dataset.live) * 1000;
  if (expected && !document.hidden && Date.now() - lastGood > LATE_FACTOR * expected + LATE_MS) {
    setConnected(false);
  }
}, 1000);

// Buttons are outside of the regions that change. A region says in data-can which of them apply.
function showPossibleButtons() {
  const regions = [...document.querySelectorAll("[data-can]")];
  const possible = new Set(regions.flatMap((region) => region.dataset.can.split(" ")));
  for (const button of document.querySelectorAll("button[data-when]")) {
    const had = document.activeElement === button;
    button.hidden = !possible.has(button.dataset.when);
    if (had && button.hidden) {
      button.form.querySelector("button:not([hidden])")?.focus(); // the keyboard stays in its place
    }
  }
}

// Only the pressed button is disabled while its request runs.
function submitter(event) {
  return event.detail.requestConfig.triggeringEvent?.submitter;
}

function setWorking(button, isWorking) {
  button.disabled = isWorking;
  button.toggleAttribute("aria-busy", isWorking);
  if (isWorking) {
    button.setAttribute("aria-busy", "true");
  }
}

document.addEventListener("htmx:beforeSend", (event) => {
  const button = submitter(event);
  if (button) {
    document.getElementById("refusal")?.replaceChildren();
    setWorking(button, true);
  }
});

document.addEventListener("htmx:afterRequest", (event) => {
  const button = submitter(event);
  if (button) {
    const hadFocus = document.activeElement === document.body;
    setWorking(button, false);
    if (hadFocus && !button.hidden) {
      button.focus(); // a disabled button loses it
    }
  }
});

document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (button && !event.target.hasAttribute("hx-post")) {
    setTimeout(() => setWorking(button, true)); // later, or its value would not be sent
  }
});

addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[aria-busy]")) {
    setWorking(button, false); // the page came back from the browser's history
  }
  lastGood = Date.now();
});

// Exact times in the time zone of the reader, on hover.
function showLocalTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

// Announce changes to screen readers, once each: a region that changes every two seconds would
// otherwise be read aloud every time.
function announce() {
  const target = document.getElementById("announcement");
  const source = document.querySelector("[data-announcement]");
  if (target && source && target.textContent !== source.dataset.announcement) {
    target.textContent = source.dataset.announcement;
  }
}

document.addEventListener("htmx:afterSwap", () => {
  announce();
  showPossibleButtons();
  showLocalTimes();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) {
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      button.textContent = "Copied";
    });
  }
});

// Show the reason of a refused press, which htmx would discard as an error.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.getResponseHeader("HX-Retarget") === "#refusal") {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});

showPossibleButtons();
showLocalTimes();
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard; // only with JavaScript, and in a secure context
}
