// Tables that sort, filter and show other columns, and a page that renews itself while `tiekd report --serve` serves it.
"use strict";

(() => {
  const FILTERED_ROWS = 8; // tables with fewer rows get no filter
  const choices = new Map(); // by table: what the reader has chosen; kept when the page is renewed

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // The number with which a text begins; NaN without one.
  const numberOf = (text) => parseFloat(text.replace("−", "-").replace(/^[[(]/, ""));
  const isBlank = (text) => text === "" || text === "–" || text === "-";

  // Numbers by size, texts by alphabet, and blank entries last.
  function compare(a, b, down) {
    if (isBlank(a) || isBlank(b)) return isBlank(a) - isBlank(b);
    const [x, y] = [numberOf(a), numberOf(b)];
    const order = isNaN(x) || isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
    return down ? -order : order;
  }

  function equip(box, key) {
    const table = box.firstElementChild;
    const heads = [...table.tHead.rows[0].cells], titles = heads.map((head) => head.textContent);
    const rows = [...table.tBodies].flatMap((body) => [...body.rows].map((row) => ({ row, body, text: row.textContent.toLowerCase() })));
    if (rows.length < 2) return;
    const optional = heads.map((head) => head.hidden);
    const choice = choices.get(key) ?? { sort: "", down: false, filter: "", hidden: {} }; // columns by title
    choices.set(key, choice);
    const isHidden = (i) => choice.hidden[titles[i]] ?? optional[i];
    const count = make("output");

    function sort() {
      const column = titles.indexOf(choice.sort);
      const entry = ({ row }) => row.cells[column].textContent.trim();
      const sorted = column < 0 ? rows : [...rows].sort((a, b) => compare(entry(a), entry(b), choice.down));
      for (const { row, body } of sorted) (column < 0 ? body : table.tBodies[0]).append(row);
      heads.forEach((head, i) => {
        if (i === column) head.setAttribute("aria-sort", choice.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
    }

    function filter() {
      const words = choice.filter.toLowerCase().split(/\s+/).filter(Boolean);
      for (const { row, text } of rows) row.hidden = !words.every((word) => text.includes(word));
      count.textContent = words.length ? `${rows.filter(({ row }) => !row.hidden).length} of ${rows.length} rows` : "";
    }

    function hide() {
      for (const row of [table.tHead.rows[0], ...rows.map(({ row }) => row)])
        heads.forEach((_, i) => (row.cells[i].hidden = isHidden(i)));
    }

    // Ascending, descending, and then the page's own order.
    function sortBy(title) {
      const again = choice.sort === title;
      Object.assign(choice, again && choice.down ? { sort: "", down: false } : { sort: title, down: again });
      sort();
    }

    heads.forEach((head, i) => {
      const button = make("button", { type: "button", title: "sort" }, ...head.childNodes);
      button.addEventListener("click", () => sortBy(titles[i]));
      head.append(button);
    });
    const tools = make("div", { className: "tools" });
    if (rows.length >= FILTERED_ROWS) {
      const input = make("input", { type: "search", placeholder: "filter rows", ariaLabel: "filter rows", value: choice.filter });
      input.addEventListener("input", () => {
        choice.filter = input.value;
        filter();
      });
      tools.append(input, count);
    }
    if (optional.includes(true)) {
      const boxes = heads.map((_, i) => {
        const tick = make("input", { type: "checkbox", checked: !isHidden(i) });
        tick.addEventListener("change", () => {
          choice.hidden[titles[i]] = !tick.checked;
          hide();
        });
        return make("label", {}, tick, ` ${titles[i]}`);
      });
      tools.append(make("details", {}, make("summary", { textContent: "columns" }), ...boxes));
    }
    if (tools.childElementCount) box.before(tools);
    if (choice.sort) sort();
    if (choice.filter) filter();
    if (Object.keys(choice.hidden).length) hide();
  }

  // A table is recognized by the headings above it.
  function equipAll() {
    let section = "", heading = "";
    for (const element of document.querySelectorAll("h2, h3, h4, .table")) {
      if (element.className === "table") equip(element, `${section}|${heading}`);
      else [section, heading] = element.tagName === "H2" ? [element.textContent, ""] : [section, element.textContent];
    }
  }

  // -- a page that is served while its store changes ---------------------------------------------------------------------

  const stateOf = async () => (await fetch(location.pathname, { method: "HEAD", cache: "no-store" })).headers;

  async function renew() {
    const text = await (await fetch(location.pathname, { cache: "no-store" })).text();
    const page = new DOMParser().parseFromString(text, "text/html");
    document.title = page.title;
    document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
    equipAll();
  }

  // The server says in a header that it renews the page, and after how many seconds to ask again.
  async function follow() {
    let headers = await stateOf();
    const seconds = Number(headers.get("X-Renewed"));
    if (!seconds) return;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      const found = await stateOf().catch(() => headers); // the server may have ended
      if (found.get("Last-Modified") !== headers.get("Last-Modified")) await renew();
      headers = found;
    }
  }

  equipAll();
  if (location.protocol.startsWith("http")) follow().catch(() => {});
})();
