"use strict";
// The list of traces: filter, sort, links, keys. Traces come as escaped HTML from the template; everything that is put
// together here goes in as text.
(async () => {
  const SHOWN = 50, MOST_BESIDE = 4;
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  async function unpack(id) {
    const letters = atob($(id).textContent.trim());
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const packs = new Map(); // decoded packs, the latest few
  async function packed(kind, row) {
    const id = `${kind}-${Math.floor(row / index.pack)}`;
    if (!packs.has(id)) {
      if (packs.size >= 12) packs.delete(packs.keys().next().value);
      packs.set(id, unpack(id));
    }
    return (await packs.get(id))[row % index.pack];
  }

  const index = await unpack("index");
  const column = Object.fromEntries(index.columns.map((name, place) => [name, place]));
  const all = index.rows;
  const get = (row, name) => all[row][column[name]];
  const rowOf = new Map(all.map((row, i) => [row[column.name], i]));
  const problemOf = (row) => index.problems[get(row, "problem")];
  const haystack = index.problems.map((texts) => texts.join(" ").toLowerCase());
  const NAMES = { fixed: "wrong → right", spoiled: "right → wrong", right: "right", wrong: "wrong", violation: "violation", ungraded: "not graded" };
  const form = $("filters"), fields = ["q", "source", "kind", "stop", "sort"];
  index.sources.forEach(([, label], i) => form.source.append(make("option", { value: String(i), textContent: label })));
  [...new Set(all.map((row) => row[column.stop] ?? ""))].filter(Boolean).sort()
    .forEach((stop) => form.stop.append(make("option", { value: stop, textContent: stop.replace("_", " ") })));

  // The state is in the address, so that a link shows what its sender saw.
  let state = {}, matching = [], page = 0, words = null, turn = 0;
  const fromHash = () => Object.fromEntries(new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : ""));
  function link(changes) {
    const next = new URLSearchParams();
    for (const name of [...fields, "trace", "with"]) {
      const value = name in changes ? changes[name] : state[name];
      if (value) next.set(name, value);
    }
    return `#${next}`;
  }
  function go(changes, replace = false) {
    const to = link(changes);
    if (to === location.hash) return;
    if (replace) { history.replaceState(null, "", to === "#" ? "#traces=" : to); update(); } else location.hash = to;
  }

  function filtered() {
    const q = (state.q ?? "").toLowerCase(), sort = state.sort ?? "";
    const kept = [...all.keys()].filter((row) =>
      (!q || haystack[get(row, "problem")].includes(q) || (get(row, "violation") ?? "").toLowerCase().includes(q)) &&
      (!state.source || get(row, "source") === Number(state.source)) &&
      (!state.kind || get(row, "kind") === state.kind) &&
      (!state.stop || get(row, "stop") === state.stop));
    if (!sort) return kept;
    const sign = sort.startsWith("-") ? -1 : 1, name = sort.replace("-", "");
    const key = (row) => get(row, name);
    return kept.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      return x === null || y === null ? (x === null) - (y === null) : sign * (x - y) || a - b;
    });
  }

  const signed = (value) => value === null ? "–" : Math.abs(value) < 0.005 ? "±0" : (value > 0 ? "+" : "−") + Math.abs(value).toFixed(2);
  function listed(row) {
    const grades = make("span", {}, ...[...get(row, "path")].map((mark) =>
      make("span", { className: `grade ${mark === "✓" ? "right" : "wrong"}`, textContent: mark })));
    if (get(row, "kind") === "violation") grades.append(" ⚠");
    grades.title = NAMES[get(row, "kind")];
    const name = get(row, "name");
    const anchor = make("a", { href: link({ trace: name, with: "" }) }, make("bdi", { textContent: problemOf(row)[0] }));
    const cell = (...children) => make("td", {}, ...children);
    const whose = make("bdi", { className: "meta", textContent: index.sources[get(row, "source")][1] });
    const line = make("tr", {}, cell(grades), cell(anchor, " ", whose), cell(signed(get(row, "progress"))), cell(String(get(row, "tokens"))));
    line.title = problemOf(row)[1];
    if (name === state.trace) line.setAttribute("aria-current", "true");
    return line;
  }
  function list() {
    const pages = Math.max(Math.ceil(matching.length / SHOWN), 1);
    page = Math.min(Math.max(page, 0), pages - 1);
    $("rows").replaceChildren(...matching.slice(page * SHOWN, (page + 1) * SHOWN).map(listed));
    $("place").textContent = `${page + 1} of ${pages}`;
    $("previous").disabled = page === 0;
    $("next").disabled = page === pages - 1;
    $("status").textContent = `${matching.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} traces`;
  }

  async function tokens(details) {
    const row = rowOf.get(details.dataset.trace);
    if (row === undefined || details.dataset.filled) return;
    details.dataset.filled = "1";
    const data = await packed("tokens", row);
    words ??= await unpack("words");
    if (!data.ids.length) {
      details.querySelector("p").textContent = "This file holds no token ids.";
      return;
    }
    const stream = make("div", { className: "stream" }), readout = make("p", { className: "readout", textContent: "Point at a token, or use the arrow keys." });
    readout.setAttribute("role", "status");
    const facts = [];
    let at = 0, sampled = 0;
    const add = (text, classes, fact) => {
      const token = make("span", { className: `token ${classes}`, textContent: text, tabIndex: facts.length ? -1 : 0 });
      token.dataset.place = facts.length;
      facts.push(fact);
      stream.append(token);
    };
    const word = (id) => id < 0 ? "□" : words[id] ?? `#${id} `;
    const environment = (count, whose) => {
      for (const end = at + count; at < end; at++) add(word(data.ids[at]), "env", `${whose} · id ${data.ids[at]} · masked: not trained on`);
    };
    environment(data.prompt, "prompt");
    data.turns.forEach(([phase, instruction, count, given], i) => {
      environment(instruction, `instruction of turn ${i + 1}`);
      const weight = data.weights[i];
      for (const end = at + count; at < end; at++, sampled++) {
        const hundredths = data.logprobs[sampled], p = hundredths === null ? null : Math.exp(-hundredths / 100);
        const unlikely = p === null || p > 0.5 ? "" : p > 0.1 ? "u1" : p > 0.01 ? "u2" : "u3";
        const told = [`turn ${i + 1}, ${phase}`, `id ${data.ids[at]}`, given ? "given: not trained on" : "sampled",
          p === null ? "log-probability not known" : `log-probability ${hundredths ? "−" : ""}${(hundredths / 100).toFixed(2)} (p = ${p.toFixed(2)})`,
          weight === null ? "advantage not recorded" : `advantage ${signed(weight)}`];
        add(word(data.ids[at]), `${given ? "env" : "sampled"} ${unlikely}`, told.join(" · "));
      }
    });
    const tell = (token) => { if (token?.dataset.place) readout.textContent = `${Number(token.dataset.place) + 1} of ${facts.length} · ${JSON.stringify(token.textContent)} · ${facts[token.dataset.place]}`; };
    stream.addEventListener("pointerover", (event) => tell(event.target));
    stream.addEventListener("focusin", (event) => tell(event.target));
    stream.addEventListener("keydown", (event) => {
      const step = { ArrowRight: "nextSibling", ArrowLeft: "previousSibling" }[event.key], to = step && event.target[step];
      if (!to) return;
      event.preventDefault();
      event.target.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    });
    const legend = make("p", { className: "meta", textContent: "Coloured ground: sampled, trained on. Grey italics: prompt, instructions and given turns, masked. Underlined: p below ½; double below ⅒; on a ground of its own below 1 %." });
    details.replaceChildren(details.querySelector("summary"), legend, stream, readout);
  }
  document.addEventListener("toggle", (event) => { if (event.target.matches?.("details.tokens") && event.target.open) tokens(event.target); }, true);

  const sameProblem = (row) => Array.from(all.keys()).filter((other) => get(other, "problem") === get(row, "problem"));
  function beside(row) { // one of every other source, those of the same seed first
    const found = new Map(), seed = (source) => index.sources[source][2] ?? null;
    for (const other of sameProblem(row)) {
      const source = get(other, "source");
      if (source !== get(row, "source") && !found.has(source)) found.set(source, other);
    }
    const far = (other) => Number(seed(get(other, "source")) !== seed(get(row, "source")));
    const others = found.size ? [...found.values()].sort((a, b) => far(a) - far(b)) : sameProblem(row).filter((other) => other !== row);
    return others.slice(0, MOST_BESIDE - 1).map((other) => get(other, "name"));
  }
  function tools(row, first) {
    const bar = make("p", { className: "tools" });
    if (first) {
      const others = sameProblem(row).length - 1, chosen = (state.with ?? "").split(",").filter(Boolean);
      if (others) {
        const side = make("button", { type: "button", textContent: chosen.length ? "One trace again" : "Side by side" });
        side.addEventListener("click", () => go({ with: chosen.length ? "" : beside(row).join(",") }));
        const pick = make("select", {}, make("option", { value: "", textContent: `${others} more of this problem …` }),
          ...sameProblem(row).filter((other) => other !== row && !chosen.includes(get(other, "name"))).slice(0, 200).map((other) =>
            make("option", { value: get(other, "name"), textContent: `${index.sources[get(other, "source")][1]} ${get(other, "path")}` })));
        pick.setAttribute("aria-label", "Put another trace of this problem beside");
        pick.addEventListener("change", () => pick.value && go({ with: [...chosen, pick.value].slice(1 - MOST_BESIDE).join(",") }));
        bar.append(side, pick);
      } else bar.append("No other trace of this problem is in this file.");
    } else {
      const close = make("button", { type: "button", textContent: "Close" });
      close.addEventListener("click", () => go({ with: state.with.split(",").filter((name) => name !== get(row, "name")).join(",") }));
      bar.append(close, make("a", { href: link({ trace: get(row, "name"), with: "" }), textContent: "alone" }));
    }
    return bar;
  }
  async function show() {
    const mine = ++turn;
    const names = [state.trace, ...(state.with ?? "").split(",")].filter(Boolean).slice(0, MOST_BESIDE);
    if (!names.length) return;
    const known = names.filter((name) => rowOf.has(name));
    const html = await Promise.all(known.map((name) => packed("traces", rowOf.get(name))));
    if (mine !== turn) return; // another one was chosen meanwhile
    const columns = html.map((text, i) => {
      const template = make("template", { innerHTML: text }); // from the template, which escaped it
      const article = template.content.querySelector("article");
      article.querySelector("header").after(tools(rowOf.get(known[i]), i === 0));
      return article;
    });
    $("shown").replaceChildren(...(columns.length ? columns : [make("p", { textContent: `There is no trace ${state.trace} in this file.` })]));
  }

  let before = null;
  function update() {
    state = fromHash();
    for (const name of fields) if (form[name].value !== (state[name] ?? "")) form[name].value = state[name] ?? "";
    const filters = JSON.stringify(fields.map((name) => state[name] ?? ""));
    if (filters !== before) { matching = filtered(); page = 0; before = filters; }
    const place = matching.indexOf(rowOf.get(state.trace));
    if (place >= 0) page = Math.floor(place / SHOWN);
    list();
    show();
  }
  function step(by) {
    const place = matching.indexOf(rowOf.get(state.trace));
    const to = matching[place < 0 ? page * SHOWN : place + by];
    if (to === undefined) return;
    go({ trace: get(to, "name"), with: "" });
    $("shown").focus({ preventScroll: true });
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => go(Object.fromEntries(fields.map((name) => [name, form[name].value])), true));
  form.addEventListener("reset", () => go(Object.fromEntries(fields.map((name) => [name, ""])), true));
  $("previous").addEventListener("click", () => { page--; list(); });
  $("next").addEventListener("click", () => { page++; list(); });
  addEventListener("hashchange", update);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const row = rowOf.get(state.trace);
    const act = {
      j: () => step(1), k: () => step(-1),
      "/": () => form.q.focus(),
      c: () => row !== undefined && go({ with: state.with ? "" : beside(row).join(",") }),
      t: () => document.querySelectorAll("#shown details.tokens").forEach((details) => { details.open = !details.open; }),
      Escape: () => state.with && go({ with: "" }),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  $("viewer").hidden = false;
  update();
  if (state.trace) $("viewer").scrollIntoView();
})();
