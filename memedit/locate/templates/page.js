"use strict";
// The value of a cell beside the pointer. Without this script the cell's title says the same, a moment later.
const told = document.getElementById("told");
for (const title of document.querySelectorAll("rect > title")) {
  title.parentNode.dataset.told = title.textContent;
  title.remove();
}
document.addEventListener("pointermove", (event) => {
  const cell = event.target.closest ? event.target.closest("rect[data-told]") : null;
  told.hidden = !cell;
  if (!cell) return;
  told.textContent = cell.dataset.told;
  const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - told.offsetWidth - 6);
  const below = event.clientY + 16;
  const above = event.clientY - told.offsetHeight - 10;
  told.style.left = `${Math.max(4, left)}px`;
  told.style.top = `${below + told.offsetHeight > document.documentElement.clientHeight ? above : below}px`;
});
