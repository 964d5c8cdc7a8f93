// Two arms are chosen, or named behind the page's address as #a=ARM&b=ARM: only tasks that flipped
// between them are left, with their programs. Without this script the page shows all.
{
  const form = document.getElementById("pair");
  const [first, second] = form.querySelectorAll("select");
  const shares = (row) => new Map([...row.querySelectorAll("[data-arm][data-value]")].map(
    (cell) => [cell.dataset.arm, Number(cell.dataset.value)]));
  const show = () => {
    const [a, b] = [first.value, second.value];
    const pair = a !== "" && b !== "";
    let [ahead, behind] = [0, 0];
    for (const row of document.querySelectorAll("table.flips tbody tr")) {
      const of = shares(row);
      const flipped = !pair || (of.has(a) && of.has(b) && of.get(a) !== of.get(b));
      row.hidden = !flipped;
      if (pair && flipped) of.get(a) > of.get(b) ? ahead++ : behind++;
      const task = document.getElementById(row.id.replace("row", "task"));
      if (!task) continue;
      task.hidden = !flipped;
      for (const one of task.querySelectorAll("article")) {
        const arms = JSON.parse(one.dataset.arms);
        one.hidden = pair && !arms.includes(a) && !arms.includes(b);
        one.style.order = arms.includes(a) ? 0 : 1;
      }
    }
    for (const cell of document.querySelectorAll("table.flips [data-arm]")) {
      cell.hidden = pair && cell.dataset.arm !== a && cell.dataset.arm !== b;
    }
    form.querySelector("output").textContent = pair
      ? `${ahead + behind} tasks: ${a} is ahead on ${ahead}, behind on ${behind}` : "";
  };
  const asked = () => {
    const named = new URLSearchParams(location.hash.slice(1));
    if (named.has("a") && named.has("b")) {
      [first.value, second.value] = [named.get("a"), named.get("b")];
    }
    const task = location.hash.startsWith("#task") && document.querySelector(location.hash);
    if (task) task.open = true;
    show();
  };
  [first.value, second.value] = [form.dataset.first, form.dataset.second];
  form.hidden = false;
  form.addEventListener("change", show);
  addEventListener("hashchange", asked);
  asked();
}
