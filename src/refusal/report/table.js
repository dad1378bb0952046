// The table of combinations: sorted by any column, rows by kind, columns by choice.
function tabulate(data) {
  const table = document.getElementById("table");
  const kinds = document.getElementById("kinds");
  const shown = new Set([...data.columns.keys()].filter((number) => data.columns[number].shown));
  const NAME = -1; // the column of names, in the order of the study
  let by = NAME;
  let direction = 1;

  const value = (row) => (by === NAME ? row : data.rows[row][by][2]);

  function compare(first, second) {
    const [a, b] = [value(first), value(second)];
    if (a === null || b === null) return (a === null) - (b === null); // what was not measured stands last
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return direction * order || first - second;
  }

  function range([, , share, low, high]) {
    const line = make("span", { class: "range", "aria-hidden": "true" });
    for (const [name, at] of [["value", share], ["low", low ?? share], ["high", high ?? share]]) line.style.setProperty(`--${name}`, at);
    return line;
  }

  function head(number, column) {
    const button = make("button", { type: "button", "data-column": number }, column.label);
    const sorted = by === number ? (direction > 0 ? "ascending" : "descending") : null;
    const cell = make("th", { scope: "col", class: column.text ? "text" : null, title: column.about, "aria-sort": sorted }, button);
    if (column.note) cell.append(make("small", {}, column.note));
    return cell;
  }

  function body(row) {
    const { id, tag } = data.combinations[row];
    const name = make("th", { scope: "row" }, make("code", {}, id));
    if (tag) name.append(" ", make("small", {}, tag));
    const line = make("tr", { class: tag ? "chosen" : null }, name);
    for (const number of shown) {
      const cell = data.rows[row][number];
      const { text, share } = data.columns[number];
      const box = make("td", { class: text ? "text" : share ? "share" : null }, cell[0]);
      if (cell[1]) box.append(make("small", {}, cell[1]));
      if (share && cell[2] !== null) box.append(range(cell));
      line.append(box);
    }
    return line;
  }

  function draw() {
    const wanted = new Set([...kinds.querySelectorAll(":checked")].map((box) => box.value));
    const rows = [...data.combinations.keys()].filter((row) => wanted.has(data.combinations[row].kind)).sort(compare);
    const heads = [head(NAME, { label: "combination", about: "in the order of the study", text: true })];
    for (const number of shown) heads.push(head(number, data.columns[number]));
    table.tHead.replaceChildren(make("tr", {}, ...heads));
    table.tBodies[0].replaceChildren(...rows.map(body));
    document.getElementById("row-count").textContent = `${rows.length} of ${data.combinations.length} combinations`;
  }

  function choose() {
    const groups = new Map();
    for (const [number, column] of data.columns.entries()) {
      if (!groups.has(column.group)) groups.set(column.group, make("fieldset", {}, make("legend", {}, column.group)));
      const box = make("input", { type: "checkbox", value: number, checked: column.shown });
      groups.get(column.group).append(make("label", { title: column.about }, box, make("span", {}, [column.label, column.note].filter((one) => one).join(", "))));
    }
    document.getElementById("columns").replaceChildren(...groups.values());
  }

  table.tHead.addEventListener("click", (event) => {
    const pressed = event.target.closest("button")?.dataset.column;
    if (pressed === undefined) return;
    direction = by === Number(pressed) ? -direction : 1;
    by = Number(pressed);
    draw();
    table.tHead.querySelector(`[data-column="${pressed}"]`).focus();
  });
  kinds.addEventListener("change", draw);
  document.getElementById("columns").addEventListener("change", (event) => {
    const number = Number(event.target.value);
    if (event.target.checked) shown.add(number);
    else shown.delete(number);
    const ordered = [...shown].sort((a, b) => a - b);
    shown.clear();
    for (const one of ordered) shown.add(one);
    if (!shown.has(by)) by = NAME;
    draw();
  });
  choose();
  draw();
}
