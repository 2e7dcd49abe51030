"use strict";
// The linearized regimes in numbers: no document, no network, so that any engine can run it.
// logits(α)[e, c] = logits0[e, c] + Σ_k α_k dlogits[k, e, c], summed in that order in doubles.
var Explorer = (function () {
  const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

  function bytes(text) {
    const value = new Uint8Array(128);
    for (let i = 0; i < 64; i++) value[ALPHABET.charCodeAt(i)] = i;
    const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
    const out = new Uint8Array((text.length / 4) * 3 - padding);
    for (let i = 0, o = 0; i < text.length; i += 4) {
      const word =
        (value[text.charCodeAt(i)] << 18) | (value[text.charCodeAt(i + 1)] << 12) |
        (value[text.charCodeAt(i + 2)] << 6) | value[text.charCodeAt(i + 3)];
      out[o++] = word >> 16;
      if (o < out.length) out[o++] = (word >> 8) & 255;
      if (o < out.length) out[o++] = word & 255;
    }
    return out;
  }

  function unpack(task) {
    return {
      name: task.name,
      examples: task.examples,
      classes: task.classes,
      logits0: new Float32Array(bytes(task.logits0).buffer),
      dlogits: task.dlogits.map((text) => new Float32Array(bytes(text).buffer)),
      labels: new Uint16Array(bytes(task.labels).buffer),
    };
  }

  // An example's first class of largest logit, in one of the regimes.
  function predicted(task, alpha, e, regime = 0) {
    const { examples, classes, logits0 } = task;
    const dlogits = task.dlogits[regime];
    const size = examples * classes;
    let best = -Infinity;
    let picked = 0;
    for (let c = 0; c < classes; c++) {
      const i = e * classes + c;
      let sum = logits0[i];
      for (let k = 0; k < alpha.length; k++) sum += alpha[k] * dlogits[k * size + i];
      if (sum > best) {
        best = sum;
        picked = c;
      }
    }
    return picked;
  }

  // Share of examples that get the class of their label.
  function accuracy(task, alpha, regime = 0) {
    let correct = 0;
    for (let e = 0; e < task.examples; e++) {
      if (predicted(task, alpha, e, regime) === task.labels[e]) correct++;
    }
    return correct / task.examples;
  }

  // Where the coefficients are all alike, the measured point next to them; else null.
  function measured(points, alpha) {
    if (!alpha.every((a) => a === alpha[0])) return null;
    return points.reduce((best, each) =>
      Math.abs(each.alpha - alpha[0]) < Math.abs(best.alpha - alpha[0]) ? each : best);
  }

  function mean(values) {
    let sum = 0;
    for (const value of values) sum += value;
    return sum / values.length;
  }

  // Mean over tasks of accuracy ÷ single-task accuracy; null where a task's single accuracy is 0.
  function normalized(accuracies, single) {
    if (single.some((s) => s === 0)) return null;
    return mean(accuracies.map((a, t) => a / single[t]));
  }

  // "#maps&alpha=mnist:0.4" → a section and the coefficients' text; either may be missing.
  function address(hash) {
    const parts = hash.replace(/^#/, "").split("&");
    return {
      section: parts.find((part) => part && !part.startsWith("alpha=")) || "",
      text: parts.find((part) => part.startsWith("alpha=")),
    };
  }

  // "#alpha=mnist:0.4,letters:0.3" → coefficients; tasks that are not named get 0.
  function parseHash(hash, names, low, high) {
    const { text } = address(hash);
    if (text === undefined) return null;
    const alpha = names.map(() => 0);
    const refused = [];
    for (const entry of text.slice(6).split(",")) {
      if (!entry) continue;
      const at = entry.lastIndexOf(":");
      let name = entry.slice(0, at < 0 ? entry.length : at);
      try {
        name = decodeURIComponent(name);
      } catch (error) {
        // a stray % stays as it is, and the name is refused below
      }
      const raw = at < 0 ? "" : entry.slice(at + 1).trim();
      const value = raw === "" ? NaN : Number(raw);
      const t = names.indexOf(name);
      if (t < 0 || !Number.isFinite(value)) refused.push(entry);
      else alpha[t] = Math.min(high, Math.max(low, value));
    }
    return { alpha, refused };
  }

  function formatHash(alpha, names, section = "") {
    const entries = names.map((name, t) =>
      encodeURIComponent(name) + ":" + Number(alpha[t].toFixed(4)));
    const text = "alpha=" + entries.filter((_, t) => alpha[t] !== 0).join(",");
    return `#${section}${section && "&"}${text}`;
  }

  return {
    bytes, unpack, predicted, accuracy, measured, mean, normalized, address, parseHash, formatHash,
  };
})();
