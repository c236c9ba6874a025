"use strict";
// Makes tabs of the datasets and tables sortable. The page says all it has to say without this.
(() => {
  const tabs = [...document.querySelectorAll(".tabs a")];
  const panelOf = (tab) => document.getElementById(tab.hash.slice(1));

  function choose(chosen, { focus = false } = {}) {
    for (const tab of tabs) {
      const selected = tab === chosen;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      panelOf(tab).hidden = !selected;
    }
    if (focus) chosen.focus();
  }

  function followHash() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const section = target && target.closest(".dataset");
    const tab = section && tabs.find((one) => panelOf(one) === section);
    if (tab && section.hidden) {
      choose(tab);
      target.scrollIntoView();
    }
  }

  if (tabs.length) {
    document.querySelector(".tabs").setAttribute("role", "tablist");
    for (const [place, tab] of tabs.entries()) {
      const panel = panelOf(tab);
      tab.id = `${panel.id}-tab`;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", (event) => {
        event.preventDefault();
        choose(tab);
        history.replaceState(null, "", tab.hash);
      });
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(tabs[(to + tabs.length) % tabs.length], { focus: true });
      });
    }
    choose(tabs[0]);
    followHash();
    addEventListener("hashchange", followHash);
  }

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = Number.parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };

  // numbers first, then words; what is missing stays last in either direction
  function compare(one, other, sign) {
    const missing = (one === "–") - (other === "–");
    if (missing) return missing;
    if (typeof one === "number" && typeof other === "number") return sign * (one - other);
    return sign * String(one).localeCompare(String(other));
  }

  function sort(table, header) {
    const descending = header.getAttribute("aria-sort") !== "descending" && !header.classList.contains("left")
      || header.getAttribute("aria-sort") === "ascending";
    for (const one of header.parentElement.cells) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const column = header.cellIndex;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    rows.sort((one, other) => compare(one[0], other[0], descending ? -1 : 1));
    body.append(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      while (header.firstChild && header.firstChild.nodeName !== "SMALL") button.append(header.firstChild);
      header.prepend(button);
      button.addEventListener("click", () => sort(table, header));
    }
  }
})();
