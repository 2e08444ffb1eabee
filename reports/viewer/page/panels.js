// The pictures side by side: image, ground truth and every shown result.
"use strict";

const Panels = (() => {
  const CAPTION = 22, GAP = 8, MIN_WIDTH = 200; // px
  const make = (tag, kind, text = "") => {
    const element = document.createElement(tag);
    element.className = kind;
    element.textContent = text;
    return element;
  };
  const narrow = matchMedia("(max-width: 700px)");
  let panels = new Map(); // id -> {figure, canvas, value, ...}
  let built = ""; // ids of the existing panels
  let drawn = null; // {maps: id -> map, metricText, state}

  function build(area, results, actions) {
    const ids = ["image", "truth", ...results.map((result) => result.id)];
    if (ids.join() === built) return;
    built = ids.join();
    const shown = { image: "Image", truth: "Ground truth" };
    results.forEach((result) => (shown[result.id] = result.name));
    panels = new Map(ids.map((id) => [id, panel(id, shown[id], actions)]));
    area.replaceChildren(...[...panels.values()].map(({ figure }) => figure));
  }

  function panel(id, name, actions) {
    const figure = make("figure", "panel");
    figure.dataset.id = id;
    const key = make("kbd", "key"), title = make("span", "name", name), value = make("output", "value");
    title.title = name;
    const caption = document.createElement("figcaption");
    caption.append(key, title, value);
    const view = make("div", "view"), cross = make("div", "cross");
    const picture = document.createElement(id === "image" ? "img" : "canvas");
    if (id === "image") picture.alt = "";
    view.append(picture, cross);
    figure.append(caption, view);
    view.addEventListener("click", (event) => actions.pick(id, positionOf(event, view)));
    view.addEventListener("mousemove", (event) => hover(positionOf(event, view)));
    view.addEventListener("mouseleave", () => hover(null));
    caption.addEventListener("click", () => actions.focus(id));
    key.addEventListener("click", (event) => {
      event.stopPropagation();
      actions.differ(id);
    });
    return { figure, picture, key, value, cross, id };
  }

  function positionOf(event, view) {
    const box = view.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  // Chooses the number of columns that makes the pictures largest without scrolling.
  function arrange(area, ratio) {
    const width = area.clientWidth, n = panels.size;
    const height = narrow.matches ? 0 : area.clientHeight; // a phone scrolls
    let best = { columns: 1, size: 0 };
    for (let columns = 1; columns <= n; columns++) {
      const across = (width - GAP * (columns + 1)) / columns;
      const down = (height - GAP) / Math.ceil(n / columns) - GAP - CAPTION;
      const size = Math.min(across, down * ratio);
      if (size > best.size) best = { columns, size };
    }
    if (best.size < MIN_WIDTH) {
      const least = narrow.matches && ratio < 2 ? MIN_WIDTH / 2 : MIN_WIDTH;
      const columns = Math.max(1, Math.floor((width - GAP) / (least + GAP)));
      best = { columns, size: (width - GAP * (columns + 1)) / columns };
    }
    area.style.gridTemplateColumns = `repeat(${best.columns}, ${Math.floor(best.size)}px)`;
    area.style.setProperty("--ratio", ratio);
  }

  // keys: id -> digit; state: focus, diff, span
  function draw(content, state, keys) {
    drawn = { ...content, state };
    const other = state.diff && content.maps[state.diff];
    for (const { id, figure, picture, key, cross } of panels.values()) {
      const map = content.maps[id];
      const differs = Boolean(other && map && id !== state.diff && id !== "truth");
      figure.classList.toggle("focused", id === state.focus);
      figure.classList.toggle("reference", id === state.diff);
      figure.dataset.shows = id === "image" ? "image" : differs ? "difference" : "depth";
      key.textContent = keys[id] ?? "";
      if (map && differs) Colors.paintDifference(picture, map, other, state.span);
      else if (map) Colors.paintDepth(picture, map);
      cross.hidden = !state.pixel;
      if (state.pixel) {
        const { w, h, stride } = content.maps.truth;
        cross.style.left = `${(100 * (state.pixel[0] / stride + 0.5)) / w}%`;
        cross.style.top = `${(100 * (state.pixel[1] / stride + 0.5)) / h}%`;
      }
    }
    label(state.pixel);
  }

  // Sets the value in each caption: the depth at a pixel, or the metric of the image if no pixel is given.
  function label(pixel) {
    for (const { id, value, figure } of panels.values()) {
      if (id === "image") continue;
      value.textContent = pixel ? depthText(id, pixel, figure.dataset.shows) : drawn.metricText(id);
    }
  }

  function depthText(id, pixel, shows) {
    const depth = depthAt(drawn.maps[id], pixel);
    if (shows !== "difference") return depth === depth ? `${depth.toFixed(2)} m` : "none";
    const difference = depth - depthAt(drawn.maps[drawn.state.diff], pixel);
    if (difference !== difference) return "none";
    return `${difference < 0 ? "−" : "+"}${Math.abs(difference).toFixed(2)} m`;
  }

  function depthAt(map, [x, y]) {
    return map ? Colors.depthOf(map.codes[Math.floor(y / map.stride) * map.w + Math.floor(x / map.stride)]) : NaN;
  }

  function hover(position) {
    if (!drawn) return;
    const { w, h, stride } = drawn.maps.truth;
    const inside = position && position.every((share) => share >= 0 && share < 1);
    label(inside ? [Math.floor(position[0] * w) * stride, Math.floor(position[1] * h) * stride] : drawn.state.pixel);
  }

  // Resolves when the image is decoded. `name` is that of its file.
  function setImage(address, name) {
    const { picture } = panels.get("image");
    if (picture.getAttribute("src") !== address) picture.src = address;
    return picture.decode().catch(() => Promise.reject(new Error(`${name} cannot be read`)));
  }

  const dim = (waiting) => panels.forEach(({ figure }) => figure.classList.toggle("waiting", waiting));

  return { build, arrange, draw, setImage, dim, depthAt, make };
})();
