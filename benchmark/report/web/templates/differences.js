panels.differences = (panel, given) => {
  const choices = panel.querySelector(".choices");
  const [reference, column] = [choices.querySelector(".reference"), choices.querySelector(".column")];
  const [table, forest] = [panel.querySelector("table"), panel.querySelector(".forest")];
  given.columns.forEach((name, number) => column.add(new Option(name, number)));
  const points = (number) => (number > 0 || Object.is(number, 0) ? "+" : "") + number.toFixed(1).replace("-", "−");
  const bounded = (low) => low !== null;

  const cellOf = (numbers) => {
    const cell = document.createElement("td");
    if (!numbers) { cell.textContent = "—"; return cell; }
    const [value, low, high, verdict] = numbers;
    cell.dataset.sort = value;
    const under = document.createElement("small");
    under.textContent = (bounded(low) ? `${points(low)} to ${points(high)}\n` : "") + given.verdicts[verdict];
    cell.append(points(value), document.createElement("br"), under);
    return cell;
  };

  const fill = () => {
    const lines = given.against[reference.value];
    table.tBodies[0].replaceChildren(...given.order.filter((line) => lines[line]).map((line) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.className = "label";
      head.textContent = line;
      row.append(head, ...lines[line].map(cellOf));
      return row;
    }));
    table.dispatchEvent(new Event("refilled"));
    panel.querySelector(".stated").textContent = `Difference to ${reference.value}:`;
    panel.querySelector(".note").textContent = given.captions[reference.value];
  };

  const draw = () => {
    const lines = given.against[reference.value];
    const values = given.order.filter((line) => lines[line]?.[column.value]).map((line) => {
      const [value, low, high, verdict] = lines[line][column.value];
      const said = given.verdicts[verdict];
      return { line, value, low, high, verdict: said, shown: /^(better|worse|higher|lower)/.test(said) ? "difference shown" : "no difference shown" };
    });
    window.vegaEmbed(forest, {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json",
      width: "container", height: 22 * values.length + 70, data: { values },
      encoding: {
        y: { field: "line", type: "nominal", sort: given.order, title: null, axis: { labelLimit: 220 } },
        color: { field: "shown", type: "nominal", title: null, scale: { domain: ["difference shown", "no difference shown"], range: ["#0072B2", "#767676"] }, legend: { orient: "top", direction: innerWidth < 600 ? "vertical" : "horizontal" } },
        tooltip: ["line", "value", "low", "high", "verdict"].map((field) => ({ field })),
      },
      layer: [
        { mark: { type: "rule", color: "#1c1c1c" }, encoding: { x: { datum: 0 }, y: null, color: { value: "#1c1c1c" } } },
        { mark: { type: "rule", strokeWidth: 2 }, encoding: { x: { field: "low", type: "quantitative", title: "points, with 95 % interval" }, x2: { field: "high" } } },
        { mark: { type: "circle", size: 80, opacity: 1 }, encoding: { x: { field: "value", type: "quantitative" } } },
      ],
    }, { actions: false, renderer: "svg" }).catch((error) => console.error(error));
  };

  choices.hidden = false;
  reference.addEventListener("change", () => { fill(); draw(); });
  column.addEventListener("change", draw);
  draw();
};
