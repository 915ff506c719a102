// The server writes the page, whole or in parts; this puts new parts in place without taking away focus, selection or
// what is unfolded, and shows figures of the heat map's cells. Nothing here knows how a part is drawn.
"use strict";

const POLL_MS = 5000;
const TYPING_MS = 250;
const PATIENCE_MS = 4000;

const view = document.getElementById("view");
const live = document.getElementById("live");
document.documentElement.classList.add("js");

// Parts

/** Makes the children of `old` those of `fresh`, keeping nodes that stay. */
function morph(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, index) => {
    const there = old.childNodes[index];
    if (!there) {
      old.append(node);
    } else if (there.nodeType !== node.nodeType || there.nodeName !== node.nodeName || there.id !== node.id) {
      there.replaceWith(node);
    } else if (node.nodeType !== Node.ELEMENT_NODE) {
      if (there.data !== node.data) there.data = node.data;
    } else if (!there.isEqualNode(node)) {
      if (there !== document.activeElement) morphAttributes(there, node);
      // What was written by the script itself.
      if (there.id !== "card") morph(there, node);
    }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

/** All but what the reader has changed: `open` of details, values of fields. */
function morphAttributes(there, node) {
  const own = there.id === "card" ? ["hidden"] : there.nodeName === "DETAILS" ? ["open"] : [];
  for (const { name } of [...there.attributes]) {
    if (!node.hasAttribute(name) && !own.includes(name)) there.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (!own.includes(name) && there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
}

function put(id, html) {
  const element = document.getElementById(id);
  if (!element) return;
  const template = document.createElement("template");
  template.innerHTML = html;
  morph(element, template.content);
  if (id === "heat") heat.renewed();
}

/** Another view: the document as the server writes it for that. */
async function load(query) {
  const answer = await fetch("/" + query, { headers: { accept: "text/html" } });
  if (!answer.ok) {
    // Somebody has to log in again.
    if (answer.status === 401) location.reload();
    throw new Error(String(answer.status));
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["view", "main"]) morph(document.getElementById(id), document.adoptNode(fresh.getElementById(id)));
  for (const id of ["summary", "alert"]) put(id, fresh.getElementById(id).innerHTML);
  // A select keeps what was chosen unless told: the server may have found another value better.
  for (const select of document.querySelectorAll("select")) {
    if (select === document.activeElement) continue;
    const chosen = select.querySelector("option[selected]");
    select.value = chosen ? chosen.value : select.options.length ? select.options[0].value : "";
  }
  heat.renewed();
}

// Live updates

let events = null;
let timer = 0;

function query() {
  const pairs = [...new FormData(view)].filter(([name, value]) => {
    return value !== "" && !(name === "brightness" && value === "0");
  });
  const keys = new URLSearchParams(location.search).get("keys");
  if (keys) pairs.push(["keys", keys]);
  return "?" + new URLSearchParams(pairs);
}

function say(state, text) {
  live.className = state;
  if (live.textContent !== text) live.textContent = text;
}

function listen() {
  stop();
  events = new EventSource("/page/events" + query());
  events.addEventListener("parts", (event) => {
    clearTimeout(timer);
    for (const [id, html] of Object.entries(JSON.parse(event.data))) put(id, html);
    say("on", "live");
  });
  events.addEventListener("error", () => {
    // A stream ends each minute and is begun anew; where it is refused, others have all places.
    if (events && events.readyState === EventSource.CLOSED) {
      stop();
      poll();
    } else {
      clearTimeout(timer);
      timer = setTimeout(() => say("off", "keyway does not answer"), PATIENCE_MS);
    }
  });
}

function stop() {
  clearTimeout(timer);
  if (events) events.close();
  events = null;
}

async function poll() {
  try {
    await load(query());
    say("", "every few seconds: all live places are taken");
  } catch {
    say("off", "keyway does not answer");
  }
  timer = setTimeout(() => (document.hidden ? poll() : listen()), POLL_MS);
}

document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", (event) => {
  if (event.persisted) listen();
});

// What is shown

let turns = 0;

async function changed() {
  const [wanted, turn] = [query(), ++turns];
  history.replaceState(null, "", wanted === "?" ? location.pathname : wanted);
  stop();
  try {
    await load(wanted);
    if (turn === turns) listen();
  } catch {
    poll();
  }
}

let typing = 0;
document.addEventListener("submit", (event) => {
  if (event.target === view) {
    event.preventDefault();
    changed();
  } else if (event.target.id === "theme") {
    event.preventDefault();
    choose(event.submitter ? event.submitter.value : "auto");
  }
});
document.addEventListener("input", (event) => {
  if (event.target.form !== view) return;
  if (event.target.name === "brightness") {
    heat.brighten(Number(event.target.value));
    return;
  }
  clearTimeout(typing);
  typing = setTimeout(changed, event.target.type === "search" ? TYPING_MS : 0);
});
document.addEventListener("change", (event) => {
  if (event.target.name === "brightness") changed();
  if (event.target.name === "database") {
    for (const name of ["shard", "map"]) {
      if (view.elements[name]) view.elements[name].value = "";
    }
  }
});

function choose(theme) {
  const age = theme === "auto" ? 0 : 31536000;
  document.cookie = `keyway_theme=${theme}; Path=/; SameSite=Strict; Max-Age=${age}`;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const button of document.querySelectorAll("#theme button")) {
    button.setAttribute("aria-pressed", String(button.value === theme));
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).textContent;
  button.textContent = (await copy(text)) ? "Copied" : "Select it";
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

/** Browsers have a clipboard for secure contexts alone; elsewhere a selection is copied. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// Heat map

const heat = {
  data: null,
  source: "",
  at: null,
  cursor: null,

  get plot() {
    return document.querySelector(".plot");
  },

  /** The part was drawn anew: figures are old, the reader's cell stays. */
  renewed() {
    this.data = null;
    const slider = view.elements.brightness;
    if (slider) this.brighten(Number(slider.value));
    if (this.at && this.plot) this.show(this.at.row, this.at.column);
    else if (!this.plot) this.at = null;
  },

  brighten(by) {
    for (const element of document.querySelectorAll("#heat [data-level]")) {
      const level = Math.max(0, Math.min(15, Number(element.dataset.level) + by));
      element.setAttribute("class", "h" + level);
    }
  },

  async figures() {
    const source = this.plot.dataset.source;
    if (this.data && this.source === source) return this.data;
    const answer = await fetch(source);
    if (!answer.ok) return null;
    this.source = source;
    this.data = await answer.json();
    return this.data;
  },

  /** The figures of a cell, and a frame around it. */
  async show(row, column) {
    const plot = this.plot;
    const [rows, columns] = [Number(plot.dataset.rows), Number(plot.dataset.columns)];
    row = Math.max(0, Math.min(rows - 1, row));
    column = Math.max(0, Math.min(columns - 1, column));
    this.at = { row, column };
    this.frame(row, column);
    let figures = null;
    try {
      figures = await this.figures();
    } catch {
      // The card keeps what it has.
    }
    if (!figures || !this.at || this.at.row !== row || this.at.column !== column) return;
    this.tell(figures, row, column);
  },

  frame(row, column) {
    const cells = this.plot.querySelector(".cells");
    if (!this.cursor || !this.cursor.isConnected) {
      this.cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      this.cursor.setAttribute("class", "cursor");
      this.cursor.setAttribute("width", "1");
      this.cursor.setAttribute("height", "1");
      cells.append(this.cursor);
    }
    this.cursor.setAttribute("x", String(column));
    this.cursor.setAttribute("y", String(row));
  },

  tell(figures, row, column) {
    const card = document.getElementById("card");
    // The picture begins where something was recorded.
    const from = Number(this.plot.dataset.from);
    column += Math.max(0, figures.columns.findIndex((it) => it.from_s === from));
    const [range, time] = [figures.rows[row], figures.columns[column]];
    if (!card || !range || !time) return;
    const value = figures.cells[row][column];
    const sum = (cells) => cells.reduce((total, it) => total + (it || 0), 0);
    const now = sum(figures.cells.map((it) => it[column]));
    const all = sum(figures.cells.map(sum));
    const lines = [
      [["b", range.name], ["", ` on shard ${range.shard}, ${clock(time.from_s)} to ${clock(time.to_s)} UTC`]],
      [
        ["b", value === null ? "nothing was recorded" : `${number(value)} ${figures.unit}`],
        ["", value === null ? "" : `, ${percent(value, now)} of that time`],
      ],
      [["", `over the whole time: ${percent(sum(figures.cells[row]), all)} of ${figures.metric}`]],
    ];
    card.replaceChildren(
      ...lines.map((line) => {
        const element = document.createElement("div");
        for (const [tag, text] of line) {
          const child = tag ? document.createElement(tag) : document.createTextNode(text);
          if (tag) child.textContent = text;
          element.append(child);
        }
        return element;
      }),
    );
    card.hidden = false;
  },

  leave() {
    this.at = null;
    if (this.cursor) this.cursor.remove();
    const card = document.getElementById("card");
    if (card) card.hidden = true;
  },

  place(event) {
    const plot = event.target.closest && event.target.closest(".plot");
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * Number(plot.dataset.columns));
    const row = Math.floor(((event.clientY - box.top) / box.height) * Number(plot.dataset.rows));
    if (!this.at || this.at.row !== row || this.at.column !== column) this.show(row, column);
  },

  key(event) {
    if (!event.target.classList || !event.target.classList.contains("plot")) return;
    const [rows, columns] = [Number(event.target.dataset.rows), Number(event.target.dataset.columns)];
    const at = this.at || { row: 0, column: columns };
    const page = Math.max(1, Math.round(columns / 10));
    const moves = {
      ArrowLeft: [at.row, at.column - 1],
      ArrowRight: [at.row, at.column + 1],
      ArrowUp: [at.row - 1, at.column],
      ArrowDown: [at.row + (this.at ? 1 : 0), at.column],
      PageUp: [at.row, at.column - page],
      PageDown: [at.row, at.column + page],
      Home: [0, at.column],
      End: [rows - 1, at.column],
    };
    if (event.key === "Escape") {
      this.leave();
    } else if (moves[event.key]) {
      event.preventDefault();
      this.show(...moves[event.key]);
    }
  },
};

document.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "touch") heat.place(event);
});
document.addEventListener("click", (event) => heat.place(event));
document.addEventListener("keydown", (event) => heat.key(event));

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
const percent = (part, whole) => (whole > 0 ? `${((part / whole) * 100).toFixed(1)} %` : "0.0 %");
const clock = (at) => new Date(at * 1000).toISOString().slice(11, 19);

if (!document.hidden) listen();
