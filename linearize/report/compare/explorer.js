"use strict";
// The page's side of the explorer: sliders, bars, regimes, cross-hairs and the address's hash.
(function () {
  const root = document.getElementById("explorer");
  const source = document.getElementById("explorer-data");
  if (!root || !source) return;
  const data = JSON.parse(source.textContent);
  const tasks = data.tasks.map(Explorer.unpack);
  const names = tasks.map((task) => task.name);
  const T = tasks.length;
  const [low, high] = data.range;
  const unit = (t) => names.map((_, k) => (k === t ? 1 : 0));
  const zero = names.map(() => 0);
  const find = (selector, within) => (within || root).querySelector(selector);
  // live ones are computed at any point, the others are known where they were measured
  const regimes = data.regimes.map((regime, i) => {
    const { live } = regime;
    const single = live === null ? regime.single
      : tasks.map((task, t) => Explorer.accuracy(task, unit(t), live));
    return { ...regime, single, row: find(`[data-regime="${i}"]`) };
  });
  const pretrained = tasks.map((task) => Explorer.accuracy(task, zero));
  const rows = names.map((_, t) => {
    const row = find(`[data-task-index="${t}"]`);
    return {
      slider: find("input", row), value: find("output", row), bar: find(".bar", row),
      fill: find(".fill", row), text: find(".accuracy", row), before: find(".before", row),
      alone: find(".alone", row),
      samples: data.tasks[t].shown.map((e, k) => ({ e, text: find(`[data-sample="${k}"]`, row) })),
    };
  });
  const all = { slider: find("#alpha-all"), value: find("#alpha-all-value") };
  const maps = (typeof Panels === "undefined" || !Panels ? [] : Panels.maps).map((map, i) => {
    const box = find(`[data-map-index="${i}"]`);
    const of = map.tasks.map((task) => names.indexOf(task));
    return { ...map, of, box, svg: find("svg", box), error: find(".error", box) };
  });
  const links = Array.from(document.querySelectorAll('a[href^="#"]'), (link) =>
    ({ link, section: link.getAttribute("href").slice(1) }));
  let focus = regimes.find((regime) => regime.live === 0);
  let alpha = data.best.slice();
  let waiting = false;
  let writing = 0;
  let speaking = 0;

  const percent = (x) => (100 * x).toFixed(1);
  const signed = (x) => {
    const text = x.toFixed(2);
    return text === "-0.00" ? "0.00" : text.replace("-", "−");
  };

  // A regime's accuracies at the coefficients, null where they are not known, and how it has them.
  function known(regime) {
    if (regime.live !== null) {
      const now = tasks.map((task) => Explorer.accuracy(task, alpha, regime.live));
      return { now, how: "computed here" };
    }
    const point = Explorer.measured(regime.points, alpha);
    if (point) {
      const exact = Math.abs(point.alpha - alpha[0]) < 1e-9;
      const of = regime.points.length > 5 ? "" : ` of ${regime.points.length}`;
      const where = exact ? "at this α" : `at α = ${signed(point.alpha)}, the nearest${of}`;
      return { now: point.values, how: `measured ${where}`, elsewhere: !exact };
    }
    const alone = names.findIndex((_, t) => unit(t).every((a, k) => a === alpha[k]));
    return {
      now: names.map((_, t) => (t === alone ? regime.single[t] : null)),
      how: alone < 0 ? "measured at equal α only" : "measured on the task alone",
    };
  }

  function drawRegime(regime) {
    const { now, how, elsewhere } = known(regime);
    const whole = now.every((value) => value !== null);
    const share = whole ? Explorer.normalized(now, regime.single) : null;
    const cells = [whole ? Explorer.mean(now) : null, ...now, share];
    regime.row.classList.toggle("elsewhere", Boolean(elsewhere));
    regime.row.dataset.values = JSON.stringify(cells);
    Array.from(regime.row.querySelectorAll("td.number"), (cell, k) => {
      cell.textContent = cells[k] === null ? "–" : percent(cells[k]);
    });
    find(".how", regime.row).textContent = how;
  }

  function drawMap(map) {
    const row = map.rows.indexOf(focus.key);
    map.box.hidden = row < 0;
    if (row < 0) return;
    if (map.painted !== row) Panels.paintRow(map.svg, map, row, 0);
    map.painted = row;
    const [x, y] = map.of.map((t) => alpha[t]);
    Panels.cross(map.svg, map, x, y);
    const [i, j] = [x, y].map((a) => Grid.nearest(map.alphas, a));
    const error = Panels.values(map, row, 0)[i * map.alphas.length + j];
    map.error.textContent = Number.isFinite(error) ? error.toFixed(2) : "–";
    map.box.dataset.at = `${x},${y}`;
  }

  function draw() {
    waiting = false;
    const now = tasks.map((task) => Explorer.accuracy(task, alpha, focus.live));
    rows.forEach((row, t) => {
      row.slider.value = alpha[t];
      row.slider.setAttribute("aria-valuetext", `α = ${signed(alpha[t])}`);
      row.value.textContent = signed(alpha[t]);
      row.fill.style.width = `${100 * now[t]}%`;
      row.alone.style.left = `${100 * focus.single[t]}%`;
      row.text.textContent = `${percent(now[t])} %`;
      row.bar.dataset.accuracy = String(now[t]);
      row.bar.dataset.single = String(focus.single[t]);
      row.bar.setAttribute("aria-valuenow", percent(now[t]));
      for (const { e, text } of row.samples) {
        const picked = Explorer.predicted(tasks[t], alpha, e, focus.live);
        const right = picked === tasks[t].labels[e];
        text.textContent = `${data.tasks[t].classNames[picked]} ${right ? "✓" : "✗"}`;
        text.className = right ? "right" : "wrong";
      }
    });
    regimes.forEach(drawRegime);
    all.slider.value = Explorer.mean(alpha);
    all.value.textContent = alpha.every((a) => a === alpha[0]) ? signed(alpha[0]) : "mixed";
    const mean = Explorer.mean(now);
    const share = Explorer.normalized(now, focus.single);
    root.style.setProperty("--regime", focus.colour);
    root.dataset.mean = String(mean);
    root.dataset.normalized = String(share);
    find("#explorer-mean").textContent = `${percent(mean)} %`;
    find("#explorer-normalized").textContent = share === null ? "–" : `${percent(share)} %`;
    const gain = 100 * (mean - Explorer.mean(pretrained));
    find("#explorer-gain").textContent = `${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(1)}`;
    maps.forEach(drawMap);
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      find("#explorer-live").textContent =
        `${focus.label}: mean accuracy ${percent(mean)} percent over ${T} tasks.`;
    }, 600);
  }

  // The address and every link of the page keep the coefficients.
  function write() {
    const { section } = Explorer.address(location.hash);
    for (const each of links) {
      each.link.setAttribute("href", Explorer.formatHash(alpha, names, each.section));
    }
    try {
      history.replaceState(null, "", Explorer.formatHash(alpha, names, section));
    } catch (error) {
      // some browsers refuse this for files; the state is then simply not in the address
    }
  }

  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  function set(next, share = true) {
    alpha = next;
    later();
    if (share) {
      clearTimeout(writing);
      writing = setTimeout(write, 250);
    }
  }

  function read() {
    const state = Explorer.parseHash(location.hash, names, low, high);
    const { section } = Explorer.address(location.hash);
    const target = section && document.getElementById(section);
    if (state) {
      find("#explorer-note").textContent = state.refused.length
        ? `The address names what is not here and was ignored: ${state.refused.join(", ")}.` : "";
      set(state.alpha, false);
    }
    if (!target) return;
    target.tabIndex = -1;
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  }

  rows.forEach((row, t) => {
    row.before.style.left = `${100 * pretrained[t]}%`;
    row.bar.dataset.pretrained = String(pretrained[t]);
    row.slider.addEventListener("input", () =>
      set(alpha.map((a, k) => (k === t ? Number(row.slider.value) : a))));
  });
  all.slider.addEventListener("input", () => set(names.map(() => Number(all.slider.value))));
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-set]");
    if (button) set(JSON.parse(button.dataset.set));
  });
  root.addEventListener("change", (event) => {
    if (event.target.name !== "regime") return;
    focus = regimes[Number(event.target.value)];
    later();
  });
  document.addEventListener("coefficients", (event) => {
    const next = new Map(event.detail);
    set(names.map((name, t) => (next.has(name) ? next.get(name) : alpha[t])));
  });
  for (const map of maps) {
    const move = (event) => {
      const next = alpha.slice();
      Panels.under(map.svg, map, event).forEach((v, k) => {
        const stepped = Number((Math.round(v / data.step) * data.step).toFixed(4));
        next[map.of[k]] = Math.min(high, Math.max(low, stepped));
      });
      set(next);
    };
    map.svg.addEventListener("pointerdown", (event) => {
      map.svg.setPointerCapture(event.pointerId);
      move(event);
    });
    map.svg.addEventListener("pointermove", (event) => {
      if (event.buttons) move(event);
    });
  }
  window.addEventListener("hashchange", read);
  root.hidden = false;
  read();
  draw();
})();
