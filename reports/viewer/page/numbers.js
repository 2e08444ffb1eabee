// Packed numbers (reports/viewer/pack.py) into typed arrays.
"use strict";

const Numbers = (() => {
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  async function inflate(text) {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // All low bytes, then all high ones.
  function joined(bytes) {
    const n = bytes.length / 2;
    const values = new Uint16Array(n);
    for (let i = 0; i < n; i++) values[i] = bytes[i] | (bytes[n + i] << 8);
    return values;
  }

  // Adds to each folded difference what the neighbours to the left, above and between let expect.
  function unpredict(codes, width) {
    for (let i = 0; i < codes.length; i++) {
      const left = i % width ? codes[i - 1] : 0;
      const above = i >= width ? codes[i - width] : 0;
      const corner = i % width && i >= width ? codes[i - width - 1] : 0;
      const low = left < above ? left : above;
      const high = left < above ? above : left;
      const plane = left + above - corner;
      const expected = plane < low ? low : plane > high ? high : plane;
      codes[i] = expected + (codes[i] & 1 ? -((codes[i] + 1) >> 1) : codes[i] >> 1);
    }
    return codes;
  }

  // {h, w, stride, every, codes}: codes of kept pixels, 0 for no depth.
  async function map(about, text) {
    const codes = joined(await inflate(text));
    return { ...about, codes: about.dense ? unpredict(codes, about.w) : codes };
  }

  // {n, bins, depth, parts}: of n points the expected depth in m, and parts[point * bins + bin].
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
