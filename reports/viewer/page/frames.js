// The list of images, in the order of the data set or sorted with the worst first.
"use strict";

const Frames = (() => {
  const { make } = Panels;
  let lines = [], current = null, shown = "";

  // Positions of the images in display order; images without a value come last.
  function order(dataset, result, metric, metrics) {
    const places = dataset.keys.map((_, place) => place);
    if (!result) return places;
    const m = metrics.indexOf(metric), sign = metric.higher ? 1 : -1;
    const value = (place) => result.metrics[place * metrics.length + m];
    const worst = (a, b) => sign * (value(a) - value(b)) || a - b;
    return places.sort((a, b) => Number(isNaN(value(a))) - Number(isNaN(value(b))) || (isNaN(value(a)) ? a - b : worst(a, b)));
  }

  // Rebuilds the list only if the order changed or `numbers`, which identifies the values of `numberOf`.
  function show(area, dataset, places, numbers, numberOf, pick) {
    const wanted = [dataset.id, numbers, places.join()].join("|");
    if (wanted === shown) return;
    shown = wanted;
    lines = [];
    places.forEach((place) => {
      const line = make("li", "");
      const name = make("span", "name"); // truncated on the left, where long names are alike
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
    const list = current.parentElement, top = current.offsetTop - list.offsetTop, bottom = top + current.offsetHeight;
    if (top < list.scrollTop) list.scrollTop = top; // not scrollIntoView, which also scrolls the page of a phone
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }

  return { order, show, mark };
})();
