// Color maps of depths and differences, and their legends in meters.
"use strict";

const Colors = (() => {
  const GRAY = 0xff6e6e6e; // pixels without a depth; ABGR, the byte order of a canvas
  const LEVELS = 256;
  let tables, depths;
  let depthColors; // by depth code
  let range = null;

  const packed = (rgb) =>
    Uint32Array.from({ length: LEVELS }, (_, i) => 0xff000000 | (rgb[3 * i + 2] << 16) | (rgb[3 * i + 1] << 8) | rgb[3 * i]);
  const level = (share) => Math.max(0, Math.min(LEVELS - 1, Math.round(share * (LEVELS - 1))));
  const shareOf = (depth) => Math.log(depth / range.near) / Math.log(range.far / range.near);

  function init(index) {
    tables = {
      depth: packed(Numbers.bytesOf(index.colors.depth)),
      difference: packed(Numbers.bytesOf(index.colors.difference)),
    };
    depths = Numbers.depthTable(index.format);
  }

  function setRange(near, far) {
    range = { near, far };
    depthColors = Uint32Array.from(depths, (depth, code) => (code ? tables.depth[level(shareOf(depth))] : GRAY));
  }

  function paint(canvas, map, colorAt) {
    if (canvas.width !== map.w || canvas.height !== map.h) [canvas.width, canvas.height] = [map.w, map.h];
    const context = canvas.getContext("2d");
    const image = context.createImageData(map.w, map.h);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colorAt(i);
    context.putImageData(image, 0, 0);
  }

  const paintDepth = (canvas, map) => paint(canvas, map, (i) => depthColors[map.codes[i]]);

  // shown - other in m: white at 0, saturated beyond ±`span`.
  function paintDifference(canvas, shown, other, span) {
    const factor = (LEVELS - 1) / (2 * span);
    paint(canvas, shown, (i) => {
      const difference = depths[shown.codes[i]] - depths[other.codes[i]];
      if (difference !== difference) return GRAY; // NaN: one of the two has no depth
      return tables.difference[Math.max(0, Math.min(LEVELS - 1, Math.round((difference + span) * factor)))];
    });
  }

  const css = (color) => `rgb(${color & 255} ${(color >> 8) & 255} ${(color >> 16) & 255})`;

  // A color bar. `ticks`: [{share, text}], share from 0 (left) to 1 (right).
  function legend(element, kind, ticks) {
    element.dataset.colors = kind;
    element.querySelector(".bar").style.background = `linear-gradient(90deg, ${barColors(kind).join(", ")})`;
    element.querySelector(".ticks").replaceChildren(
      ...ticks.map(({ share, text }) => {
        const tick = document.createElement("span");
        tick.style.left = `${100 * share}%`;
        tick.textContent = text;
        return tick;
      }),
    );
  }

  const neat = (number) => String(Number(number.toPrecision(3)));

  function depthLegend(element) {
    const inside = [];
    for (let ten = 1e-3; ten < 1e3; ten *= 10) for (const digit of [1, 2, 5]) inside.push(digit * ten);
    const between = inside.filter((depth) => shareOf(depth) > 0.12 && shareOf(depth) < 0.82);
    const ends = [
      { share: 0, text: `≤ ${neat(range.near)}` },
      { share: 1, text: `≥ ${neat(range.far)} m` },
    ];
    legend(element, "depth", [...ends, ...between.map((depth) => ({ share: shareOf(depth), text: neat(depth) }))]);
  }

  function differenceLegend(element, span) {
    const ticks = [-1, -0.5, 0, 0.5, 1].map((share) => ({
      share: (share + 1) / 2,
      text: `${share > 0 ? "+" : share < 0 ? "−" : ""}${neat(Math.abs(share * span))}${share === 1 ? " m" : ""}`,
    }));
    legend(element, "difference", ticks);
  }

  // The colors of a bar from left to right, as CSS.
  const barColors = (kind) => Array.from({ length: 33 }, (_, i) => css(tables[kind][level(i / 32)]));

  return {
    init, setRange, paintDepth, paintDifference, depthLegend, differenceLegend, barColors, neat,
    depthOf: (code) => depths[code],
  };
})();
