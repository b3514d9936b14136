/**
 * Puts the page together, and shows what comes.
 */

import { Charts } from "./charts.js";
import { formatCount, formatMicros, formatPercent, formatSeconds, formatSize, sizeParts } from "./format.js";
import { Maps } from "./maps.js";
import { Samples } from "./samples.js";
import { keepToken, listen, takeToken } from "./stream.js";

const messagesMax = 200;
const levels = {
  serving: "good",
  draining: "busy",
  "read-only": "wary",
  stopping: "wary",
  degraded: "bad",
  poisoned: "bad",
};
const windows = [[60, "1 min"], [300, "5 min"], [1800, "30 min"], [3600, "1 h"]];
const kinds = ["read", "write", "flush", "trim", "zero"];

const element = (id) => document.getElementById(id);

const samples = new Samples();
let charts;
let maps;

function begin() {
  element("content").hidden = false;
  if (charts !== undefined) return;
  charts = new Charts(element("charts"), samples);
  maps = new Maps();
}

function setState(state) {
  document.body.dataset.state = state;
}

function setText(id, text) {
  // Only what changes, so that a screen reader does not read the same again every second.
  const place = element(id);
  if (place.textContent !== text) place.textContent = text;
}

function makeWindows() {
  const buttons = windows.map(([seconds, text]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-pressed", String(seconds === windows[0][0]));
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      if (charts !== undefined) charts.seconds = seconds;
    });
    return button;
  });
  element("windows").append(...buttons);
}

/** A number with its unit, and what it is. */
function tile(value, unit, name) {
  const box = document.createElement("div");
  box.className = "tile";
  const number = document.createElement("b");
  number.append(value);
  if (unit !== "") {
    const small = document.createElement("small");
    small.textContent = unit;
    number.append(small);
  }
  const label = document.createElement("span");
  label.textContent = name;
  label.title = name;
  box.append(number, label);
  return box;
}

function rateTile(bytes, name) {
  if (bytes === null) return tile("–", "", name);
  const [value, unit] = sizeParts(bytes);
  return tile(value, `${unit}/s`, name);
}

function showTiles(status) {
  const { cache, writeback } = status;
  const [dirty, dirtyUnit] = sizeParts((cache.dirtyBlocks + cache.zeroBlocks) * 4096);
  const eta = writeback.etaSeconds === null ? "" : `, ${formatSeconds(writeback.etaSeconds)} to go`;
  const flush = samples.latest("flushMicros");
  const requests = samples.latest("requests");
  const readOnly = status.state === "read-only";
  element("tiles").replaceChildren(
    rateTile(samples.latest("written"), "clients write"),
    rateTile(samples.latest("read"), "clients read"),
    tile(requests === null ? "–" : formatCount(requests), "/s", "requests"),
    tile(...(flush === null ? ["–", ""] : formatMicros(flush).split(" ")), "flush, 99 of 100"),
    tile(dirty, dirtyUnit, `dirty${eta}`),
    readOnly ? tile("–", "", "log: read-only") : tile(
      ...formatPercent(cache.freeSegments / cache.segments).split(/ (?=%)/),
      `log free, ${formatSize(cache.freeSegments * cache.segmentBytes)}`,
    ),
  );
}

function showRequests({ requests, latencyMicros, bytes }) {
  element("requests").replaceChildren(...kinds.map((kind) => {
    const row = document.createElement("tr");
    const { p50, p99, max } = latencyMicros[kind];
    const times = [p50, p99, max].map((micros) => requests[kind] === 0 ? "–" : formatMicros(micros));
    for (const text of [kind, formatCount(requests[kind]), ...times]) row.insertCell().textContent = text;
    return row;
  }));
  setText(
    "errors",
    `Clients read ${formatSize(bytes.read)} and wrote ${formatSize(bytes.written)}; ${
      requests.error === 0 ? "no request failed" : `${formatCount(requests.error)} requests failed`
    }.`,
  );
}

/** What the backing device would be without the cache, in prefix order. */
function pointText({ sequence, at, toSequence, toAt, lackingBlocks }) {
  const name = (number, time) => `flush point ${number} of ${new Date(time).toLocaleString()}`;
  if (sequence === null) return "not known before the first step is done";
  const lacking = lackingBlocks === 0 ? "" : `, but for ${formatCount(lackingBlocks)} blocks`;
  if (toSequence === null) return `at ${name(sequence, at)}${lacking}`;
  return `between ${name(sequence, at)} and ${name(toSequence, toAt)}${lacking}`;
}

function facts(status) {
  const { backing, cache, blocks, log, writeback, bytes } = status;
  const reads = blocks.readHit + blocks.readMiss;
  return [
    ["backing", `${backing.target}, ${formatSize(backing.sizeBytes)}`],
    ["cache", `${cache.path}, ${formatSize(cache.sizeBytes)}`],
    ["memory", `${formatSize(cache.ramBytes)} for index and log`],
    [
      "reads",
      reads === 0 ? "none yet" : `${formatPercent(blocks.readHit / reads)} of blocks came from RAM or log`,
    ],
    [
      "log",
      `${formatSize(bytes.log)} in ${formatCount(log.records)} records` +
      (log.flushesPerSync === 0 ? "" : `, ${Number(log.flushesPerSync.toFixed(1))} flushes a sync`),
    ],
    [
      "write-back",
      `${writeback.mode}; ${formatSize(bytes.writeback)} so far` +
      (writeback.requests === 0 ? "" : `, ${Number(writeback.blocksPerRequest.toFixed(1))} blocks a request`),
    ],
    ...(writeback.point ? [["backing alone", pointText(writeback.point)]] : []),
    ["i/o", `${status.io}: ${status.ioReason}`],
    ["version", status.version],
  ];
}

function showFacts(status) {
  element("facts").replaceChildren(
    ...facts(status).flatMap(([name, text]) => {
      const term = document.createElement("dt");
      const description = document.createElement("dd");
      term.textContent = name;
      description.textContent = text;
      return [term, description];
    }),
  );
}

function showStatus(status) {
  begin();
  setState("live");
  samples.add(status, Date.now() / 1000);
  element("token").hidden = true;
  const pill = element("state");
  pill.dataset.level = levels[status.state] ?? "idle";
  setText("state", status.state);
  const clients = `${status.clients} ${status.clients === 1 ? "client" : "clients"}`;
  setText("sub", `${clients}, up ${formatSeconds(status.uptimeSeconds)}`);
  setText("meaning", status.meaning);
  document.title = `${status.state} – ${status.backing.target.replace(/^.*\/(?=.)/, "")} – nbdboost`;
  if (document.hidden) return;
  showTiles(status);
  charts.update();
  showRequests(status);
  showFacts(status);
}

let firstMessage = true;

function showMessage({ time, level, message }) {
  begin();
  const list = element("messages");
  if (firstMessage) list.replaceChildren();
  firstMessage = false;
  const item = document.createElement("li");
  item.dataset.level = level;
  const when = document.createElement("time");
  when.dateTime = time;
  when.textContent = new Date(time).toLocaleTimeString([], { hour12: false });
  item.append(when, message);
  list.prepend(item);
  while (list.children.length > messagesMax) list.lastElementChild.remove();
}

let awaySince;

function showAway(reason) {
  if (document.body.dataset.state !== "away") awaySince = Date.now();
  setState("away");
  element("state").dataset.level = "bad";
  setText("state", "no answer");
  const since = formatSeconds((Date.now() - awaySince) / 1000);
  setText(
    "meaning",
    `The server has not answered for ${since}. ${reason} Trying again; what is below is old.`,
  );
  document.title = "no answer – nbdboost";
}

/** Resolves when somebody has given a token. */
function wantToken() {
  setState("token");
  element("content").hidden = true;
  element("state").dataset.level = "wary";
  setText("state", "token wanted");
  setText("meaning", "Nothing is shown without the token of this server.");
  element("token-wrong").hidden = takeToken() === null;
  keepToken(null);
  element("token").hidden = false;
  element("token-text").focus();
  return new Promise((resolve) => {
    const take = (event) => {
      event?.preventDefault();
      const text = element("token-text").value.trim();
      if (event !== null && text === "") return;
      element("token-text").value = "";
      if (text !== "") keepToken(text);
      element("token").removeEventListener("submit", take);
      removeEventListener("hashchange", fromAddress);
      resolve();
    };
    const fromAddress = () => {
      if (takeToken() !== null) take(null);
    };
    element("token").addEventListener("submit", take);
    addEventListener("hashchange", fromAddress);
  });
}

makeWindows();
listen({
  status: showStatus,
  map: (map) => maps.update(map),
  message: showMessage,
  away: showAway,
  tokenWanted: wantToken,
});
