// What htmx attributes cannot do: keep what a person did to a page while its figures change, say
// that they are old, and show which button works.
"use strict";

// A morph keeps each <details> and each checkbox as the reader left it.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(name === "open" && node.nodeName === "DETAILS") && !(name === "checked" && node.nodeName === "INPUT");

// Regions with data-live are updated again and again; the value is the expected number of seconds
// between two updates.
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
  const { elt, successful, requestConfig, xhr } = event.detail;
  if (requestConfig.verb === "get" && elt.matches("[data-live]")) {
    if (xhr.status === 404) {
      location.reload(); // what the page shows was removed: the browser shows the page that says so
    }
    setConnected(successful);
  }
});

// A region with data-events names a stream of server-sent events. It is open only while the page is
// visible: each stream occupies a thread of the server, and one of the browser's few connections.
const REOPEN_MS = 5000;
let stream = null; // { url, source }

function followEvents() {
  const region = document.querySelector("[data-events]");
  const url = region === null || document.hidden ? null : region.dataset.events;
  if (stream !== null && stream.url !== url) {
    stream.source.close();
    stream = null;
  }
  if (url !== null && stream === null) {
    openStream(url);
  }
}

function openStream(url) {
  const source = new EventSource(url);
  stream = { url, source };
  source.addEventListener("overview", (event) => {
    const region = document.getElementById("overview");
    const swapSpec = { swapStyle: "morph:outerHTML", swapDelay: 0, settleDelay: 0 };
    htmx.swap(region, JSON.parse(event.data).html, swapSpec, { contextElement: region });
    setConnected(true);
  });
  source.addEventListener("job", () => htmx.trigger(document.body, "event-job"));
  for (const name of ["end", "gone"]) {
    source.addEventListener(name, () => {
      source.close(); // it stays in `stream`: the region says when there is another one
      htmx.trigger(document.body, "event-end");
    });
  }
  source.addEventListener("error", () => {
    // The browser connects again by itself, unless the server refused the stream.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => {
        if (stream !== null && stream.source === source) {
          stream = null;
          followEvents();
        }
      }, REOPEN_MS);
    }
  });
}

// While no event comes, the region that waits for them requests its figures.
let lastPoll = 0;

function pollWithoutEvents() {
  const region = document.querySelector("[data-events][hx-trigger='poll']");
  const expected = region === null ? 0 : Number(region.dataset.live) * 1000;
  const isDue = Date.now() - Math.max(lastGood + expected / 2, lastPoll) > expected;
  if (expected && isDue) {
    lastPoll = Date.now();
    htmx.trigger(region, "poll");
  }
}

document.addEventListener("visibilitychange", () => {
  lastGood = Date.now(); // a hidden page is not updated
  followEvents();
});

document.addEventListener("htmx:beforeRequest", (event) => {
  const isFollowed = document.querySelector("[data-events]") !== null;
  if (document.hidden && isFollowed && event.detail.requestConfig.verb === "get") {
    event.preventDefault();
  }
});

setInterval(() => {
  const region = document.querySelector("[data-live][hx-trigger*='every'], [data-live][data-events]");
  const expected = region === null ? 0 : Number(region.dataset.live) * 1000;
  if (document.hidden || !expected) {
    return;
  }
  pollWithoutEvents();
  if (Date.now() - lastGood > LATE_FACTOR * expected + LATE_MS) {
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
  if (stream !== null && stream.source.readyState === EventSource.CLOSED) {
    stream = null; // closed while the page was in the history
  }
  followEvents();
});

// Exact times in the time zone of the reader: the text of those with data-exact, and on hover of "3 min ago".
const EXACT = new Intl.DateTimeFormat([], {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});

function showLocalTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const exact = EXACT.format(new Date(time.dateTime));
    if (!("exact" in time.dataset)) {
      time.title = exact;
    } else if (time.textContent !== exact) {
      time.textContent = exact;
    }
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
  followEvents();
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
followEvents();
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard; // only with JavaScript, and in a secure context
}
