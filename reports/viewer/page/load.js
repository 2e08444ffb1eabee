// Loads data files through script tags, because browsers block fetch() on pages opened as files. Each data file calls
// `arrived` or `arrivedIndex`.
"use strict";

const Load = (() => {
  const ROOT = "data/v1/";
  const CACHE_SIZE = 320; // decoded files; about 13 results of 20 frames
  const cache = new Map(); // name -> promise, least recently used first
  const contents = new Map(); // name -> content passed by a script that has just run

  window.arrived = (name, about, text) => contents.set(name, { about, text });
  window.arrivedIndex = (name, index) => contents.set(`${name}#index`, index);

  function run(file, name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = ROOT + file;
      script.onload = () => {
        script.remove();
        const content = contents.get(name);
        contents.delete(name);
        content ? resolve(content) : reject(new Error(`${file} does not hold ${name}`));
      };
      script.onerror = () => {
        script.remove();
        reject(new Error(`${ROOT}${file} cannot be read`));
      };
      document.head.append(script);
    });
  }

  function cached(name, make) {
    const known = cache.get(name) ?? make();
    cache.delete(name);
    cache.set(name, known);
    known.catch(() => cache.delete(name));
    if (cache.size > CACHE_SIZE) cache.delete(cache.keys().next().value);
    return known;
  }

  const stem = (frame) => String(frame).padStart(5, "0");
  const read = (name, decode) =>
    cached(name, () => run(`${name}.js`, name).then(({ about, text }) => decode(about, text)));

  return {
    index: (name) => run(`${name ? `${name}/` : ""}index.js`, `${name}#index`),
    // As data in the address: of an image in a file of its own, a page opened as a file may not save a picture.
    image: (dataset, frame) => read(`${dataset}/image/${stem(frame)}`, (_, text) => `data:image/webp;base64,${text}`),
    map: (dataset, result, frame) => read(`${dataset}/${result}/${stem(frame)}`, Numbers.map),
    dpm: (dataset, result, frame) => read(`${dataset}/${result}/${stem(frame)}.dpm`, Numbers.dpm),
  };
})();
