// The list of images, in the data set's order or the worst first.
"use strict";

const Frames = (() => {
  const { make } = Panels;
  let lines = [], current = null, shown = "";

  // Places of the images: those without a number last.
  function order(dataset, result, metric, metrics) {
    const places = dataset.keys.map((_, place) => place);
    if (!result) return places;
    const m = metrics.indexOf(metric), sign = metric.higher ? 1 : -1;
    const value = (place) => result.metrics[place * metrics.length + m];
    const worst = (a, b) => sign * (value(a) - value(b)) || a - b;
    return places.sort((a, b) => Number(isNaN(value(a))) - Number(isNaN(value(b))) || (isNaN(value(a)) ? a - b : worst(a, b)));
  }

  // `numbers` says which ones numberOf gives: the list is made anew when they, or the order, are others.
  function show(area, dataset, places, numbers, numberOf, pick) {
    const wanted = [dataset.id, numbers, places.join()].join("|");
    if (wanted === shown) return;
    shown = wanted;
    lines = [];
    places.forEach((place) => {
      const line = make("li", "");
      const name = make("span", "name"); // cut at its left, where long names are alike
      name.append(make("bdi", "", `${dataset.groups[place].split("/").pop()} ${dataset.keys[place].split("/").pop()}`));
      line.append(make("span", "number", String(place + 1)), name, make("output", "value", numberOf(place)));
      line.title = dataset.keys[place];
      line.addEventListener("click", () => pick(place));
      lines[place] = line;
    });
    area.replaceChildren(...places.map((place) => lines[place]));
    current = null;
  }

  function mark(place) {
    current?.removeAttribute("aria-current");
    current = lines[place];
    current.setAttribute("aria-current", "true");
    current.scrollIntoView({ block: "nearest" });
  }

  return { order, show, mark };
})();
