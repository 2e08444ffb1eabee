// Chart of the distributions at one pixel: the teacher's target above a shared depth axis, the student's below.
"use strict";

const Chart = (() => {
  const WIDTH = 420, HALF = 92, AXIS = 26, SIDE = 34, TOP = 4;
  const TAIL = 1e-3; // probability mass that may be cut off on each side
  const SPACE = "http://www.w3.org/2000/svg";

  const svg = (tag, attributes, text = "") => {
    const element = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };

  // Probabilities of the bins at one point, with their mean and standard deviation in m.
  function distribution(dpm, point, edges, mass) {
    const p = Float64Array.from({ length: dpm.bins }, (_, bin) => dpm.parts[point * dpm.bins + bin] / mass);
    let mean = 0, square = 0;
    p.forEach((share, bin) => {
      const center = (edges[bin] + edges[bin + 1]) / 2;
      mean += share * center;
      square += share * center * center;
    });
    return { p, mean, std: Math.sqrt(Math.max(0, square - mean * mean)), depth: dpm.depth[point] };
  }

  // The depth range that contains everything drawn, plus a margin.
  function visibleRange(edges, distributions, depths) {
    let low = Infinity, high = -Infinity;
    for (const { p } of distributions) {
      let below = 0;
      p.forEach((share, bin) => {
        if (below + share > TAIL) low = Math.min(low, edges[bin]);
        if (below < 1 - TAIL) high = Math.max(high, edges[bin + 1]);
        below += share;
      });
    }
    const known = depths.filter((depth) => depth === depth);
    low = Math.min(low, ...known);
    high = Math.max(high, ...known);
    const margin = 0.06 * (high - low);
    return [Math.max(edges[0], low - margin), Math.min(edges[edges.length - 1], high + margin)];
  }

  // SVG path of a histogram. `y` converts a density (1/m) to a y coordinate; `base` is the y coordinate of the axis.
  function outline(p, edges, x, y, base) {
    let path = `M${x(edges[0]).toFixed(1)} ${base}`;
    p.forEach((share, bin) => {
      const height = y(share / (edges[bin + 1] - edges[bin])).toFixed(1);
      path += `L${x(edges[bin]).toFixed(1)} ${height}L${x(edges[bin + 1]).toFixed(1)} ${height}`;
    });
    return `${path}L${x(edges[edges.length - 1]).toFixed(1)} ${base}Z`;
  }

  const maxDensity = ({ p }, edges) => p.reduce((top, share, bin) => Math.max(top, share / (edges[bin + 1] - edges[bin])), 0);

  function ticks(low, high) {
    const rough = (high - low) / 6, ten = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((digit) => digit * ten).find((size) => size >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
  }

  // `target` may be null; `truth` is a depth in m, NaN where none was measured.
  function draw(student, target, truth, edges) {
    const drawn = target ? [target, student] : [student];
    const [low, high] = visibleRange(edges, drawn, [student.depth, target?.depth ?? NaN, truth]);
    const x = (depth) => SIDE + ((Math.max(low, Math.min(high, depth)) - low) / (high - low)) * (WIDTH - 2 * SIDE);
    const top = Math.max(...drawn.map((one) => maxDensity(one, edges))) * 1.08;
    const up = TOP + HALF, down = up + AXIS, bottom = down + HALF;
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${bottom + TOP}`, role: "img", class: "dpm" });
    picture.append(svg("title", {}, "Probability density over depth, per meter"));
    const part = (one, kind, base, direction) =>
      picture.append(svg("path", { class: kind, d: outline(one.p, edges, x, (share) => base + (direction * HALF * share) / top, base) }));
    if (target) part(target, "teacher", up, -1);
    part(student, "student", down, 1);
    line(picture, x(truth), TOP, up, "truth", truth);
    line(picture, x(truth), down, bottom, "truth", truth);
    if (target) line(picture, x(target.depth), TOP, up, "teacher", target.depth);
    line(picture, x(student.depth), down, bottom, "student", student.depth);
    axis(picture, x, ticks(low, high), up, down);
    if (target) sideLabel(picture, "teacher", "teacher's target", (TOP + up) / 2);
    sideLabel(picture, "student", "student", (down + bottom) / 2);
    return picture;
  }

  // A label along the left edge.
  function sideLabel(picture, kind, text, middle) {
    const place = { class: `side ${kind}`, x: SIDE - 12, y: middle, transform: `rotate(-90 ${SIDE - 12} ${middle})` };
    picture.append(svg("text", { ...place, "text-anchor": "middle" }, text));
  }

  function line(picture, at, from, to, kind, depth) {
    if (depth === depth) picture.append(svg("line", { class: `depth ${kind}`, x1: at, x2: at, y1: from, y2: to }));
  }

  function axis(picture, x, depths, up, down) {
    for (const base of [up, down]) picture.append(svg("line", { class: "axis", x1: SIDE, x2: WIDTH - SIDE, y1: base, y2: base }));
    depths.forEach((depth, i) => {
      const place = { class: "tick", x: x(depth), y: (up + down) / 2 + 4, "text-anchor": "middle" };
      picture.append(svg("text", place, i === depths.length - 1 ? `${depth} m` : String(depth)));
    });
  }

  return { distribution, draw };
})();
