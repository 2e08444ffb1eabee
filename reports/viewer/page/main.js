// Controller: every key and click calls `change`, which updates the state, the address and the page.
"use strict";

const Viewer = (() => {
  const { make } = Panels;
  const at = (id) => document.getElementById(id);
  const datasets = new Map(); // id -> index
  const hidden = new Set(); // names of hidden results, which stay hidden in other data sets
  let site, dataset, state, places, turn = 0;

  const results = () => dataset.results.filter((result) => !state.show || state.show.includes(result.id));
  const resultOf = (id) => dataset.results.find((result) => result.id === id);
  const place = () => dataset.keys.indexOf(state.image);
  const metric = () => site.metrics.find(({ id }) => id === state.metric);
  const keysOf = (shown) => ({ truth: "0", ...Object.fromEntries(shown.map(({ id }, i) => [id, Keys.RESULTS[i] ?? "–"])) });

  // -- state -----------------------------------------------------------------------------------------------------------

  const markBusy = () => (document.body.dataset.ready = "false"); // until the pictures are drawn

  async function change(changes) {
    markBusy();
    state = { ...state, ...changes };
    if (dataset?.id !== state.data) {
      await openDataset(state.data);
      if (changes.show === undefined) state.show = dataset.results.filter(({ name }) => !hidden.has(name)).map(({ id }) => id);
    }
    validate();
    for (const { id, name } of dataset.results) hidden[state.show && !state.show.includes(id) ? "add" : "delete"](name);
    State.write(state);
    await show();
  }

  async function openDataset(id) {
    if (!datasets.has(id)) {
      const index = { id, ...(await Load.index(id)) };
      for (const result of index.results) {
        result.metrics = Numbers.floats(result.metrics);
        result.valid = Numbers.integers(result.valid);
      }
      datasets.set(id, index);
    }
    dataset = datasets.get(id);
    Colors.setRange(dataset.near, dataset.far);
    Colors.depthLegend(at("depth-legend"));
  }

  // Replaces names that the data set does not have by valid ones.
  function validate() {
    if (!metric()) state.metric = site.metrics[0].id;
    if (state.show && [0, dataset.results.length].includes(results().length)) state.show = null;
    const shown = results();
    const first = shown.find((result) => result.dpm) ?? shown[0];
    if (!shown.some(({ id }) => id === state.focus)) state.focus = first.id;
    if (state.diff !== "truth" && !shown.some(({ id }) => id === state.diff)) state.diff = "";
    if (!resultOf(state.sort)) state.sort = "";
    if (!(state.span > 0)) state.span = Number(((dataset.far - dataset.near) / 8).toPrecision(1));
    places = Frames.order(dataset, resultOf(state.sort), metric(), site.metrics);
    if (place() < 0) state.image = dataset.keys[places[0]];
  }

  // -- drawing ---------------------------------------------------------------------------------------------------------

  async function show() {
    const mine = ++turn, shown = results(), here = place();
    showControls(shown, here);
    Panels.build(at("panels"), shown, actions);
    const slow = setTimeout(() => Panels.dim(true), 120);
    try {
      const maps = await mapsOf(shown, here);
      if (mine !== turn) return;
      if (state.pixel) state.pixel = Pixel.snap(maps.truth, state.pixel);
      State.write(state);
      Panels.arrange(at("panels"), maps.truth.w / maps.truth.h);
      const image = Load.image(dataset.id, dataset.frames[here]).then((address) => {
        if (mine === turn) return Panels.setImage(address, dataset.keys[here]);
      });
      Panels.draw({ maps, metricText: (id) => metricText(resultOf(id), here) }, state, keysOf(shown));
      const from = { dataset: dataset.id, frame: dataset.frames[here], maps };
      const [description] = await Promise.all([Pixel.describe(resultOf(state.focus), state.pixel, from, site.format.mass), image]);
      if (mine !== turn) return;
      Detail.showDistribution(at("distribution"), description);
      Panels.dim(false);
      at("problem").textContent = "";
      prefetch(shown, here);
    } catch (problem) {
      if (mine === turn) at("problem").textContent = problem.message;
    } finally {
      clearTimeout(slow);
    }
    if (mine === turn) document.body.dataset.ready = "true";
  }

  async function mapsOf(shown, here) {
    const names = ["truth", ...shown.map(({ id }) => id)];
    const found = await Promise.all(names.map((name) => Load.map(dataset.id, name, dataset.frames[here])));
    return Object.fromEntries(names.map((name, i) => [name, found[i]]));
  }

  // Loads the next two images and the previous one, in the order of the list.
  function prefetch(shown, here) {
    const position = places.indexOf(here);
    for (const offset of [1, -1, 2]) {
      const next = places[position + offset];
      if (next === undefined) continue;
      const distributions = state.pixel ? Pixel.filesOf(resultOf(state.focus)) : [];
      const loads = [mapsOf(shown, next), Load.image(dataset.id, dataset.frames[next])];
      loads.push(...distributions.map((name) => Load.dpm(dataset.id, name, dataset.frames[next])));
      Promise.all(loads).catch(() => {}); // reported when the image itself is requested
    }
  }

  function showControls(shown, here) {
    const sorted = resultOf(state.sort);
    at("dataset").value = state.data;
    at("metric").value = state.metric;
    options(at("sort"), [["", "in order"], ...dataset.results.map(({ id, name }) => [id, `${name}, worst first`])], state.sort);
    const numbered = sorted ?? resultOf(state.focus);
    const numberOf = (place) => metricText(numbered, place);
    const pick = (picked) => change({ image: dataset.keys[picked] });
    Frames.show(at("frames"), dataset, places, `${numbered.id} ${state.metric}`, numberOf, pick);
    Frames.mark(here);
    at("title").textContent = dataset.keys[here];
    at("count").textContent = `${places.indexOf(here) + 1} / ${places.length}`;
    at("difference").hidden = !state.diff;
    if (state.diff) {
      const name = state.diff === "truth" ? "ground truth" : resultOf(state.diff).name;
      at("other").textContent = `shown − ${name}; red: farther away`;
      Colors.differenceLegend(at("difference-legend"), state.span);
    }
    const view = { results: dataset.results, shown, place: here, metrics: site.metrics, state, keys: keysOf(shown) };
    Detail.showMetrics(at("metrics"), view, actions);
    Detail.showRuns(at("runs"), resultOf(state.focus), site.store);
  }

  function metricText(result, here) {
    if (!result) return "";
    const value = result.metrics[here * site.metrics.length + site.metrics.indexOf(metric())];
    return value === value ? value.toFixed(3) : "–";
  }

  // -- actions of keys and clicks ---------------------------------------------------------------------------------------

  const actions = {
    step(by) {
      const next = Math.max(0, Math.min(places.length - 1, places.indexOf(place()) + by));
      change({ image: dataset.keys[places[next]] });
    },
    select(by) {
      const shown = results(), now = shown.findIndex(({ id }) => id === state.focus);
      change({ focus: shown[(now + by + shown.length) % shown.length].id });
    },
    focus: (id) => change(resultOf(id) ? { focus: id } : {}),
    differ: (id) => change({ diff: state.diff === id ? "" : id }),
    differNth(place) {
      if (results()[place]) actions.differ(results()[place].id);
    },
    widen: (factor) => change({ span: Number((state.span * factor).toPrecision(3)) }),
    sortByWorst: () => change({ sort: state.sort === state.focus ? "" : state.focus }),
    nextMetric(by) {
      const ids = site.metrics.map(({ id }) => id);
      change({ metric: ids[(ids.indexOf(state.metric) + by + ids.length) % ids.length] });
    },
    async pick(id, [across, down]) {
      markBusy();
      const map = await Load.map(dataset.id, "truth", dataset.frames[place()]);
      const pixel = [across * map.w * map.stride, down * map.h * map.stride];
      change({ pixel, ...(resultOf(id) ? { focus: id } : {}) });
    },
    togglePixel: () => (state.pixel ? change({ pixel: null }) : actions.pick("image", [0.5, 0.5])),
    async movePixel([right, down]) {
      if (!state.pixel) return actions.togglePixel();
      markBusy();
      const { every, stride } = await Load.map(dataset.id, "truth", dataset.frames[place()]);
      change({ pixel: [state.pixel[0] + right * every * stride, state.pixel[1] + down * every * stride] });
    },
    toggle(id) {
      const ids = results().map((result) => result.id);
      const left = ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id];
      change({ show: left.length === dataset.results.length || !left.length ? null : left });
    },
    hide: () => actions.toggle(state.focus),
    showAll: () => change({ show: null }),
    nextDataset() {
      const ids = site.datasets.map(({ id }) => id);
      change({ data: ids[(ids.indexOf(state.data) + 1) % ids.length], span: 0 });
    },
    async save() {
      const name = `${site.datasets.find(({ id }) => id === dataset.id).name} ${dataset.keys[place()]}`;
      const about = state.diff ? `; ${at("other").textContent}` : "";
      await Picture.save(at("panels"), document.querySelectorAll("header .legend"), name, about);
    },
    help: () => (at("help").open ? at("help").close() : at("help").showModal()),
    leave: () => (at("help").open ? at("help").close() : change({ pixel: null, diff: "" })),
  };

  // -- start -----------------------------------------------------------------------------------------------------------

  function options(select, choices, chosen) {
    select.replaceChildren(...choices.map(([value, text]) => Object.assign(make("option", "", text), { value })));
    select.value = chosen;
  }

  // The state in the address. An address with only a run selects the data set of that run.
  function stateFromAddress() {
    const read = State.read();
    const known = site.datasets.find(({ id }) => id === read.data);
    const having = site.datasets.find(({ runs }) => runs.includes(read.focus));
    return { ...read, data: (known ?? having ?? site.datasets[0]).id };
  }

  async function start() {
    if (!("DecompressionStream" in window)) throw new Error("This browser is too old: the viewer needs DecompressionStream (2023).");
    site = await Load.index("");
    Colors.init(site);
    options(at("dataset"), site.datasets.map(({ id, name }) => [id, name]), "");
    options(at("metric"), site.metrics.map(({ id, label }) => [id, label]), "");
    const onChange = (id, changes) => at(id).addEventListener("change", (event) => {
      event.target.blur();
      change(changes(event.target.value));
    });
    onChange("dataset", (id) => ({ data: id, span: 0 }));
    onChange("sort", (id) => ({ sort: id }));
    onChange("metric", (id) => ({ metric: id }));
    at("back").addEventListener("click", () => actions.step(-1));
    at("next").addEventListener("click", () => actions.step(1));
    at("save").addEventListener("click", () => actions.save());
    at("ask").addEventListener("click", () => actions.help());
    Keys.listen(actions);
    Keys.fillHelp(at("keys"));
    window.addEventListener("hashchange", () => change(stateFromAddress()));
    window.addEventListener("resize", () => change({}));
    await change(stateFromAddress());
  }

  start().catch((problem) => (at("problem").textContent = problem.message));
})();
