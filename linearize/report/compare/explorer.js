"use strict";
// The page's side of the explorer: sliders, bars, cross-hairs and the address's hash.
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
  const pretrained = tasks.map((task) => Explorer.accuracy(task, names.map(() => 0)));
  const single = tasks.map((task, t) => Explorer.accuracy(task, unit(t)));
  const find = (selector, within) => (within || root).querySelector(selector);
  const rows = names.map((_, t) => {
    const row = find(`[data-task-index="${t}"]`);
    return {
      slider: find("input", row), value: find("output", row), bar: find(".bar", row),
      fill: find(".fill", row), text: find(".accuracy", row), before: find(".before", row),
      alone: find(".alone", row),
    };
  });
  const all = { slider: find("#alpha-all"), value: find("#alpha-all-value") };
  const maps = data.maps.map((map, i) => {
    const box = find(`[data-map-index="${i}"]`);
    const values = new Float32Array(Explorer.bytes(map.values).buffer);
    return { ...map, values, box, svg: find("svg", box), cross: find(".cross", box),
      error: find(".error", box) };
  });
  let alpha = data.best.slice();
  let waiting = false;
  let writing = 0;
  let speaking = 0;

  const percent = (x) => (100 * x).toFixed(1);
  const signed = (x) => {
    const text = x.toFixed(2);
    return text === "-0.00" ? "0.00" : text.replace("-", "−");
  };

  function nearest(values, x) {
    let best = 0;
    for (let i = 1; i < values.length; i++) {
      if (Math.abs(values[i] - x) < Math.abs(values[best] - x)) best = i;
    }
    return best;
  }

  function draw() {
    waiting = false;
    const now = tasks.map((task) => Explorer.accuracy(task, alpha));
    rows.forEach((row, t) => {
      row.slider.value = alpha[t];
      row.slider.setAttribute("aria-valuetext", `α = ${signed(alpha[t])}`);
      row.value.textContent = signed(alpha[t]);
      row.fill.style.width = `${100 * now[t]}%`;
      row.text.textContent = `${percent(now[t])} %`;
      row.bar.dataset.accuracy = String(now[t]);
      row.bar.setAttribute("aria-valuenow", percent(now[t]));
    });
    all.slider.value = Explorer.mean(alpha);
    all.value.textContent = alpha.every((a) => a === alpha[0]) ? signed(alpha[0]) : "mixed";
    const mean = Explorer.mean(now);
    const share = Explorer.normalized(now, single);
    root.dataset.mean = String(mean);
    root.dataset.normalized = String(share);
    find("#explorer-mean").textContent = `${percent(mean)} %`;
    find("#explorer-normalized").textContent = share === null ? "–" : `${percent(share)} %`;
    const gain = 100 * (mean - Explorer.mean(pretrained));
    find("#explorer-gain").textContent = `${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(1)}`;
    for (const map of maps) {
      const [x, y] = [alpha[map.a], alpha[map.b]];
      const limit = (v) => Math.min(map.high, Math.max(map.low, v));
      const place = (v) => (map.size * (limit(v) - map.low)) / (map.high - map.low);
      map.cross.setAttribute("transform", `translate(${place(x)} ${map.size - place(y)})`);
      const [i, j] = [nearest(map.alphas, x), nearest(map.alphas, y)];
      const error = map.values[i * map.alphas.length + j];
      map.error.textContent = Number.isFinite(error) ? error.toFixed(2) : "–";
      map.box.dataset.at = `${x},${y}`;
    }
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      find("#explorer-live").textContent =
        `Mean accuracy ${percent(mean)} percent over ${T} tasks.`;
    }, 600);
  }

  function write() {
    try {
      history.replaceState(null, "", Explorer.formatHash(alpha, names));
    } catch (error) {
      // some browsers refuse this for files; the state is then simply not in the address
    }
  }

  function set(next, share = true) {
    alpha = next;
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(draw);
    }
    if (share) {
      clearTimeout(writing);
      writing = setTimeout(write, 250);
    }
  }

  function read() {
    const state = Explorer.parseHash(location.hash, names, low, high);
    if (!state) return;
    find("#explorer-note").textContent = state.refused.length
      ? `The address names what is not here and was ignored: ${state.refused.join(", ")}.` : "";
    set(state.alpha, false);
  }

  rows.forEach((row, t) => {
    row.before.style.left = `${100 * pretrained[t]}%`;
    row.alone.style.left = `${100 * single[t]}%`;
    row.bar.dataset.pretrained = String(pretrained[t]);
    row.bar.dataset.single = String(single[t]);
    row.slider.addEventListener("input", () =>
      set(alpha.map((a, k) => (k === t ? Number(row.slider.value) : a))));
  });
  all.slider.addEventListener("input", () => set(names.map(() => Number(all.slider.value))));
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-set]");
    if (button) set(JSON.parse(button.dataset.set));
  });
  for (const map of maps) {
    const move = (event) => {
      const frame = find(".field", map.box).getBoundingClientRect();
      const snap = (v) => {
        const stepped = Number((Math.round(v / data.step) * data.step).toFixed(4));
        return Math.min(high, Math.max(low, stepped));
      };
      const across = map.high - map.low;
      const next = alpha.slice();
      next[map.a] = snap(map.low + (across * (event.clientX - frame.left)) / frame.width);
      next[map.b] = snap(map.high - (across * (event.clientY - frame.top)) / frame.height);
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
