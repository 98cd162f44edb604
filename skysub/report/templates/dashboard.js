"use strict";
(() => {
  const page = document.body.dataset.page;
  const at = (id) => document.getElementById(id);
  const make = (tag, name = "", text = "") => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== "") element.textContent = text;
    return element;
  };
  const link = (to, text) => {
    const element = make("a", "", text);
    element.href = to;
    return element;
  };
  const asked = async (url) => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`the dashboard answered ${answer.status}`);
    return answer.json();
  };

  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, .view") || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = { ArrowLeft: document.body.dataset.before, ArrowRight: document.body.dataset.after }[event.key];
    if (to) location.href = to;
  });

  const index = () => {
    let first = 0, shown = -1;
    const number = (value) => make("td", "number", value.toLocaleString("en"));

    const showSteps = (steps) => at("steps").replaceChildren(...steps.map((step) => {
      const box = make("div", "progress");
      const words = make("div");
      const rest = ["failed", "waiting", "left"].filter((name) => step[name]).map((name) => `${step[name].toLocaleString("en")} ${name}`);
      words.append(make("b", "", step.step), make("span", "", [`${step.done.toLocaleString("en")} of ${step.units.toLocaleString("en")} ${step.scope}s`, ...rest].join(", ")));
      const bar = make("i");
      bar.setAttribute("role", "progressbar");
      bar.setAttribute("aria-label", step.step);
      bar.setAttribute("aria-valuemin", 0);
      bar.setAttribute("aria-valuemax", step.units);
      bar.setAttribute("aria-valuenow", step.done);
      for (const [name, count] of [["done", step.done], ["failed", step.failed + step.waiting]]) {
        const part = make("b", name);
        part.style.width = `${100 * count / Math.max(1, step.units)}%`;
        bar.append(part);
      }
      box.append(words, bar);
      return box;
    }));

    const showFlags = (flags) => {
      at("flags-section").hidden = !flags.length;
      at("flags").replaceChildren(...flags.map((flag) => {
        const row = make("tr"), some = make("td");
        flag.examples.forEach(([visit, detector], i) => some.append(i ? ", " : "", link(`detector-${visit}-${detector}`, `${visit} ${detector}`)));
        if (flag.count > flag.examples.length) some.append(", ...");
        row.append(make("td", "", flag.name), make("td", "words", flag.meaning), number(flag.count), some);
        return row;
      }));
    };

    const showUnusual = (found, all, against) => {
      at("unusual-section").hidden = !all;
      at("against").textContent = against;
      at("unusual-note").textContent = `${all.toLocaleString("en")} figures lie more than five robust standard deviations from what the detector, or the band, has there; the latest visits first.`;
      at("unusual").replaceChildren(...found.map((each) => {
        const row = make("tr"), who = make("td");
        who.append(link(`detector-${each.visit}-${each.detector}`, `visit ${each.visit} detector ${each.detector}`));
        row.append(who, make("td", "", each.figure));
        for (const name of ["value", "usual", "deviations"]) row.append(make("td", "number", each[name]));
        return row;
      }));
    };

    const showFailures = (articles, all) => {
      at("failures").hidden = !all;
      at("failures-note").textContent = `${all.toLocaleString("en")} in all; the next run tries again.`;
      const list = at("failure-list"), heads = () => [...list.querySelectorAll("details")];
      const name = (details) => details.closest("article").querySelector("h3").textContent;
      const open = new Set(heads().filter((each) => each.open).map(name));
      // made by the template that reports use, with all text of the campaign escaped
      list.innerHTML = articles;
      for (const details of heads()) details.open = open.has(name(details));
    };

    const showVisits = async () => {
      const found = await asked(`visits.json?first=${first}&wanted=${encodeURIComponent(at("wanted").value)}`);
      at("visits").replaceChildren(...found.rows.map((visit) => {
        const row = make("tr"), head = make("td", "number");
        head.append(link(`visit-${visit.visit}`, String(visit.visit)));
        row.dataset.visit = visit.visit;
        row.append(head, make("td", "", visit.band));
        for (const name of ["detectors", "done", "failed", "waiting", "left", "flags"]) row.append(number(visit[name]));
        for (const median of visit.medians) row.append(make("td", "number", median));
        return row;
      }));
      const last = Math.min(found.in_all, first + found.page);
      at("visit-count").textContent = found.in_all > found.page ? `${first + 1} to ${last} of ${found.in_all.toLocaleString("en")}` : `${found.in_all}`;
      at("later").disabled = first === 0;
      at("earlier").disabled = last >= found.in_all;
      at("earlier").dataset.page = found.page;
    };

    const look = async () => {
      try {
        const status = await asked("status.json");
        at("trouble").hidden = !status.trouble;
        at("trouble").textContent = status.trouble;
        if (status.number !== shown) {
          shown = status.number;
          at("verdict").textContent = status.verdict.words;
          at("verdict").className = status.verdict.grade;
          showSteps(status.steps);
          showFlags(status.flags);
          showUnusual(status.unusual, status.unusual_in_all, status.against);
          showFailures(status.failures, status.failures_in_all);
          await showVisits();
        }
      } catch (error) {
        at("trouble").hidden = false;
        at("trouble").textContent = `What is shown may be old: ${error.message}`;
      }
      setTimeout(look, document.hidden ? 10000 : 2000);
    };

    let typing = 0;
    at("wanted").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => { first = 0; showVisits(); }, 150);
    });
    at("wanted").form.addEventListener("submit", (event) => event.preventDefault());
    at("later").addEventListener("click", () => { first = Math.max(0, first - Number(at("earlier").dataset.page)); showVisits(); });
    at("earlier").addEventListener("click", () => { first += Number(at("earlier").dataset.page); showVisits(); });
    look();
  };

  const detector = () => {
    const view = at("view");
    if (!view) return;
    const { unit, ny, nx } = document.body.dataset;
    const shape = { y: Number(ny), x: Number(nx) };
    // centre in pixels, and screen elements per pixel
    let centre = { y: shape.y / 2, x: shape.x / 2 }, scale = 0, before = "", current = at("layer").value, drawing = 0;
    const limits = {};

    const fit = () => {
      scale = Math.min(view.clientWidth / shape.x, view.clientHeight / shape.y);
      centre = { y: shape.y / 2, x: shape.x / 2 };
    };
    const range = (axis, size) => {
      const half = size / scale / 2;
      return [Math.max(0, Math.floor(centre[axis] - half)), Math.min(shape[axis], Math.ceil(centre[axis] + half))];
    };
    const draw = async () => {
      const mine = ++drawing;
      const [y0, y1] = range("y", view.clientHeight), [x0, x1] = range("x", view.clientWidth);
      const height = Math.max(1, Math.round((y1 - y0) * scale)), width = Math.max(1, Math.round((x1 - x0) * scale));
      const given = limits[current] ? `&low=${limits[current][0]}&high=${limits[current][1]}` : "";
      const answer = await fetch(`pixels-${unit}.png?layer=${encodeURIComponent(current)}&stretch=${at("stretch").value}&y0=${y0}&y1=${y1}&x0=${x0}&x1=${x1}&height=${height}&width=${width}${given}`);
      if (mine !== drawing) return;
      if (!answer.ok) {
        at("where").textContent = `This cannot be shown (${answer.status}).`;
        return;
      }
      const picture = at("picture"), old = picture.src;
      picture.src = URL.createObjectURL(await answer.blob());
      if (old.startsWith("blob:")) URL.revokeObjectURL(old);
      picture.style.left = `${view.clientWidth / 2 + (x0 - centre.x) * scale}px`;
      // row 0 is at the bottom
      picture.style.top = `${view.clientHeight / 2 - (y1 - centre.y) * scale}px`;
      picture.style.width = `${(x1 - x0) * scale}px`;
      picture.style.height = `${(y1 - y0) * scale}px`;
      picture.style.inset = "auto";
      picture.style.left = `${view.clientWidth / 2 + (x0 - centre.x) * scale}px`;
      picture.style.top = `${view.clientHeight / 2 - (y1 - centre.y) * scale}px`;
      at("low").value = Number(answer.headers.get("X-Low")).toPrecision(5);
      at("high").value = Number(answer.headers.get("X-High")).toPrecision(5);
      view.dataset.drawn = `${current} ${y0} ${y1} ${x0} ${x1}`;
    };
    const zoom = (by, around) => {
      const low = Math.min(view.clientWidth / shape.x, view.clientHeight / shape.y, 1) / 2;
      const next = Math.min(40, Math.max(low, scale * by));
      if (around) {
        const keep = 1 - scale / next;
        centre = { y: centre.y + (around.y - centre.y) * keep, x: centre.x + (around.x - centre.x) * keep };
      }
      scale = next;
      draw();
    };
    const pixelAt = (event) => {
      const box = view.getBoundingClientRect();
      return {
        x: centre.x + (event.clientX - box.left - box.width / 2) / scale,
        y: centre.y - (event.clientY - box.top - box.height / 2) / scale,
      };
    };
    const choose = (layer) => {
      if (layer === current) return;
      before = current;
      current = layer;
      at("layer").value = layer;
      draw();
    };

    at("layer").addEventListener("change", () => choose(at("layer").value));
    at("stretch").addEventListener("change", draw);
    for (const name of ["low", "high"]) at(name).addEventListener("change", () => {
      const chosen = [Number(at("low").value), Number(at("high").value)];
      if (chosen.every(Number.isFinite) && chosen[1] > chosen[0]) limits[current] = chosen;
      draw();
    });
    at("automatic").addEventListener("click", () => { delete limits[current]; draw(); });
    at("zoom-in").addEventListener("click", () => zoom(1.5));
    at("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
    at("whole").addEventListener("click", () => { fit(); draw(); });
    view.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, pixelAt(event));
    }, { passive: false });
    view.addEventListener("keydown", (event) => {
      const step = 0.15 * view.clientWidth / scale;
      const move = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [step, 0], ArrowDown: [-step, 0] }[event.key];
      if (move) {
        centre = { y: centre.y + move[0], x: centre.x + move[1] };
        draw();
      } else if (event.key === "+" || event.key === "=") zoom(1.5);
      else if (event.key === "-") zoom(1 / 1.5);
      else if (event.key === "0") { fit(); draw(); }
      else if (event.key === "b" && before) choose(before);
      else return;
      event.preventDefault();
    });
    let grip = null;
    view.addEventListener("pointerdown", (event) => {
      grip = { x: event.clientX, y: event.clientY, centre, moved: false };
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const away = { x: event.clientX - grip.x, y: event.clientY - grip.y };
      if (Math.hypot(away.x, away.y) > 3) grip.moved = true;
      if (grip.moved) {
        centre = { x: grip.centre.x - away.x / scale, y: grip.centre.y + away.y / scale };
        draw();
      }
    });
    view.addEventListener("pointerup", async (event) => {
      const still = grip && !grip.moved;
      grip = null;
      if (!still) return;
      const pixel = pixelAt(event), x = Math.floor(pixel.x), y = Math.floor(pixel.y);
      if (x < 0 || y < 0 || x >= shape.x || y >= shape.y) return;
      const answer = await asked(`value-${unit}.json?layer=${encodeURIComponent(current)}&y=${y}&x=${x}`);
      at("where").textContent = `x = ${x}, y = ${y}: ${answer.value}`;
    });
    addEventListener("resize", draw);
    fit();
    draw();
  };

  if (page === "index") index();
  if (page === "detector") detector();
})();
