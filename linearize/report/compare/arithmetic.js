"use strict";
// The linear regime in numbers: no document, no network, so that any JavaScript engine can run it.
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
      dlogits: new Float32Array(bytes(task.dlogits).buffer),
      labels: new Uint16Array(bytes(task.labels).buffer),
    };
  }

  // Share of examples whose first largest logit is the label's.
  function accuracy(task, alpha) {
    const { examples, classes, logits0, dlogits, labels } = task;
    const size = examples * classes;
    let correct = 0;
    for (let e = 0; e < examples; e++) {
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
      if (picked === labels[e]) correct++;
    }
    return correct / examples;
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

  // "#alpha=mnist:0.4,letters:0.3" → coefficients; tasks that are not named get 0.
  function parseHash(hash, names, low, high) {
    const text = hash.replace(/^#/, "");
    if (!text.startsWith("alpha=")) return null;
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

  function formatHash(alpha, names) {
    const entries = names.map((name, t) =>
      encodeURIComponent(name) + ":" + Number(alpha[t].toFixed(4)));
    return "#alpha=" + entries.filter((_, t) => alpha[t] !== 0).join(",");
  }

  return { bytes, unpack, accuracy, mean, normalized, parseHash, formatHash };
})();
