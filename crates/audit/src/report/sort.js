// Tables sort when a heading is chosen. Nothing is fetched, and without scripts the page says the same.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = table.querySelectorAll("thead th");
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const text = (row) => (row.cells[column] ? row.cells[column].textContent.trim() : "");
      const number = (row) => parseFloat(text(row).replace(/[^0-9.eE+-]+.*$/, ""));
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.querySelector("[scope=rowgroup]"));
        rows.sort((a, b) => {
          const [x, y] = [number(a), number(b)];
          const order = isFinite(x) && isFinite(y) ? x - y : text(a).localeCompare(text(b));
          return up ? order : -order;
        });
        body.append(...rows);
      }
    });
  });
}
