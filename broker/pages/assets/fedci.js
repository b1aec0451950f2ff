// Live pages. Everything is there without this script; it only keeps what is shown fresh and follows a growing log.
// Text from the server's events is only ever set as text; pages are taken apart by DOMParser, which runs nothing.
"use strict";

const LOG_NODES = 20000;

function wrote(milliseconds) {
  const seconds = Math.max(0, milliseconds / 1000);
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  for (const [size, unit, smaller, name] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit} ${two(Math.floor((whole % size) / smaller))} ${name}`;
  }
  return `${whole} s`;
}

const seenAt = new WeakMap();

// Count on from what the server said, whatever this machine's clock shows.
function tick() {
  for (const element of document.querySelectorAll("[data-elapsed]")) {
    if (!seenAt.has(element)) seenAt.set(element, performance.now());
    element.textContent = wrote(Number(element.dataset.elapsed) * 1000 + performance.now() - seenAt.get(element));
  }
}

let refreshing = null;

// Fetch this page again and exchange the parts that are marked to be.
function refresh() {
  refreshing = refreshing || load().finally(() => { refreshing = null; });
  return refreshing;
}

async function load() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.redirected || answer.status === 401) return location.reload();
  if (!answer.ok) return undefined;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const live = document.getElementById("live");
  const attempt = fresh.getElementById("live")?.dataset.attempt;
  if (live && attempt !== undefined && attempt !== live.dataset.attempt) return location.reload();
  for (const part of document.querySelectorAll("[data-refresh]")) {
    const other = fresh.getElementById(part.id);
    if (other) part.replaceWith(document.adoptNode(other));
  }
  document.title = fresh.title;
  tick();
  return undefined;
}

function isAtEnd(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < 40;
}

function append(box, pieces) {
  const wasAtEnd = isAtEnd(box);
  for (const [text, classes] of pieces) {
    if (!classes) {
      box.append(text);
      continue;
    }
    const span = document.createElement("span");
    span.className = classes;
    span.textContent = text;
    box.append(span);
  }
  while (box.childNodes.length > LOG_NODES) box.firstChild.remove();
  if (wasAtEnd) box.scrollTop = box.scrollHeight;
}

function listen(url, log) {
  const source = new EventSource(url);
  source.addEventListener("changed", refresh);
  source.addEventListener("log", (event) => append(log, JSON.parse(event.data)));
  source.addEventListener("end", async () => {
    source.close();
    document.getElementById("follow-state")?.remove();
    await refresh();
    // The log may be over before its run is.
    const rest = document.getElementById("live")?.dataset.live;
    if (log && rest) listen(rest, null);
  });
  return source;
}

function start() {
  const log = document.getElementById("log");
  const stream = log?.dataset.stream;
  if (stream) {
    log.scrollTop = log.scrollHeight;
    document.getElementById("follow-state").hidden = false;
  }
  const url = stream || document.getElementById("live")?.dataset.live;
  if (url) listen(url, stream ? log : null);
  const polled = document.querySelector("[data-poll]");
  if (polled) setInterval(() => document.hidden || refresh(), Number(polled.dataset.poll) * 1000);
  setInterval(tick, 1000);
}

start();
