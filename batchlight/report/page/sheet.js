
// A picture that is chosen fills the window; from there the others are a key away, in the same
// place, so that the eye sees what changes.
const dialog = document.querySelector("dialog");
let chosen = null;

function buttonAt(kind, row, column) {
  return document.querySelector(`.enlarge[data-kind="${kind}"][data-row="${row}"][data-column="${column}"]`);
}

function enlarge(button) {
  chosen = button;
  const { kind, row, column } = button.dataset;
  const picture = button.querySelector("img");
  const enlarged = document.getElementById("enlarged");
  enlarged.src = picture.src;
  enlarged.alt = picture.alt;
  enlarged.className = kind;
  document.getElementById("enlarged-name").textContent = document.querySelector(`#image-${row} .path`).textContent;
  document.getElementById("enlarged-option").textContent = button.parentElement.querySelector(".option").textContent;
  document.getElementById("enlarged-facts").textContent = document.getElementById(`facts-${row}-${column}`).textContent;
  if (!dialog.open) dialog.showModal();
}

// The next picture of the same kind in a direction; those of settings that failed are passed over.
function step(rows, columns) {
  let { kind, row, column } = chosen.dataset;
  const width = chosen.closest(".strip").children.length;
  const height = document.querySelectorAll(".strip").length;
  for (;;) {
    row = Number(row) + rows;
    column = Number(column) + columns;
    if (row < 0 || row >= height || column < 0 || column >= width) return;
    const next = buttonAt(kind, row, column);
    if (next) return enlarge(next);
  }
}

const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => enlarge(button));
}
for (const button of dialog.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => step(0, Number(button.dataset.step)));
}
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
document.getElementById("enlarged").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (!arrows[event.key]) return;
  event.preventDefault();
  step(...arrows[event.key]);
});
dialog.addEventListener("close", () => chosen.focus());
