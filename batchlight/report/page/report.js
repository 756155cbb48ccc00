
// A picture and its states. The slider goes from state to state: as it moves on, the next state
// comes in over the one before from the left.
class Comparison {
  constructor(box, slider) {
    this.box = box;
    this.slider = slider;
    this.states = [...box.querySelectorAll(".state")];
    if (!slider || this.states.length < 2) return;
    this.edge = box.appendChild(document.createElement("span"));
    this.edge.className = "edge";
    for (const side of ["next", "previous"]) {
      this[side] = box.appendChild(document.createElement("span"));
      this[side].className = `side ${side}`;
      this[side].ariaHidden = "true";
    }
    slider.oninput = () => this.show();
    box.onpointerdown = (event) => this.grab(event);
    this.show();
  }

  // The state that is being covered, and how much of it.
  get position() {
    const value = Number(this.slider.value) / 100;
    const from = Math.min(Math.floor(value), this.states.length - 2);
    return [from, value - from];
  }

  show() {
    const [from, share] = this.position;
    this.states.forEach((state, index) => {
      state.style.visibility = index === from || index === from + 1 ? "visible" : "hidden";
      state.style.zIndex = index === from + 1 ? 2 : 1;
      state.style.clipPath = index === from + 1 ? `inset(0 ${100 - 100 * share}% 0 0)` : "none";
    });
    const [before, after] = [this.states[from], this.states[from + 1]].map((s) => s.dataset.state);
    this.edge.style.left = `${100 * share}%`;
    this.edge.hidden = share === 0 || share === 1;
    this.next.textContent = share > 0 ? after : "";
    this.previous.textContent = share < 1 ? before : "";
    this.next.hidden = share === 0;
    this.previous.hidden = share === 1;
    const percent = Math.round(100 * share);
    this.slider.ariaValueText =
      share === 0 ? before : share === 1 ? after : `${percent}% ${after}, ${100 - percent}% ${before}`;
  }

  grab(event) {
    if (event.button !== 0 || event.target.closest("button")) return;
    const [from] = this.position;
    const move = (moved) => {
      const { left, width } = this.box.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (moved.clientX - left) / width));
      this.slider.value = 100 * (from + share);
      this.show();
    };
    this.box.setPointerCapture(event.pointerId);
    this.box.onpointermove = move;
    this.box.onpointerup = this.box.onpointercancel = () => (this.box.onpointermove = null);
    event.preventDefault();
    move(event);
  }
}

// The viewer: one picture fills the window, the others are a key away.
const dialog = document.querySelector("dialog");
const enlarged = document.getElementById("enlarged");
const enlargedSlider = document.getElementById("enlarged-slider");
const cards = [...document.querySelectorAll(".pictures > li")];
let shown = null;

function enlarge(card) {
  shown = card;
  const box = card.querySelector(".compare");
  const slider = card.querySelector("input");
  enlarged.replaceChildren(...[...box.querySelectorAll(".state")].map((state) => state.cloneNode()));
  for (const state of enlarged.children) state.removeAttribute("style");
  enlargedSlider.hidden = !slider;
  if (slider) {
    enlargedSlider.max = slider.max;
    enlargedSlider.value = slider.value;
    enlargedSlider.ariaLabel = slider.ariaLabel;
  }
  new Comparison(enlarged, slider && enlargedSlider);
  document.getElementById("enlarged-name").textContent = card.querySelector(".path").textContent;
  const ticks = card.querySelector(".ticks");
  document.getElementById("enlarged-ticks").replaceChildren(...(ticks ? ticks.cloneNode(true).children : []));
  document.getElementById("enlarged-facts").replaceChildren(card.querySelector(".states").cloneNode(true));
  if (!dialog.open) dialog.showModal();
  (slider ? enlargedSlider : dialog.querySelector("[data-close]")).focus();
}

function step(by) {
  const visible = cards.filter((card) => !card.hidden && card.querySelector(".state"));
  const next = visible[visible.indexOf(shown) + by];
  if (next) enlarge(next);
}

for (const card of cards) {
  const box = card.querySelector(".compare");
  if (!card.querySelector(".state")) continue;
  new Comparison(box, card.querySelector("input"));
  const button = box.appendChild(document.createElement("button"));
  button.type = "button";
  button.className = "enlarge";
  button.ariaLabel = `Enlarge ${card.querySelector(".path").textContent}`;
  button.textContent = "⤢";
  button.addEventListener("click", () => enlarge(card));
  box.addEventListener("dblclick", () => enlarge(card));
}
for (const button of dialog.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => shown.querySelector(".enlarge").focus());
dialog.addEventListener("keydown", (event) => {
  const by = { PageUp: -1, PageDown: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  step(by);
});

// Which images are shown, as pictures and in the table.
const search = document.getElementById("search");
const reason = document.getElementById("reason");

function select() {
  const words = search.value.toLowerCase().trim();
  const wanted = new Set();
  for (const card of cards) {
    const name = card.querySelector(".path").textContent.toLowerCase();
    const reasons = [...card.querySelectorAll(".tag")].map((tag) => tag.textContent);
    if (name.includes(words) && (!reason.value || reasons.includes(reason.value))) {
      wanted.add(card.dataset.image);
    }
  }
  for (const element of document.querySelectorAll("[data-image]")) {
    element.hidden = !wanted.has(element.dataset.image);
  }
  const all = cards.length;
  const some = wanted.size;
  document.getElementById("found").textContent = some === all ? `${all} images` : `${some} of ${all} images`;
}

if (search) {
  search.addEventListener("input", select);
  reason.addEventListener("change", select);
}

// Tables are sorted by a column by choosing its heading, and the other way round by choosing again.
function sort(heading, column) {
  const up = heading.ariaSort !== "ascending";
  for (const other of heading.parentElement.children) other.ariaSort = null;
  heading.ariaSort = up ? "ascending" : "descending";
  const body = heading.closest("table").tBodies[0];
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const numeric = heading.classList.contains("value");
  const compare = (one, other) => {
    const [a, b] = [key(one), key(other)];
    if (!numeric) return a.localeCompare(b, undefined, { numeric: true });
    return (Number.parseFloat(a) || 0) - (Number.parseFloat(b) || 0);
  };
  body.append(...[...body.rows].sort((one, other) => (up ? 1 : -1) * compare(one, other)));
}

for (const heading of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = heading.textContent;
  heading.replaceChildren(button);
  button.addEventListener("click", () => sort(heading, heading.cellIndex));
}
