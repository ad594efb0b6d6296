/* The page "Attack it yourself": what is chosen, drawn and shown. attack_math.js computes. */
(() => {
  "use strict";
  const SIDE = 28, LIMIT = 0.3; // pixels of a side; a change of a pixel at full color
  const RANGE = { linf: { most: 0.3, step: 0.005, start: 0.1 }, l2: { most: 4, step: 0.05, start: 1 } };
  const ALL = SIDE * SIDE, BATCH = 12; // milliseconds of looking for the first success, at a time
  const at = (name) => document.getElementById(`attack-${name}`);

  function start() {
    const source = at("data"), root = document.getElementById("attack");
    if (!source || !root || !source.textContent) return;
    const data = JSON.parse(source.textContent), engine = Kernel.open(data);
    const tests = Kernel.unpack(data.test), predictors = {};
    const now = { x: null, label: 0, own: false, eps: RANGE.linf.start, first: null, search: 0, frame: 0, speak: 0 };
    root.hidden = false;

    /* The predictor that is chosen; what opening one takes is done once. */
    function predictor() {
      const name = `${at("kind").value} ${at("ridge").value}`;
      predictors[name] ??= engine.predictor(at("kind").value, Number(at("ridge").value));
      return predictors[name];
    }

    /* All that depends on the digit and the choices but not on ε: looked at once, kept while ε moves. */
    function choose() {
      const f = predictor(), clean = f.look(now.x), norm = at("norm").value;
      if (now.own) now.label = clean.said;
      const gradient = f.gradient(clean, Kernel.margin(clean.outputs, now.label).weights);
      const control = Kernel.directions(ALL, norm, 1), steps = Number(at("steps").value);
      Object.assign(now, { f, clean, gradient, control, norm, steps, radius: f.radius(clean), first: null });
      now.sure = norm === "l2" ? now.radius : now.radius / Math.sqrt(ALL); // as an ε of this norm
      const search = ++now.search;
      setTimeout(() => look(search, 0), 60);
      draw();
    }

    const attack = (eps) => {
      if (now.steps > 1) return Kernel.pgd(now.f, now.x, now.label, now.norm, eps, now.steps);
      const attacked = Kernel.oneStep(now.gradient, now.x, now.norm, eps);
      return { attacked, seen: now.f.look(attacked) };
    };

    /* The smallest ε of the slider at which the attack succeeds: a little at a time, so that nothing waits. */
    function look(search, place) {
      if (search !== now.search) return;
      const { most, step } = RANGE[now.norm], until = performance.now() + BATCH;
      for (; place * step <= most + 1e-9; place++) {
        if (performance.now() > until) return void setTimeout(() => look(search, place), 30);
        if (attack(place * step).seen.said !== now.label) break;
      }
      now.first = place * step <= most + 1e-9 ? place * step : Infinity;
      bar();
      speak();
    }

    /* Pictures. */
    const context = (canvas) => canvas.getContext("2d");
    function gray(canvas, x) {
      const picture = context(canvas).createImageData(SIDE, SIDE);
      for (let j = 0; j < ALL; j++) picture.data.set([255 * x[j], 255 * x[j], 255 * x[j], 255], 4 * j);
      context(canvas).putImageData(picture, 0, 0);
    }
    function signed(canvas, change) {
      const picture = context(canvas).createImageData(SIDE, SIDE);
      for (let j = 0; j < ALL; j++) {
        const share = Math.min(Math.abs(change[j]) / LIMIT, 1), full = change[j] > 0 ? [178, 24, 43] : [33, 102, 172];
        for (let c = 0; c < 3; c++) picture.data[4 * j + c] = 247 + share * (full[c] - 247);
        picture.data[4 * j + 3] = 255;
      }
      context(canvas).putImageData(picture, 0, 0);
    }

    /* The table: three bars a class, from a line at 0; −0.4 to 1.2 is the width of a lane. */
    const LEFT = -0.4, WIDTH = 1.6;
    const cells = Array.from({ length: 10 }, (_, c) => {
      const row = root.querySelector("tbody").insertRow();
      row.innerHTML = `<th scope="row">${c}</th>` + "<td><span class='lane'><span class='bar'></span></span><span class='number'></span></td>".repeat(3);
      return [...row.querySelectorAll("td")];
    });
    function fill(column, { outputs, said }) {
      outputs.forEach((value, c) => {
        const cell = cells[c][column], barOf = cell.querySelector(".bar");
        const [low, high] = [Math.min(value, 0), Math.max(value, 0)].map((v) => Math.min(Math.max((v - LEFT) / WIDTH, 0), 1));
        barOf.style.left = `${100 * low}%`;
        barOf.style.width = `${100 * (high - low)}%`;
        cell.querySelector(".number").textContent = (value < 0 ? "−" : "") + Math.abs(value).toFixed(2) + (c === said ? " ◀" : "");
        cell.className = c === said ? "said" : "";
      });
    }

    function caption(canvas, seen, text) {
      const wrong = seen.said !== now.label;
      const verdict = canvas.parentElement.querySelector("b");
      verdict.textContent = `says ${seen.said}`;
      verdict.className = wrong ? "wrong" : "";
      canvas.setAttribute("aria-label", `${text}, the predictor says ${seen.said}`);
    }

    /* Everything that moves with ε. */
    function draw() {
      now.frame = 0;
      const begin = performance.now(), { attacked, seen } = attack(now.eps);
      const noisy = Kernel.oneStep(now.control, now.x, now.norm, now.eps), noise = now.f.look(noisy);
      const change = attacked.map((value, j) => value - now.x[j]);
      gray(at("clean"), now.x);
      signed(at("change"), change);
      gray(at("attacked"), attacked);
      gray(at("random"), noisy);
      caption(at("clean"), now.clean, "The digit");
      caption(at("attacked"), seen, "The attacked digit");
      caption(at("random"), noise, "The digit with random signs");
      at("change").setAttribute("aria-label", `The change, red up and blue down, full color at ${LIMIT}`);
      [now.clean, seen, noise].forEach((one, column) => fill(column, one));
      Object.assign(now, { attacked, seen, noise, long: Kernel.length(change) });
      at("shown").textContent = now.eps.toFixed(now.norm === "l2" ? 2 : 3);
      at("eps").setAttribute("aria-valuetext", `ε ${at("shown").textContent}`);
      bar();
      root.dataset.milliseconds = (performance.now() - begin).toFixed(2);
      clearTimeout(now.speak);
      now.speak = setTimeout(speak, 400);
    }
    const later = () => (now.frame ||= requestAnimationFrame(draw));

    function bar() {
      const { most } = RANGE[now.norm], percent = (eps) => `${100 * Math.min(eps / most, 1)}%`;
      // A digit that is named wrongly as it is has no safe size.
      at("sure").style.width = percent(now.clean.said === now.label ? now.sure : 0);
      at("broken").style.left = percent(now.first ?? Infinity);
    }

    /* What a sighted reader sees at a glance, in words, once the slider rests. */
    function speak() {
      const alone = now.clean.said === now.label ? "" : ", wrong without any attack";
      const what = `${now.own ? "Your drawing" : `A ${now.label}`}: the predictor says ${now.clean.said}${alone}.`;
      const done = now.seen.said !== now.label ? `and the predictor is fooled: it says ${now.seen.said}` : `and it still says ${now.seen.said}`;
      const unit = now.norm === "l2" ? "in L2" : "in each pixel";
      const sure = `No change shorter than ${now.radius.toFixed(2)} (L2) alters what it says, whoever makes it; this one is ${now.long.toFixed(2)} long.`;
      const first = now.first === null ? "" : now.first === Infinity ? " This attack succeeds nowhere on the slider."
        : ` On the slider this attack succeeds first at ε = ${Number(now.first.toFixed(3))}.`;
      const text = `${what} The attack moves it by at most ${at("shown").textContent} ${unit}, ${done}. Under random signs it says ${now.noise.said}. ${sure}${first}`;
      if (at("said").textContent !== text) at("said").textContent = text;
    }

    /* Choosing. */
    function pick(i) {
      now.own = false;
      now.x = Kernel.image(tests, i);
      now.label = data.labels[i];
      choose();
    }
    const order = [...data.labels.keys()].sort((a, b) => data.labels[a] - data.labels[b] || a - b);
    const seenOf = {};
    for (const i of order) {
      const label = document.createElement("label"), canvas = document.createElement("canvas");
      const nth = (seenOf[data.labels[i]] = (seenOf[data.labels[i]] ?? 0) + 1);
      label.innerHTML = `<input type="radio" name="attack-digit" value="${i}" aria-label="a ${data.labels[i]}, number ${nth}">`;
      canvas.width = canvas.height = SIDE;
      gray(canvas, Kernel.image(tests, i));
      label.append(canvas);
      at("digits").append(label);
      label.firstChild.addEventListener("change", () => pick(i));
    }
    data.ridges.forEach((ridge, i) => at("ridge").add(new Option(`${ridge}`, i, ridge === 0.1, ridge === 0.1)));

    function scale() {
      const { most, step, start: first } = RANGE[at("norm").value];
      Object.assign(at("eps"), { min: 0, max: most, step, value: first });
      now.eps = first;
    }
    for (const name of ["kind", "ridge", "steps"]) at(name).addEventListener("change", choose);
    at("norm").addEventListener("change", () => (scale(), choose()));
    at("eps").addEventListener("input", () => ((now.eps = Number(at("eps").value)), later()));

    AttackPad(at("pad"), at("clear"), (x) => {
      at("own").checked = true;
      now.own = true;
      now.x = x;
      choose();
    }, at("own"));

    root.querySelector(".attack-scale").textContent = `full color ±${LIMIT}`;
    scale();
    const first = order.find((i) => data.labels[i] === 4);
    root.querySelector(`input[value="${first}"]`).checked = true;
    pick(first);
  }

  /* Drawing: strokes in the pad's own coordinates, 0 to 1, by pointer or by keys. */
  function AttackPad(pad, clear, changed, own) {
    const STEP = 1 / 28, strokes = [];
    const pen = { x: 0.5, y: 0.25, down: false };
    let stroke = null;

    const point = (event) => {
      const box = pad.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    function show() {
      const ink = pad.getContext("2d"), size = pad.width;
      ink.fillStyle = "#000";
      ink.fillRect(0, 0, size, size);
      Object.assign(ink, { strokeStyle: "#fff", lineWidth: size / 13, lineCap: "round", lineJoin: "round" });
      for (const line of strokes) {
        ink.beginPath();
        line.forEach(([x, y], i) => (i ? ink.lineTo(x * size, y * size) : ink.moveTo(x * size, y * size)));
        if (line.length === 1) ink.lineTo(line[0][0] * size + 0.01, line[0][1] * size);
        ink.stroke();
      }
      if (document.activeElement === pad) {
        Object.assign(ink, { strokeStyle: pen.down ? "#ffb000" : "#5bc0eb", lineWidth: 2 });
        ink.beginPath();
        ink.arc(pen.x * size, pen.y * size, size / 22, 0, 7);
        ink.stroke();
      }
    }
    const update = () => (show(), changed(rasterize(strokes)));

    pad.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      pad.focus();
      pad.setPointerCapture(event.pointerId);
      strokes.push((stroke = [point(event)]));
      update();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!stroke) return;
      stroke.push(point(event));
      update();
    });
    for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (stroke = null));
    pad.addEventListener("focus", show);
    pad.addEventListener("blur", () => ((pen.down = false), show()));
    pad.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = moves[event.key];
      if (!move && ![" ", "Delete", "Backspace"].includes(event.key)) return;
      event.preventDefault();
      if (move) {
        pen.x = Math.min(Math.max(pen.x + move[0] * STEP, 0), 1);
        pen.y = Math.min(Math.max(pen.y + move[1] * STEP, 0), 1);
        if (!pen.down) return show();
        strokes.at(-1).push([pen.x, pen.y]);
      } else if (event.key === " ") {
        pen.down = !pen.down;
        if (!pen.down) return show();
        strokes.push([[pen.x, pen.y]]);
      } else {
        pen.down = false;
        strokes.length = 0;
      }
      update();
    });
    clear.addEventListener("click", () => ((strokes.length = 0), (pen.down = false), update()));
    own.addEventListener("change", update);
    show();
  }

  /* Strokes as the data set has its digits: the longer side 20 pixels, the center of mass in the middle, gray
     edges, bytes. */
  function rasterize(strokes) {
    const points = strokes.flat(), x = new Float64Array(ALL);
    if (!points.length) return x;
    const [left, top] = [0, 1].map((axis) => Math.min(...points.map((p) => p[axis])));
    const [right, bottom] = [0, 1].map((axis) => Math.max(...points.map((p) => p[axis])));
    const radius = 1.2, zoom = (20 - 2 * radius) / Math.max(right - left, bottom - top, 0.15);
    const paint = (dx, dy) => {
      x.fill(0);
      for (const line of strokes)
        for (let i = 0; i < line.length; i++) {
          const [from, to] = [line[Math.max(i - 1, 0)], line[i]].map(([a, b]) => [(a - left) * zoom + dx, (b - top) * zoom + dy]);
          segment(x, from, to, radius);
        }
    };
    paint((SIDE - (right - left) * zoom) / 2, (SIDE - (bottom - top) * zoom) / 2);
    let mass = 0, across = 0, down = 0;
    x.forEach((value, j) => { mass += value; across += value * ((j % SIDE) + 0.5); down += value * (Math.floor(j / SIDE) + 0.5); });
    const shift = (middle) => Math.max(-3, Math.min(3, SIDE / 2 - middle / mass));
    paint((SIDE - (right - left) * zoom) / 2 + shift(across), (SIDE - (bottom - top) * zoom) / 2 + shift(down));
    return x.map((value) => Math.fround(Math.round(255 * value) / 255));
  }

  /* Raise the pixels near a segment to what a pen with a soft edge leaves. */
  function segment(x, [ax, ay], [bx, by], radius) {
    const reach = radius + 1, squared = (bx - ax) ** 2 + (by - ay) ** 2;
    const range = (a, b) => [Math.max(0, Math.floor(Math.min(a, b) - reach)), Math.min(SIDE - 1, Math.ceil(Math.max(a, b) + reach))];
    const [x0, x1] = range(ax, bx), [y0, y1] = range(ay, by);
    for (let row = y0; row <= y1; row++)
      for (let column = x0; column <= x1; column++) {
        const [px, py] = [column + 0.5, row + 0.5];
        const along = squared ? Math.max(0, Math.min(1, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / squared)) : 0;
        const away = Math.hypot(px - ax - along * (bx - ax), py - ay - along * (by - ay));
        const place = row * SIDE + column;
        x[place] = Math.max(x[place], Math.min(1, Math.max(0, radius + 0.5 - away)));
      }
  }

  start();
})();
