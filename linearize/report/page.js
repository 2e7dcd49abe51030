"use strict";
// Of every page: figures as files that stand alone, and whatever else a script wants to save.
var Downloads = (function () {
  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // An inline figure with the page's colours and letters written out.
  function standalone(svg) {
    const whole = svg.cloneNode(true);
    whole.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const defs = document.createElementNS("http://www.w3.org/2000/svg", "defs");
    const hrefs = [...whole.querySelectorAll("use")].map((use) => use.getAttribute("xlink:href"));
    for (const href of new Set(hrefs)) {
      if (!whole.querySelector(href)) defs.append(document.querySelector(href).cloneNode(true));
    }
    whole.prepend(defs);
    const style = getComputedStyle(document.documentElement);
    return new XMLSerializer().serializeToString(whole)
      .replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  }

  for (const button of document.querySelectorAll("button[data-figure]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const name = button.dataset.figure;
      const svg = document.getElementById(`figure-${name}`).querySelector("svg.wide");
      save(`${name}.svg`, "image/svg+xml", standalone(svg));
    });
  }
  return { save, standalone };
})();
