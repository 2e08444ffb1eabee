// The view's state, stored in the address so that a copied address shows the same view.
"use strict";

const State = (() => {
  const DEFAULTS = { data: "", image: "", show: null, focus: "", diff: "", pixel: null, sort: "", metric: "abs_rel", span: 0 };

  function read() {
    const words = new URLSearchParams(location.hash.slice(1));
    const pixel = (words.get("pixel") ?? "").split(",").map(Number);
    return {
      ...DEFAULTS,
      ...Object.fromEntries(["data", "image", "focus", "diff", "sort"].map((name) => [name, words.get(name) ?? ""])),
      metric: words.get("metric") ?? DEFAULTS.metric,
      show: words.has("show") ? words.get("show").split(",") : null,
      pixel: pixel.length === 2 && pixel.every(Number.isFinite) ? pixel : null,
      span: Number(words.get("span")) || 0,
    };
  }

  function write(state) {
    const words = new URLSearchParams();
    for (const [name, value] of Object.entries(state))
      if (value !== null && value !== DEFAULTS[name]) words.set(name, String(value));
    const hash = `#${words.toString().replaceAll("%2C", ",").replaceAll("%2F", "/")}`;
    if (hash !== location.hash) history.replaceState(null, "", hash);
  }

  return { read, write };
})();
