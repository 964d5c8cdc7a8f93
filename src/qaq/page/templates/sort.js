// A click on a heading sorts its table, a second one the other way. The page is whole without it.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 3) continue;
  const value = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  [...table.tHead.rows[table.tHead.rows.length - 1].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => {
        const [x, y] = [value(a, place), value(b, place)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;  // no value: last
        const found = typeof x === "number" ? x - y : x.localeCompare(y);
        return down ? -found : found;
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
