"use strict";
// A map on a grid of two coefficients: values[i * G + j] at (alphas[i], alphas[j]). No document.
var Grid = (function () {
  function nearest(alphas, x) {
    let best = 0;
    for (let i = 1; i < alphas.length; i++) {
      if (Math.abs(alphas[i] - x) < Math.abs(alphas[best] - x)) best = i;
    }
    return best;
  }

  // Borders of cells around rising centres.
  function edges(alphas) {
    const middle = alphas.slice(1).map((x, i) => (x + alphas[i]) / 2);
    const last = alphas.length - 1;
    return [2 * alphas[0] - middle[0], ...middle, 2 * alphas[last] - middle[last - 1]];
  }

  // RGBA rows, side × side: the first coefficient to the right, the second upwards; `colours` are
  // RGB bytes from low to high, a value that is no number is grey.
  function pixels(values, alphas, low, high, colours, side) {
    const G = alphas.length;
    const borders = edges(alphas);
    const cell = Array.from({ length: side }, (_, p) => {
      const x = borders[0] + ((p + 0.5) / side) * (borders[G] - borders[0]);
      let at = 0;
      while (at < G - 1 && x >= borders[at + 1]) at++;
      return at;
    });
    const count = colours.length / 3;
    const out = new Uint8ClampedArray(4 * side * side).fill(255);
    for (let row = 0; row < side; row++) {
      for (let column = 0; column < side; column++) {
        const value = values[cell[column] * G + cell[side - 1 - row]];
        const share = (value - low) / (high - low);
        const at = 4 * (row * side + column);
        const shade = Math.min(count - 1, Math.max(0, Math.floor(share * count)));
        for (let c = 0; c < 3; c++) {
          out[at + c] = Number.isNaN(shade) ? 160 : colours[3 * shade + c];
        }
      }
    }
    return out;
  }

  // Segments [x0, y0, x1, y1] where the values, linear along the grid's lines, reach a level.
  function contour(values, alphas, level) {
    const G = alphas.length;
    const found = [];
    for (let i = 0; i + 1 < G; i++) {
      for (let j = 0; j + 1 < G; j++) {
        const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
        const crossed = [];
        corners.forEach(([a, b], k) => {
          const [c, d] = corners[(k + 1) % 4];
          const [from, to] = [values[a * G + b], values[c * G + d]];
          if (from < level !== to < level && Number.isFinite(from + to)) {
            const t = (level - from) / (to - from);
            crossed.push(alphas[a] + t * (alphas[c] - alphas[a]),
              alphas[b] + t * (alphas[d] - alphas[b]));
          }
        });
        for (let k = 0; k + 3 < crossed.length; k += 4) found.push(crossed.slice(k, k + 4));
      }
    }
    return found;
  }

  return { nearest, edges, pixels, contour };
})();
