"use strict";
// Numbers under the pointer, and the table of completions. The page is whole without it.
const curves = JSON.parse(document.getElementById("curves").textContent);

function told(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size >= 1e-3 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

function nearest(steps, wanted) {
  let best = -1;
  steps.forEach((step, place) => {
    if (best < 0 || Math.abs(step - wanted) < Math.abs(steps[best] - wanted)) best = place;
  });
  return best;
}

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg"), output = figure.querySelector("output"), hair = figure.querySelector(".hair");
  const grid = figure.querySelector(".grid"), resting = [...output.childNodes];
  const [first, last] = [Number(figure.dataset.first), Number(figure.dataset.last)];
  const [left, right] = [Number(grid.getAttribute("x1")), Number(grid.getAttribute("x2"))];
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const wanted = first + ((x - left) / (right - left)) * (last - first);
    const shown = [];
    curves[figure.dataset.metric].forEach(([steps, values], run) => {
      const place = nearest(steps, wanted);
      if (place < 0) return;
      if (!shown.length) {
        const at = left + ((steps[place] - first) / (last - first)) * (right - left);
        hair.setAttribute("x1", at);
        hair.setAttribute("x2", at);
        hair.setAttribute("visibility", "visible");
        shown.push(["at", `step ${steps[place]}`]);
      }
      shown.push([`run${run}`, told(values[place])]);
    });
    output.replaceChildren(...shown.map(([name, text]) => Object.assign(document.createElement("span"), { className: name, textContent: text })));
  });
  svg.addEventListener("pointerleave", () => {
    hair.setAttribute("visibility", "hidden");
    output.replaceChildren(...resting);
  });
}

const form = document.getElementById("filter");
if (form) {
  const body = document.querySelector("#completions tbody"), more = document.getElementById("more");
  const rows = [...body.rows], PAGE = 40;
  let room = PAGE;

  function order(sort) {
    if (!sort) return rows;
    const key = sort.replace("-", ""), sign = sort.startsWith("-") ? -1 : 1;
    const value = (row) => (row.dataset[key] === "" ? sign * Infinity : Number(row.dataset[key]));
    return [...rows].sort((a, b) => (value(a) === value(b) ? 0 : sign * (value(a) - value(b))));
  }

  function show() {
    const wanted = (name) => (form.elements[name] ? form.elements[name].value : "");
    const text = wanted("text").toLowerCase();
    const fits = (row) =>
      (!wanted("run") || row.dataset.run === wanted("run")) &&
      (!wanted("step") || row.dataset.step === wanted("step")) &&
      (!text || row.textContent.toLowerCase().includes(text));
    let count = 0;
    const ordered = order(wanted("sort"));
    for (const row of ordered) row.hidden = !fits(row) || ++count > room;
    body.replaceChildren(...ordered);
    form.querySelector("output").textContent = `${Math.min(count, room)} of ${count}`;
    more.hidden = count <= room;
  }

  form.addEventListener("input", () => { room = PAGE; show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { room += 5 * PAGE; show(); });
  body.addEventListener("click", (event) => {
    if (!String(getSelection())) event.target.closest("tr").classList.toggle("open");
  });
  show();
}
