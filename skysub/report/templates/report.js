"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const stage = viewer.querySelector(".stage");
  const heading = document.getElementById("viewer-title");
  const steps = viewer.querySelector(".steps");
  let layer = "";

  const make = (tag, name = "", text = "") => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text) element.textContent = text;
    return element;
  };

  // tables: numbers by data-sort, words by what they say; what is unknown comes last either way
  const sortBy = (table, column, down) => {
    const value = (row) => {
      const cell = row.cells[column];
      const number = cell.dataset.sort;
      return number === undefined ? cell.textContent : number === "" ? null : Number(number);
    };
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" && typeof b === "number"
        ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sortBy(table, column, down);
    }));
  });

  const open = (title) => {
    heading.textContent = title;
    if (!viewer.open) viewer.showModal();
    stage.scrollTop = 0;
  };
  const keyOf = () => (location.hash.match(/^#d-(.+)$/) || [])[1];
  const order = [...document.querySelectorAll("#detector-table tr[data-key]")].map((row) => row.dataset.key);

  const facts = (key) => {
    const list = make("dl");
    const row = document.querySelector(`#detector-table tr[data-key="${CSS.escape(key)}"]`);
    if (!row) return list;
    const heads = [...document.querySelectorAll("#detector-table th button")];
    [...row.cells].slice(2).forEach((cell, i) => {
      const [label, unit] = heads[i + 2].childNodes;
      const words = ("spelled" in cell.dataset && cell.title) || cell.textContent || "–";
      const value = make("dd", "", unit && words !== "–" ? `${words} ${unit.textContent}` : words);
      value.title = cell.title;
      list.append(make("dt", "", label.textContent.trim()), value);
    });
    return list;
  };

  const enlarge = (picture) => {
    const room = Math.min(stage.clientHeight - 270, stage.clientWidth - 60);
    const factor = Math.max(room, 200) / Math.max(picture.naturalWidth, picture.naturalHeight);
    picture.style.width = `${picture.naturalWidth * factor}px`;
  };

  const showDetector = (key) => {
    const tiles = [...document.querySelectorAll(`.tile[data-key="${CSS.escape(key)}"]`)];
    const [visit, detector] = key.split("-");
    open(`Visit ${visit} · detector ${detector}`);
    steps.hidden = order.length < 2;
    const box = make("div", "detector");
    const large = make("div", "large");
    const strip = make("div", "strip");
    const choose = (tile, button) => {
      const panel = tile.closest("figure");
      layer = panel.dataset.title;
      const picture = tile.querySelector("img").cloneNode();
      const legend = panel.querySelector(".bar, .legend").cloneNode(true);
      const caption = panel.querySelector("figcaption").cloneNode(true);
      caption.querySelector("button").remove();
      large.replaceChildren(caption, picture, legend);
      enlarge(picture);
      strip.querySelectorAll("button").forEach((other) => other.setAttribute("aria-current", other === button));
    };
    const buttons = tiles.map((tile) => {
      const button = make("button");
      button.type = "button";
      button.append(tile.querySelector("img").cloneNode(), tile.closest("figure").dataset.title);
      button.addEventListener("click", () => choose(tile, button));
      strip.append(button);
      return button;
    });
    const pictures = make("div");
    if (tiles.length) pictures.append(large, strip);
    else pictures.append(make("p", "note", "There are no pictures of this detector."));
    box.append(pictures, facts(key));
    stage.replaceChildren(box);
    const start = Math.max(0, tiles.findIndex((tile) => tile.closest("figure").dataset.title === layer));
    if (tiles.length) choose(tiles[start], buttons[start]);
  };

  const follow = () => {
    const key = keyOf();
    if (key) showDetector(key);
    else if (viewer.open) viewer.close();
  };
  const move = (by) => {
    const at = order.indexOf(keyOf());
    if (at >= 0) location.replace(`#d-${order[(at + by + order.length) % order.length]}`);
  };
  document.addEventListener("click", (event) => {
    const tile = event.target.closest("a.tile");
    if (!tile) return;
    layer = tile.closest("figure").dataset.title;
    if (tile.dataset.key === keyOf()) follow();
  });
  // browsers write an aspect ratio back as "1.25 / 1"
  const ratio = (text) => text.split("/").map(Number).reduce((a, b) => a / b);
  document.querySelectorAll(".enlarge").forEach((button) => button.addEventListener("click", () => {
    const figure = button.closest("figure");
    const whole = make("div", "whole");
    for (const part of figure.children) if (part.tagName !== "FIGCAPTION") whole.append(part.cloneNode(true));
    steps.hidden = true;
    open((figure.dataset.visit ? `Visit ${figure.dataset.visit} · ` : "") + figure.dataset.title);
    const plane = whole.querySelector(".plane");
    if (plane) whole.style.width = `calc(var(--room) * ${ratio(plane.style.aspectRatio)})`;
    stage.replaceChildren(whole);
  }));
  

  steps.querySelectorAll("button").forEach((button) => button.addEventListener("click", () => move(Number(button.dataset.step))));
  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    // the event comes late: something else may be open by now
    if (viewer.open) return;
    stage.replaceChildren();
    if (keyOf()) history.replaceState(null, "", location.pathname + location.search);
  });
  viewer.addEventListener("keydown", (event) => {
    if (steps.hidden) return;
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  addEventListener("hashchange", follow);
  follow();
})();
