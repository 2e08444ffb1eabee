// Data at one pixel. Distributions are stored on a grid: at every `every`-th pixel of a stored depth map.
"use strict";

const Pixel = (() => {
  const firstOf = (map) => Math.floor(map.every / 2);

  // The nearest pixel with a stored distribution, in px of the frame.
  function snap(map, pixel) {
    const along = (value, size) => {
      const last = Math.floor((size - 1 - firstOf(map)) / map.every);
      const step = Math.max(0, Math.min(last, Math.round((value / map.stride - firstOf(map)) / map.every)));
      return (firstOf(map) + step * map.every) * map.stride;
    };
    return [along(pixel[0], map.w), along(pixel[1], map.h)];
  }

  // Index of such a pixel in the grid, row by row.
  function pointOf(map, pixel) {
    const across = Math.ceil((map.w - firstOf(map)) / map.every);
    const [column, row] = pixel.map((value) => (value / map.stride - firstOf(map)) / map.every);
    return row * across + column;
  }

  // LiDAR measures few of these pixels, so use the nearest measurement that is closer to this grid point than to others.
  function nearestTruth(map, pixel) {
    const reach = firstOf(map) * map.stride;
    let found = { depth: NaN, away: Infinity };
    for (let down = -reach; down <= reach; down += map.stride) {
      for (let right = -reach; right <= reach; right += map.stride) {
        const [x, y] = [pixel[0] + right, pixel[1] + down], away = Math.hypot(right, down);
        const inside = x >= 0 && y >= 0 && x < map.w * map.stride && y < map.h * map.stride;
        const depth = inside ? Panels.depthAt(map, [x, y]) : NaN;
        if (depth === depth && away < found.away) found = { depth, away };
      }
    }
    return found;
  }

  // Names of the files with a student's distributions and its targets.
  const filesOf = (result) => (result.dpm ? [result.id, ...(result.dpm.target ? [result.dpm.target] : [])] : []);

  // The distributions of a result at a pixel, or a text that says why there are none. `from`: {dataset, frame, maps}.
  async function describe(result, pixel, from, mass) {
    if (!pixel) return "Click a picture or press p to see the selected result at that pixel.";
    if (result.teacher) return "A teacher's map holds one depth per pixel. Select a student to see its distribution and its target.";
    if (!result.dpm) {
      return result.head === "regression"
        ? `${result.name} has a regression head: it predicts one depth per pixel, not a distribution.`
        : `${result.name} chooses new bins for each image; its distributions are not stored.`;
    }
    const { dataset, frame, maps } = from, truth = nearestTruth(maps.truth, pixel), point = pointOf(maps.truth, pixel);
    const [own, wanted] = await Promise.all(filesOf(result).map((name) => Load.dpm(dataset, name, frame)));
    const student = Chart.distribution(own, point, result.dpm.edges, mass);
    const teacher = wanted && Panels.depthAt(maps[result.maps] ?? (await Load.map(dataset, result.maps, frame)), pixel);
    const target = teacher > 0 ? { ...Chart.distribution(wanted, point, result.dpm.edges, mass), depthOfMap: teacher } : null;
    return { result, pixel, mass, truth, student, target };
  }

  return { snap, filesOf, describe };
})();
