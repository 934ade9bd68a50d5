"use strict";
(() => {
  const root = document.documentElement, tip = document.getElementById("tip");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  root.classList.add("js");

  // strategies and tasks on and off
  document.addEventListener("change", (event) => {
    const {strategy, taskSwitch} = event.target.dataset;
    const chosen = strategy !== undefined ? `[data-s="${strategy}"]` : taskSwitch !== undefined ? `[data-task="${taskSwitch}"]` : null;
    if (chosen) all(chosen).forEach((e) => e.classList.toggle("off", !event.target.checked));
  });

  // dark and light
  document.getElementById("theme")?.addEventListener("click", () => {
    const dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    root.dataset.theme = dark ? "light" : "dark";
  });

  // linear and logarithmic: coordinates are read back as values with the linear scale and placed anew
  const smallest = 1e-3;
  const pair = (text) => text.split(",").map(Number);
  const scales = (plot, log) => {
    const [x0, x1] = pair(plot.dataset.x), [y0, y1] = pair(plot.dataset.y), kind = log ? plot.dataset.log : "";
    const line = (a, b) => ({place: (v) => (v - a) / (b - a) * 1000, value: (p) => a + p / 1000 * (b - a)});
    const x = line(x0, x1), up = line(y0, y1);
    const y = {place: (v) => 1000 - up.place(v), value: (p) => up.value(1000 - p)};
    const shown = {x: x.place, y: y.place, value: {x: x.value, y: y.value}};
    if (kind === "error") {
      const l = line(Math.log10(smallest), 0);
      shown.y = (v) => l.place(Math.log10(Math.min(1, Math.max(smallest, 1 - v))));
    } else if (kind === "x") {
      const low = Math.min(...(plot.xs ||= positions(plot).map(x.value).filter((v) => v > 0))) / 1.5;
      const l = line(Math.log10(low), Math.log10(x1));
      shown.x = (v) => l.place(Math.log10(Math.max(v, low)));
      shown.low = low;
    } else if (kind === "y") {
      const low = Math.min(...(plot.ys ||= heights(plot).map(y.value).filter((v) => v > 0)));
      const l = line(Math.log10(low), Math.log10(y1));
      shown.y = (v) => 1000 - l.place(Math.log10(Math.max(v, low)));
      shown.low = low;
    }
    return shown;
  };
  const numbers = (text) => (text.match(/-?\d+(\.\d+)?(e-?\d+)?/g) || []).map(Number);
  const original = (e) => (e.original ||= e.getAttribute(e.hasAttribute("points") ? "points" : "d"));
  const positions = (plot) => all(".dot", plot).flatMap((e) => numbers(original(e)).filter((_, i) => i % 3 === 0));
  const heights = (plot) => all("[points].line", plot).flatMap((e) => numbers(original(e)).filter((_, i) => i % 2 === 1));
  const move = (plot, e, to) => {
    const px = (p) => to.x(to.value.x(p)).toFixed(2), py = (p) => to.y(to.value.y(p)).toFixed(2), text = original(e);
    if (e.hasAttribute("points")) {
      e.setAttribute("points", text.split(" ").map((p) => { const [x, y] = pair(p); return `${px(x)},${py(y)}`; }).join(" "));
    } else if (e.classList.contains("dot")) {
      e.setAttribute("d", text.replace(/M(\S+) (\S+)h0/g, (_, x, y) => `M${px(+x)} ${py(+y)}h0`));
    } else {
      e.setAttribute("d", text.replace(/M(\S+) (\S+)V([\d.e-]+)/g, (_, x, y, z) => `M${px(+x)} ${py(+y)}V${py(+z)}`));
    }
  };
  const steps = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]];
  const decades = (low, high) => {
    const among = (digits) => {
      const found = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
        for (const m of digits) if (m * 10 ** p >= low * 0.999 && m * 10 ** p <= high * 1.001) found.push(+(m * 10 ** p).toPrecision(2));
      return found;
    };
    const ticks = among(steps.find((digits) => among(digits).length >= 3) || steps.at(-1));
    return ticks.length > 1 ? ticks : [0, 1, 2, 3].map((i) => +(low + (high - low) * i / 3).toPrecision(3));
  };
  const short = (v) => v >= 1e6 ? `${v / 1e6}M` : v >= 1e4 ? `${v / 1e3}k` : `${v}`;
  const relabel = (plot, axis, values, place) => {
    all(`.t${axis}`, plot).forEach((e) => { e.hidden = true; });
    for (const [v, text] of values) {
      const e = document.createElement("span");
      e.className = `t${axis} made`;
      e.textContent = text;
      e.style[axis === "y" ? "top" : "left"] = `${place(v) / 10}%`;
      plot.append(e);
    }
    if (axis !== "y") return;
    const grid = plot.querySelector(".grid");
    while (grid.children.length < values.length) grid.append(Object.assign(svg("path"), {old: "M0 0"}));
    all("path", grid).forEach((e, i) => {
      e.old ||= e.getAttribute("d");
      e.setAttribute("d", i < values.length ? `M0 ${place(values[i][0]).toFixed(1)}H1000` : "");
    });
  };
  document.getElementById("log")?.addEventListener("click", (event) => {
    const log = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", log);
    for (const plot of all(".plot")) {
      if (!plot.dataset.log) continue;
      const to = scales(plot, log), label = plot.parentElement.querySelector(".yl");
      label.dataset.linear ||= label.textContent;
      if (plot.dataset.log === "error") label.textContent = log ? "error, log" : label.dataset.linear;
      plot.classList.toggle("log", log);
      all(".made", plot).forEach((e) => e.remove());
      all(".tx,.ty", plot).forEach((e) => { e.hidden = false; });
      all(".grid path", plot).forEach((e) => e.old && e.setAttribute("d", e.old));
      all(".line,.band,.dot,.bar", plot).forEach((e) => move(plot, e, to));
      const kind = plot.dataset.log, [, x1] = pair(plot.dataset.x), [, y1] = pair(plot.dataset.y);
      if (log && kind === "error") relabel(plot, "y", decades(smallest, 1).filter((v) => `${v}`.match(/1$/)).map((v) => [1 - v, `${v}`.replace(/^0/, "")]), to.y);
      if (log && kind === "x") relabel(plot, "x", decades(to.low, x1).map((v) => [v, short(v)]), to.x);
      if (log && kind === "y") relabel(plot, "y", decades(to.low, y1).map((v) => [v, short(v)]), to.y);
      all(".name", plot).forEach((e) => {
        const dot = plot.querySelector(`g[data-s="${e.dataset.s}"] .dot`), x = numbers(dot.getAttribute("d"))[0];
        if (e.style.left) e.style.left = `${x / 10}%`; else e.style.right = `${100 - x / 10}%`;
      });
    }
  });

  // values under the pointer, and with the arrow keys
  const series = (plot) => all("g[data-s]:not(.off)", plot).map((g) => {
    const shape = g.querySelector("polyline.line") ? "points" : "d", xy = [];
    for (const e of all(shape === "points" ? "polyline.line" : ".dot", g)) {
      const read = (text) => shape === "points" ? text.split(" ").map(pair) : [...text.matchAll(/M(\S+) (\S+)h0/g)].map((m) => [+m[1], +m[2]]);
      const now = read(e.getAttribute(shape)), before = read(original(e));
      now.forEach((p, i) => xy.push({shown: p[0], x: before[i][0], y: before[i][1]}));
    }
    return {label: g.dataset.label, style: g.getAttribute("class"), xy};
  }).filter((s) => s.xy.length);
  const tidy = (v) => Math.abs(v) >= 100 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(3));
  const show = (plot, at, where) => {
    const found = series(plot), value = scales(plot, false).value, names = plot.dataset.names?.split("|");
    if (!found.length) return;
    const near = (s) => s.xy.reduce((a, b) => Math.abs(b.shown - at) < Math.abs(a.shown - at) ? b : a);
    const closest = found.map(near).reduce((a, b) => Math.abs(b.shown - at) < Math.abs(a.shown - at) ? b : a);
    const reach = names ? 500 / names.length : plot.querySelector(".name") ? 5 : 40;
    const rows = found.map((s) => ({s, p: near(s)})).filter(({p}) => Math.abs(p.shown - closest.shown) <= reach)
      .sort((a, b) => a.p.y - b.p.y);
    plot.at = closest.shown;
    const x = value.x(closest.x), axes = plot.parentElement.querySelector(".xl").textContent;
    tip.replaceChildren();
    const head = document.createElement("b"), table = document.createElement("table");
    head.textContent = `${axes}: ${names ? names[Math.round(x)] : tidy(x)}`;
    for (const {s, p} of rows) {
      const row = table.insertRow(), key = svg("svg"), line = svg("path");
      key.setAttribute("class", `key ${s.style}`); key.setAttribute("width", 20); key.setAttribute("height", 10);
      line.setAttribute("class", "line"); line.setAttribute("d", "M1 5H19"); key.append(line);
      row.insertCell().append(key);
      row.insertCell().textContent = s.label;
      row.insertCell().textContent = tidy(value.y(p.y));
    }
    tip.append(head, table);
    tip.hidden = false;
    const box = plot.getBoundingClientRect(), [px, py] = where || [box.left + closest.shown / 1000 * box.width, box.top + 20];
    tip.style.left = `${Math.max(4, Math.min(px + 16, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(py + 16, innerHeight - tip.offsetHeight - 8))}px`;
    let cursor = plot.querySelector(".cursor");
    if (!cursor) { cursor = svg("path"); cursor.setAttribute("class", "cursor"); plot.querySelector("svg").append(cursor); }
    cursor.setAttribute("d", `M${closest.shown} 0V1000`);
  };
  const hide = (plot) => { tip.hidden = true; plot.at = undefined; plot.querySelector(".cursor")?.remove(); };
  for (const plot of all(".plot")) {
    plot.addEventListener("pointermove", (e) => {
      const box = plot.getBoundingClientRect();
      show(plot, (e.clientX - box.left) / box.width * 1000, [e.clientX, e.clientY]);
    });
    plot.addEventListener("pointerleave", () => hide(plot));
    plot.addEventListener("blur", () => hide(plot));
    plot.addEventListener("keydown", (e) => {
      if (e.key === "Escape") return hide(plot);
      if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
      e.preventDefault();
      const stops = [...new Set(series(plot).flatMap((s) => s.xy.map((p) => p.shown)))].sort((a, b) => a - b);
      const now = plot.at ?? -1, right = e.key === "ArrowRight";
      const next = right ? stops.find((x) => x > now + 1e-6) : stops.findLast((x) => x < now - 1e-6);
      if (next !== undefined) show(plot, next);
    });
  }
})();
