// The right column: the distribution at a pixel, the metrics of the image, and the runs behind them.
"use strict";

const Detail = (() => {
  const { make } = Panels;
  const row = (cells, kind = "") => {
    const line = make("tr", kind);
    line.append(...cells);
    return line;
  };

  // -- the distribution ------------------------------------------------------------------------------------------------

  function showDistribution(area, found) {
    if (typeof found === "string") return area.replaceChildren(make("p", "note", found));
    const { student, target, truth, result, pixel, mass } = found;
    const key = make("table", "readings");
    key.append(row(["", "depth", "expected", "std"].map((text) => make("th", "", text))));
    const line = (kind, name, depth, one, more = "") =>
      key.append(row([
        make("th", kind, name),
        make("td", "", depth === depth ? `${depth.toFixed(2)} m` : "none"),
        make("td", "", one ? `${one.mean.toFixed(2)} m` : more),
        make("td", "", one ? `± ${one.std.toFixed(2)} m` : ""),
      ]));
    if (target) line("teacher", "teacher's target", target.depthOfMap, target);
    line("student", "student", student.depth, student);
    line("truth", "ground truth", truth.depth, null, truth.away > 0 && truth.away < Infinity ? `${Math.round(truth.away)} px away` : "");
    area.replaceChildren(
      make("p", "where", `${result.name}, pixel ${pixel.join(", ")}`),
      Chart.draw(student, target, truth.depth, result.dpm.edges),
      key,
      make("p", "note", noteOn(result, target, mass)),
    );
  }

  function noteOn(result, target, mass) {
    const { about, trained, error, edges } = result.dpm;
    const told = target ? `Target: ${about}${trained ? "" : " (its loss does not use it)"}. ` : "";
    const kept = `Stored: ${edges.length - 1} bins in ${mass} steps; expected depths are off by at most ${error < 0.001 ? "1 mm" : `${Math.ceil(error * 1000)} mm`}.`;
    return told + kept;
  }

  // -- metrics ---------------------------------------------------------------------------------------------------------

  function showMetrics(area, view, actions) {
    const { results, shown, place, metrics, state, keys } = view;
    const head = ["", "", "Result", ...metrics.map((metric) => metric.label), "Pixels", "Protocol"];
    const table = make("table", "metrics");
    table.append(row(head.map((text, i) => make("th", metrics[i - 3]?.id === state.metric ? "chosen" : "", text))));
    for (const result of results) {
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = shown.includes(result);
      box.setAttribute("aria-label", `show ${result.name}`);
      box.addEventListener("change", () => actions.toggle(result.id));
      const first = make("td", "");
      first.append(box);
      const name = make("td", "name", result.name);
      name.title = result.name;
      name.addEventListener("click", () => actions.focus(result.id));
      const values = metrics.map((metric, m) => {
        const value = result.metrics[place * metrics.length + m];
        return make("td", metric.id === state.metric ? "chosen" : "", value === value ? value.toFixed(3) : "–");
      });
      const rest = [make("td", "", String(result.valid[place])), make("td", "", result.protocol)];
      const line = row([first, make("td", "digit", keys[result.id] ?? ""), name, ...values, ...rest]);
      line.dataset.id = result.id;
      line.classList.toggle("focused", result.id === state.focus);
      table.append(line);
    }
    area.replaceChildren(table);
  }

  // -- runs ------------------------------------------------------------------------------------------------------------

  function showRuns(area, result, store) {
    if (!result || result.teacher) {
      const text = result ? "Depth maps on disk that students were trained on; their manifest says how they were made." : "";
      return area.replaceChildren(make("p", "note", text));
    }
    const lines = Object.entries(result.runs).map(([run, seed]) => {
      const line = make("li", run === result.id ? "chosen" : "");
      line.append(runLink(run, store), ` seed ${seed}${run === result.id ? " (shown)" : ""}`);
      return line;
    });
    const list = make("ul", "runs");
    list.append(...lines);
    const words = Object.values(result.labels).filter(Boolean).join(" · ");
    const study = result.study ? `study ${result.study}, ` : "";
    area.replaceChildren(make("p", "where", words), make("p", "note", `${study}store ${store.uri}`), list);
  }

  // Only a page opened as a file can link to a folder; browsers block such links on a served page.
  function runLink(run, store) {
    if (!store.path || location.protocol !== "file:") return make("code", "", run);
    const link = make("a", "", run);
    link.href = `${store.path.split("/").map(encodeURIComponent).join("/")}/runs/${run}/`;
    return link;
  }

  return { showDistribution, showMetrics, showRuns };
})();
