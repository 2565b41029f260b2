"use strict";
// Draws what /state says, once a second. Everything is set as text, never as markup: names come from configurations and peers.

const SVG = "http://www.w3.org/2000/svg";
const KEPT = 180;
const history = [];
let last = null;

const byId = (id) => document.getElementById(id);

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(cells) {
  const made = document.createElement("tr");
  for (const [text, kind] of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    if (kind) cell.className = kind;
    made.append(cell);
  }
  return made;
}

function rate(bits) {
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  while (bits >= 1000 && unit < units.length - 1) { bits /= 1000; unit += 1; }
  return bits.toFixed(unit === 0 || bits >= 100 ? 0 : 1) + " " + units[unit] + "bit/s";
}

const kind = (state) => (state === "UP" ? "up" : state === "DOWN" ? "down" : "other");

// Each Child SA's counter, so that one that is replaced does not look like a gap.
function counters(state, key) {
  const all = new Map();
  for (const [name, tunnel] of Object.entries(state.tunnels)) {
    for (const [ike, sa] of Object.entries(tunnel["ike-sas"] || {})) {
      for (const [child, section] of Object.entries(sa["child-sas"] || {})) {
        all.set([name, ike, child].join("\0"), Number(section[key] || 0));
      }
    }
  }
  return all;
}

function rates(before, now, seconds, key) {
  const old = before ? counters(before, key) : new Map();
  const sums = {};
  for (const [place, count] of counters(now, key)) {
    const name = place.split("\0")[0];
    const grown = before ? Math.max(0, count - (old.get(place) || 0)) : 0;
    sums[name] = (sums[name] || 0) + (8 * grown) / seconds;
  }
  return sums;
}

function drops(tunnel) {
  let sum = 0;
  for (const sa of Object.values(tunnel["ike-sas"] || {})) {
    for (const child of Object.values(sa["child-sas"] || {})) {
      for (const side of ["drops-in", "drops-out"]) {
        for (const count of Object.values(child[side] || {})) sum += Number(count);
      }
    }
  }
  return sum;
}

function peer(tunnel) {
  const sa = Object.values(tunnel["ike-sas"] || {})[0];
  return sa ? sa["remote-host"] : ((tunnel.config || {}).remote_addrs || []).join(", ");
}

function children(tunnel) {
  const up = new Set();
  for (const sa of Object.values(tunnel["ike-sas"] || {})) {
    for (const child of Object.values(sa["child-sas"] || {})) if (child.state === "INSTALLED") up.add(child.name);
  }
  const all = Object.keys((tunnel.config || {}).children || {});
  return all.map((name) => (up.has(name) ? name : name + " (down)")).join(", ");
}

function drawLinks(state) {
  const svg = byId("links");
  const tunnels = Object.entries(state.tunnels);
  const peers = new Map();
  for (const [name, tunnel] of tunnels) {
    const at = peer(tunnel) || "?";
    if (!peers.has(at)) peers.set(at, []);
    peers.get(at).push([name, tunnel]);
  }
  const drawn = [];
  const places = [...peers.entries()];
  places.forEach(([address, links], index) => {
    const angle = (2 * Math.PI * index) / places.length - Math.PI / 2;
    const x = 400 + 290 * Math.cos(angle), y = 205 + 150 * Math.sin(angle);
    links.forEach(([name, tunnel], lane) => {
      const off = 12 * (lane - (links.length - 1) / 2);
      const line = element("line", {
        x1: 400 - off * Math.sin(angle), y1: 205 + off * Math.cos(angle),
        x2: x - off * Math.sin(angle), y2: y + off * Math.cos(angle),
        class: "link " + kind(tunnel.state), "data-connection": name,
      });
      line.append(element("title", {}, name + ": " + tunnel.state));
      drawn.push(line);
    });
    drawn.push(element("circle", { cx: x, cy: y, r: 16, class: "node" }));
    drawn.push(element("text", { x, y: y + 34 }, address));
    drawn.push(element("text", { x, y: y + 50 }, links.map(([name]) => name).join(", ")));
  });
  drawn.push(element("circle", { cx: 400, cy: 205, r: 24, class: "node" }));
  drawn.push(element("text", { x: 400, y: 210 }, state.host));
  svg.replaceChildren(...drawn);
}

function drawRates() {
  const svg = byId("rates");
  const most = Math.max(1, ...history.map((point) => Math.max(point.in, point.out)));
  const path = (way) => history.map((point, index) => {
    const x = 800 - (history.length - 1 - index) * (800 / KEPT), y = 210 - (200 * point[way]) / most;
    return (index ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
  }).join(" ");
  svg.replaceChildren(...["in", "out"].map((way) => element("path", { d: path(way), class: way })));
  const now = history[history.length - 1];
  byId("scale").textContent = "in " + rate(now.in) + ", out " + rate(now.out) + ", top of the graph " + rate(most);
}

function show(state) {
  const seconds = last ? Math.max(0.1, (state.at - last.at) / 1000) : 1;
  const incoming = rates(last, state, seconds, "bytes-in"), outgoing = rates(last, state, seconds, "bytes-out");
  const sum = (all) => Object.values(all).reduce((one, other) => one + other, 0);
  if (last) history.push({ in: sum(incoming), out: sum(outgoing) });
  else history.push({ in: 0, out: 0 });
  if (history.length > KEPT) history.shift();
  last = state;

  const tunnels = Object.entries(state.tunnels);
  const up = tunnels.filter(([, tunnel]) => tunnel.state === "UP").length;
  const uptime = ((state.stats || {}).uptime || {}).running || "";
  byId("summary").textContent = state.host + ": " + up + " of " + tunnels.length + " tunnels up, running for " + uptime;
  document.title = up + "/" + tunnels.length + " charon-rs";
  drawLinks(state);
  drawRates();
  byId("tunnels").replaceChildren(...tunnels.map(([name, tunnel]) => row([
    [name], [tunnel.state, "state " + kind(tunnel.state)], [peer(tunnel) || ""], [children(tunnel)],
    [rate(incoming[name] || 0), "number"], [rate(outgoing[name] || 0), "number"], [String(drops(tunnel)), "number"],
  ])));
  const stories = Object.entries(state.stories || {});
  byId("failing").hidden = stories.length === 0;
  byId("stories").replaceChildren(...stories.map(([, story]) => {
    const made = document.createElement("pre");
    made.textContent = story;
    return made;
  }));
  const soon = [...state.expiries].sort((one, other) => one.ends - other.ends).slice(0, 20);
  byId("expiries").replaceChildren(...soon.map((item) => {
    const days = Math.floor((item.ends - state.at / 1000) / 86400);
    return row([[item.subject], [item.kind], [days < 0 ? "ended" : days + " days", "number" + (days < 14 ? " soon" : "")]]);
  }));
  const dropped = Object.entries((state.stats || {}).drops || {});
  byId("drops").replaceChildren(...dropped.map(([reason, count]) => row([[reason], [String(count), "number"]])));
}

async function look() {
  try {
    const answer = await fetch("/state", { cache: "no-store" });
    if (answer.status === 401) { location.reload(); return; }
    const state = await answer.json();
    state.at = Date.now();
    show(state);
  } catch (error) {
    byId("summary").textContent = "the gateway does not answer: " + error.message;
  }
  setTimeout(look, 1000);
}

look();
