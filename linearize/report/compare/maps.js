"use strict";
// The page's side of error maps: what is under the pointer, one task's part, a difference.
var Panels = (function () {
  const source = document.getElementById("maps-data");
  if (!source) return null;
  const data = JSON.parse(source.textContent);
  const [colours, signed] = [data.colours, data.signed].map(Explorer.bytes);
  const maps = data.maps.map((map) => {
    const values = new Float32Array(Explorer.bytes(map.values).buffer);
    return { ...map, values, borders: Grid.edges(map.alphas) };
  });
  const minus = (x) => x.replace("-", "−");
  const number = (x) => (Number.isFinite(x) ? minus(x.toFixed(3)) : "–");

  function values(map, row, part) {
    const size = map.alphas.length ** 2;
    const from = (row * map.parts + part) * size;
    return map.values.subarray(from, from + size);
  }

  const share = (map, x) => {
    const [low, high] = [map.borders[0], map.borders[map.alphas.length]];
    return (Math.min(high, Math.max(low, x)) - low) / (high - low);
  };

  function paint(svg, map, shown, low, table) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = data.size;
    const pixels = Grid.pixels(shown, map.alphas, low, map.upper, table, data.size);
    canvas.getContext("2d").putImageData(new ImageData(pixels, data.size, data.size), 0, 0);
    svg.querySelector(".field").setAttribute("href", canvas.toDataURL());
    const at = (x) => (data.size * share(map, x)).toFixed(1);
    const levels = low < 0 ? [0] : map.levels;
    svg.querySelector(".contour").setAttribute("d", levels.flatMap((level) =>
      Grid.contour(shown, map.alphas, level)).map(([a, b, c, d]) =>
      `M${at(a)} ${data.size - at(b)}L${at(c)} ${data.size - at(d)}`).join(""));
  }

  // The errors of a row, light where they are low.
  const paintRow = (svg, map, row, part) =>
    paint(svg, map, values(map, row, part), 0, colours);

  function cross(svg, map, x, y) {
    svg.querySelector(".cross").setAttribute("transform",
      `translate(${data.size * share(map, x)} ${data.size * (1 - share(map, y))})`);
  }

  // The coefficients below a pointer.
  function under(svg, map, event) {
    const frame = svg.querySelector(".field").getBoundingClientRect();
    const [low, high] = [map.borders[0], map.borders[map.alphas.length]];
    return [low + ((high - low) * (event.clientX - frame.left)) / frame.width,
      high - ((high - low) * (event.clientY - frame.top)) / frame.height];
  }

  function live(box) {
    const map = maps[Number(box.dataset.map)];
    const panels = [...box.querySelectorAll("figure svg")];
    const sliders = [...box.querySelectorAll("input")];
    const [part, less] = ["part", "less"].map((name) => box.querySelector(`select.${name}`));
    const cells = [...box.querySelectorAll("td[data-row]")];
    const one = Grid.nearest(map.alphas, 1);
    let pinned = [one, one];

    function repaint() {
      const [p, other] = [part ? Number(part.value) : 0, less.value];
      panels.forEach((svg, row) => {
        if (other === "") return paintRow(svg, map, row, p);
        const base = values(map, Number(other), p);
        return paint(svg, map, values(map, row, p).map((v, i) => v - base[i]), -map.upper, signed);
      });
      const bar = box.querySelector(".scale");
      const table = other === "" ? colours : signed;
      bar.style.background = `linear-gradient(90deg, ${Array.from({ length: 17 }, (_, k) => {
        const at = 3 * Math.round((k / 16) * (table.length / 3 - 1));
        return `rgb(${table.slice(at, at + 3).join(",")})`;
      }).join(",")})`;
      box.querySelector(".low").textContent = other === "" ? "0" : minus(`-${map.upper}`);
    }

    function show([i, j]) {
      const [x, y] = [map.alphas[i], map.alphas[j]];
      for (const svg of panels) cross(svg, map, x, y);
      box.dataset.at = `${x},${y}`;
      box.querySelector(".here").textContent =
        `α = ${minus(x.toFixed(2))} of ${map.tasks[0]}, ${minus(y.toFixed(2))} of ${map.tasks[1]}`;
      for (const cell of cells) {
        const [row, p] = [Number(cell.dataset.row), Number(cell.dataset.part)];
        cell.textContent = number(values(map, row, p)[i * map.alphas.length + j]);
      }
    }

    function pin(next) {
      pinned = next;
      sliders.forEach((slider, k) => {
        slider.value = pinned[k];
        slider.setAttribute("aria-valuetext", `α = ${minus(map.alphas[pinned[k]].toFixed(2))}`);
      });
      show(pinned);
    }

    const nearest = (svg, event) =>
      under(svg, map, event).map((x) => Grid.nearest(map.alphas, x));
    for (const svg of panels) {
      svg.addEventListener("pointermove", (event) => show(nearest(svg, event)));
      svg.addEventListener("pointerleave", () => show(pinned));
      svg.addEventListener("click", (event) => {
        pin(nearest(svg, event));
        const detail = map.tasks.map((task, k) => [task, map.alphas[pinned[k]]]);
        document.dispatchEvent(new CustomEvent("coefficients", { detail }));
      });
    }
    sliders.forEach((slider, k) => slider.addEventListener("input", () =>
      pin(pinned.map((at, l) => (l === k ? Number(slider.value) : at)))));
    for (const select of [part, less]) select?.addEventListener("change", repaint);
    box.querySelector("button.csv").addEventListener("click", () => {
      const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
      const parts = ["both", ...map.tasks].slice(0, map.parts);
      const head = map.labels.flatMap((label) => parts.map((p) => `${label}: ${p}`));
      const lines = [[...map.tasks.map((task) => `α of ${task}`), ...head].map(quoted)];
      map.alphas.forEach((x, i) => map.alphas.forEach((y, j) => {
        const at = i * map.alphas.length + j;
        const found = map.labels.flatMap((_, row) => parts.map((__, p) => values(map, row, p)[at]));
        lines.push([x, y, ...found]);
      }));
      Downloads.save(`${map.figure}.csv`, "text/csv", lines.map((l) => l.join(",")).join("\n"));
    });
    box.hidden = false;
    document.getElementById(`figure-${map.figure}`)?.classList.add("replaced");
    repaint();
    pin(pinned);
  }

  document.querySelectorAll(".live-map").forEach(live);
  return { maps, values, paintRow, cross, under, number };
})();
