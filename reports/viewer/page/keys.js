// Keyboard shortcuts and their help texts.
"use strict";

const Keys = (() => {
  const RESULTS = "123456789bcefgijklnoqrtuvxyz"; // of the results from left to right
  const TABLE = [
    ["←  →", "previous, next image", { ArrowLeft: (act) => act.step(-1), ArrowRight: (act) => act.step(1) }],
    ["Home  End", "first, last image", { Home: (act) => act.step(-Infinity), End: (act) => act.step(Infinity) }],
    ["↑  ↓", "select the previous, next result", { ArrowUp: (act) => act.select(-1), ArrowDown: (act) => act.select(1) }],
    ["0", "show differences from the ground truth; press again for depth", { 0: (act) => act.differ("truth") }],
    ["1 … 9", "the same from result 1 … 9; more results have the letters on their captions", results()],
    ["[  ]", "narrow, widen the difference scale", { "[": (act) => act.widen(0.5), "]": (act) => act.widen(2) }],
    ["w", "sort by the selected result, worst first; press again to undo", { w: (act) => act.sortByWorst() }],
    ["m  M", "next, previous metric", { m: (act) => act.nextMetric(1), M: (act) => act.nextMetric(-1) }],
    ["p", "select the center pixel; press again to clear", { p: (act) => act.togglePixel() }],
    ["Shift + arrows", "move the pixel", shifted()],
    ["h  a", "hide the selected result; show all", { h: (act) => act.hide(), a: (act) => act.showAll() }],
    ["d", "next data set", { d: (act) => act.nextDataset() }],
    ["s", "save the pictures as PNG", { s: (act) => act.save() }],
    ["?", "show or hide this help", { "?": (act) => act.help() }],
    ["Esc", "close this help, or clear the pixel and the differences", { Escape: (act) => act.leave() }],
  ];
  const ACTIONS = Object.assign({}, ...TABLE.map(([, , actions]) => actions));

  function results() {
    return Object.fromEntries([...RESULTS].map((key, i) => [key, (act) => act.differNth(i)]));
  }

  function shifted() {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    return Object.fromEntries(Object.entries(ways).map(([key, way]) => [`Shift+${key}`, (act) => act.movePixel(way)]));
  }

  function listen(act) {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
      const action = ACTIONS[event.shiftKey && event.key.startsWith("Arrow") ? `Shift+${event.key}` : event.key];
      if (!action) return;
      event.preventDefault();
      action(act);
    });
  }

  function fillHelp(table) {
    for (const [keys, text] of TABLE) {
      const line = document.createElement("tr");
      line.append(Panels.make("th", "", keys), Panels.make("td", "", text));
      table.append(line);
    }
  }

  return { RESULTS, listen, fillHelp };
})();
