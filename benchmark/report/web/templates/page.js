const data = JSON.parse(document.getElementById("report-data").textContent);
// Each panel's script adds a function here, by the name of its template: (element, data) => void.
const panels = {};

// Draw what is in sight, once: charts of closed chapters cost nothing.
function draw(element) {
  if (element.dataset.drawn) return;
  element.dataset.drawn = "yes";
  if (element.dataset.chart) {
    window.vegaEmbed(element, data.charts[element.dataset.chart], { actions: false, renderer: "svg", tooltip: { theme: "light" } })
      .then(() => label(element))
      .catch((error) => { element.textContent = `This chart cannot be drawn: ${error.message}`; console.error(error); });
  } else {
    panels[element.dataset.template]?.(element, data.panels[element.dataset.panel]);
  }
}

// vega-embed's inputs have a name beside them, and no label.
function label(element) {
  for (const bind of element.querySelectorAll(".vega-bind")) {
    const name = bind.querySelector(".vega-bind-name");
    for (const input of bind.querySelectorAll("input, select")) {
      if (!input.closest("label")?.textContent.trim()) input.setAttribute("aria-label", name?.textContent ?? "choice");
    }
  }
}

function sortable(table) {
  const body = table.tBodies[0];
  let original = [...body.rows];
  table.addEventListener("refilled", () => {
    original = [...body.rows];
    for (const header of table.tHead.rows[0].cells) header.removeAttribute("aria-sort");
  });
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const order = { descending: "ascending", ascending: "" }[header.getAttribute("aria-sort")] ?? "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (order) header.setAttribute("aria-sort", order);
      const column = header.cellIndex;
      const rows = order ? [...original].sort((a, b) => compare(a.cells[column], b.cells[column], order)) : original;
      body.append(...rows);
    });
  }
}

// Numbers by value, texts by letter; what is missing comes last in both orders.
function compare(a, b, order) {
  const [x, y] = [a, b].map((cell) => cell.dataset.sort ?? cell.textContent.trim());
  const absent = [x, y].map((text) => text === "—" || text === "");
  if (absent[0] || absent[1]) return absent[0] - absent[1];
  const numeric = !Number.isNaN(Number(x)) && !Number.isNaN(Number(y));
  const difference = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
  return order === "ascending" ? difference : -difference;
}

function openTo(hash) {
  const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
}

function start() {
  document.querySelectorAll("table.sortable").forEach(sortable);
  const seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    seen.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "400px" });
  document.querySelectorAll("[data-chart], [data-panel]").forEach((element) => seen.observe(element));
  addEventListener("hashchange", () => openTo(location.hash));
  addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (link) openTo(link.getAttribute("href"));
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
  openTo(location.hash);
  document.documentElement.dataset.ready = "yes";
}
