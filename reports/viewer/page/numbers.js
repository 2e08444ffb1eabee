// Decodes the data files written by reports/viewer/encoding.py into typed arrays.
"use strict";

const Numbers = (() => {
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  async function inflate(text) {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // uint16 values stored as all low bytes followed by all high bytes.
  function joined(bytes) {
    const n = bytes.length / 2;
    const values = new Uint16Array(n);
    for (let i = 0; i < n; i++) values[i] = bytes[i] | (bytes[n + i] << 8);
    return values;
  }

  // Inverts the prediction from the neighbors on the left, above and above left (as in JPEG-LS), in place.
  function unpredict(codes, width) {
    for (let i = 0; i < codes.length; i++) {
      const left = i % width ? codes[i - 1] : 0;
      const above = i >= width ? codes[i - width] : 0;
      const corner = i % width && i >= width ? codes[i - width - 1] : 0;
      const low = left < above ? left : above;
      const high = left < above ? above : left;
      const plane = left + above - corner;
      const predicted = plane < low ? low : plane > high ? high : plane;
      codes[i] = predicted + (codes[i] & 1 ? -((codes[i] + 1) >> 1) : codes[i] >> 1);
    }
    return codes;
  }

  // Depth map {h, w, stride, every, codes}: codes of the stored pixels, 0 without a depth.
  async function map(about, text) {
    const codes = joined(await inflate(text));
    return { ...about, codes: about.dense ? unpredict(codes, about.w) : codes };
  }

  // Distributions {n, bins, depth, parts} at n points: expected depth in m, and the probability of each bin in steps of
  // 1 / index.format.mass, at parts[point * bins + bin].
  async function dpm(about, text) {
    const bytes = await inflate(text);
    return { ...about, depth: new Float32Array(bytes.slice(0, 4 * about.n).buffer), parts: joined(bytes.subarray(4 * about.n)) };
  }

  const floats = (text) => new Float32Array(bytesOf(text).buffer);
  const integers = (text) => new Int32Array(bytesOf(text).buffer);
  const depthTable = (format) =>
    Float32Array.from({ length: 65536 }, (_, code) => (code ? format.nearest * Math.exp((code - 1) * format.step) : NaN));

  return { bytesOf, map, dpm, floats, integers, depthTable };
})();
