// The live canvas: draws the scene that the kernel computed and sends what the learner drags.
// Coordinates: a scene has pixels of its own (scene.py); each panel maps its view into its place.

const KEY_STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP = "Drag the box, an edge or a corner. Keys: arrows move it, with Shift they resize it, with Alt in tenths.";
const HELP_SEVERAL = " The keys n and p choose the next or the previous box: the one with the larger corners.";
const REPLY_TIMEOUT = 3000; // ms; a kernel that restarted never answers

function isDark() {
  const { jpThemeLight } = document.body.dataset;
  if (jpThemeLight !== undefined) return jpThemeLight === "false";
  return document.body.classList.contains("vscode-dark") || matchMedia("(prefers-color-scheme: dark)").matches;
}

function fit(panel) {
  const [left, top, width, height] = panel.place;
  const [x1, y1, x2, y2] = panel.view;
  const unit = Math.min(width / (x2 - x1), height / (y2 - y1));
  const origin = [left + (width - unit * (x2 - x1)) / 2, top + (height - unit * (y2 - y1)) / 2];
  return {
    unit,
    frame: [origin[0], origin[1], unit * (x2 - x1), unit * (y2 - y1)],
    x: (x) => origin[0] + (x - x1) * unit,
    y: (y) => origin[1] + (y - y1) * unit,
    back: ([x, y]) => [(x - origin[0]) / unit + x1, (y - origin[1]) / unit + y1],
  };
}

const draw = {
  image(context, item, at, { images }) {
    const picture = images.get(item.name);
    if (!picture) return; // it is being decoded, and drawn when it is there
    const [x1, y1, x2, y2] = item.extent;
    context.imageSmoothingEnabled = item.smooth;
    context.drawImage(picture, at.x(x1), at.y(y1), (x2 - x1) * at.unit, (y2 - y1) * at.unit);
  },
  cells(context, item, at) {
    const [x1, y1, x2, y2] = item.extent;
    const width = ((x2 - x1) / item.shades[0].length) * at.unit;
    const height = ((y2 - y1) / item.shades.length) * at.unit;
    item.shades.forEach((row, i) =>
      row.forEach((shade, j) => {
        const level = Math.round(255 * Math.min(1, Math.max(0, shade)));
        const [x, y] = [at.x(x1) + j * width, at.y(y1) + i * height];
        context.fillStyle = `rgb(${level} ${level} ${level})`;
        context.fillRect(x, y, width + 0.5, height + 0.5);
        const text = item.texts[i]?.[j];
        if (text) write(context, text, x + width / 2, y + height / 2, level < 128 ? "white" : "black", 11, "center");
      }),
    );
  },
  box(context, item, at, { color, chosen }) {
    const [x1, y1, x2, y2] = item.xyxy;
    const rectangle = [at.x(x1), at.y(y1), (x2 - x1) * at.unit, (y2 - y1) * at.unit];
    if (item.fill) {
      context.globalAlpha = item.fill;
      context.fillStyle = color(item.color);
      context.fillRect(...rectangle);
      context.globalAlpha = 1;
    }
    // A wider stroke in the colour of the paper sets the outline off from any photograph.
    context.strokeStyle = color("paper");
    context.lineWidth = item.width + 2;
    context.strokeRect(...rectangle);
    context.strokeStyle = color(item.color);
    context.lineWidth = item.width;
    context.setLineDash(item.dashed ? [4 * item.width, 2 * item.width] : []);
    context.strokeRect(...rectangle);
    context.setLineDash([]);
    if (item.handle) {
      context.fillStyle = color(item.color);
      const half = item.handle === chosen ? 5 : 3.5;
      for (const x of [x1, x2]) {
        for (const y of [y1, y2]) context.fillRect(at.x(x) - half, at.y(y) - half, 2 * half, 2 * half);
      }
    }
    if (item.label) write(context, item.label, at.x(x1), at.y(y1), color(item.color), 12, "left", true, color("paper"));
  },
  points(context, item, at, { color }) {
    context.globalAlpha = item.opacity;
    context.fillStyle = color(item.color);
    item.xy.forEach(([x, y], i) => {
      context.beginPath();
      context.arc(at.x(x), at.y(y), Array.isArray(item.radius) ? item.radius[i] : item.radius, 0, 2 * Math.PI);
      context.fill();
    });
    context.globalAlpha = 1;
  },
  lines(context, item, at, { color }) {
    context.strokeStyle = color(item.color);
    context.lineWidth = item.width;
    context.setLineDash(item.dashed ? [4, 3] : []);
    context.beginPath();
    for (const [x1, y1, x2, y2] of item.segments) {
      context.moveTo(at.x(x1), at.y(y1));
      context.lineTo(at.x(x2), at.y(y2));
    }
    context.stroke();
    context.setLineDash([]);
  },
  text(context, item, at, { color }) {
    const place = [at.x(item.x), at.y(item.y)];
    write(context, item.text, ...place, color(item.color), item.size, item.align, item.bold, color("paper"));
  },
};

// A halo in the colour of the paper keeps words readable on any picture.
function write(context, text, x, y, color, size, align, bold = false, halo = null) {
  context.font = `${bold ? "600 " : ""}${size}px var(--jp-ui-font-family), system-ui, sans-serif`.replace(
    "var(--jp-ui-font-family)",
    getComputedStyle(document.body).getPropertyValue("--jp-ui-font-family").trim() || "system-ui",
  );
  context.fillStyle = color;
  context.textAlign = align;
  context.textBaseline = "middle";
  if (halo) {
    context.strokeStyle = halo;
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeText(text, x, y);
  }
  context.fillText(text, x, y);
}

// Which part of a box lies under the pointer: [-1 | 0 | 1, -1 | 0 | 1] for an edge or a corner, [0, 0] for its inside.
function grip(box, at, [px, py], reach) {
  const [x1, y1, x2, y2] = [at.x(box[0]), at.y(box[1]), at.x(box[2]), at.y(box[3])];
  if (px < x1 - reach || px > x2 + reach || py < y1 - reach || py > y2 + reach) return null;
  const side = (p, low, high) => {
    const near = Math.min(reach, (high - low) / 3 + 2); // leave a small box an inside to hold
    if (Math.abs(p - low) <= near) return -1;
    return Math.abs(p - high) <= near ? 1 : 0;
  };
  const outside = px < x1 || px > x2 || py < y1 || py > y2;
  const part = [side(px, x1, x2), side(py, y1, y2)];
  return outside && part[0] === 0 && part[1] === 0 ? null : part;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const tenths = (value) => Math.round(value * 10) / 10;

// Moves ([0, 0]) or resizes a box by (dx, dy) and keeps it within the view and at least one unit wide.
function change(box, part, [dx, dy], [vx1, vy1, vx2, vy2]) {
  const along = (from, to, step, side, low, high) => {
    if (side < 0) return [clamp(from + step, low, to - 1), to];
    if (side > 0) return [from, clamp(to + step, from + 1, high)];
    const shift = clamp(step, low - from, high - to);
    return [from + shift, to + shift];
  };
  const moved = part[0] === 0 && part[1] === 0;
  const [x1, x2] = moved || part[0] ? along(box[0], box[2], dx, part[0], vx1, vx2) : [box[0], box[2]];
  const [y1, y2] = moved || part[1] ? along(box[1], box[3], dy, part[1], vy1, vy2) : [box[1], box[3]];
  return [x1, y1, x2, y2].map(tenths);
}

function cursor(part) {
  if (!part) return "default";
  if (part[0] === 0 && part[1] === 0) return "move";
  if (part[0] === 0) return "ns-resize";
  if (part[1] === 0) return "ew-resize";
  return part[0] === part[1] ? "nwse-resize" : "nesw-resize";
}

function render({ model, el }) {
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.dataset.lmSuppressShortcuts = "true"; // else the letter b inserts a cell
  Object.assign(canvas.style, { display: "block", touchAction: "none", outlineOffset: "-3px" });
  const help = document.createElement("div");
  Object.assign(help.style, { font: "12px var(--jp-ui-font-family, system-ui)", color: "var(--jp-ui-font-color2, #666)" });
  const spoken = document.createElement("div"); // what a screen reader says once the picture rests
  spoken.setAttribute("aria-live", "polite");
  Object.assign(spoken.style, { position: "absolute", width: "1px", height: "1px", overflow: "hidden", clipPath: "inset(50%)" });
  el.append(canvas, help, spoken);
  const context = canvas.getContext("2d");

  const images = new Map(); // name -> decoded picture
  let drag = null; // {pointer, handle, part, from, start, view}
  let held = null; // {handle, box}: the box as the learner holds it, ahead of the kernel's answer
  let selected = 0; // the handle that keys move
  let inFlight = null; // {seq, at}: one message at a time, so that a slow kernel never falls behind
  let waiting = false; // a newer box than the one in flight
  let seq = 0;
  let scale = 1;
  let frame = 0;
  let speech = 0;

  const handles = () =>
    model.get("scene").panels.flatMap((panel) => {
      const at = fit(panel);
      return panel.items
        .filter((item) => item.handle)
        .map((item) => ({ name: item.handle, box: boxOf(item), at, view: panel.view, color: item.color }));
    });
  const boxOf = (item) => (held && held.handle === item.handle ? held.box : item.xyxy);

  function redraw() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      paint();
    });
  }

  function paint() {
    const scene = model.get("scene");
    const dark = isDark();
    const color = (name) => model.get("palette")[name][dark ? 1 : 0];
    const ratio = window.devicePixelRatio || 1;
    scale = clamp((el.clientWidth || scene.width) / scene.width, 0.35, 1.25);
    const [width, height] = [Math.round(scene.width * scale * ratio), Math.round(scene.height * scale * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.style.width = `${scene.width * scale}px`;
    canvas.style.height = `${scene.height * scale}px`;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, 0, 0);
    context.clearRect(0, 0, scene.width, scene.height);
    const all = handles();
    const chosen = all.length > 1 ? all[selected]?.name : null; // of several boxes, the one that keys move
    help.textContent = all.length > 1 ? HELP + HELP_SEVERAL : all.length ? HELP : ""; // nothing to drag, no help
    for (const panel of scene.panels) {
      const at = fit(panel);
      context.save();
      context.beginPath();
      context.rect(...at.frame);
      context.clip();
      for (const item of panel.items) {
        draw[item.kind](context, item.handle ? { ...item, xyxy: boxOf(item) } : item, at, { color, images, chosen });
      }
      context.restore();
      if (panel.framed) {
        context.strokeStyle = color("faint");
        context.lineWidth = 1;
        context.strokeRect(...at.frame);
      }
      if (panel.title) {
        const middle = at.frame[0] + at.frame[2] / 2;
        write(context, panel.title, middle, at.frame[1] - 11, color("ink"), 13, "center", true);
      }
    }
    if (scene.error) write(context, scene.error, 8, scene.height - 10, color("orange"), 13, "left", true);
    canvas.style.outlineColor = color("blue");
    canvas.dataset.seq = scene.seq;
    canvas.setAttribute("aria-label", `${scene.alt} ${help.textContent}`);
    if (inFlight && scene.seq >= inFlight.seq) answered();
    clearTimeout(speech);
    speech = setTimeout(() => (spoken.textContent = scene.alt), 600);
  }

  function answered() {
    canvas.dataset.roundTrip = performance.now() - inFlight.at; // ms, the new picture included
    inFlight = null;
    if (waiting) send();
    else if (!drag) held = null;
  }

  function send() {
    const now = performance.now();
    waiting = inFlight !== null && now - inFlight.at < REPLY_TIMEOUT;
    if (waiting) return;
    seq += 1;
    inFlight = { seq, at: now };
    model.send({ handle: held.handle, box: held.box, seq });
  }

  function hold(handle, box) {
    held = { handle, box };
    send();
    redraw();
  }

  const position = (event) => {
    const rectangle = canvas.getBoundingClientRect();
    return [(event.clientX - rectangle.left) / scale, (event.clientY - rectangle.top) / scale];
  };
  const under = (event) => {
    const reach = event.pointerType === "touch" ? 16 : 8;
    const found = handles().map((handle) => ({ ...handle, part: grip(handle.box, handle.at, position(event), reach) }));
    return found.findLast((handle) => handle.part);
  };

  canvas.addEventListener("pointerdown", (event) => {
    const handle = under(event);
    if (!handle) return;
    selected = handles().findIndex(({ name }) => name === handle.name);
    redraw();
    drag = { pointer: event.pointerId, handle, start: handle.at.back(position(event)) };
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) {
      canvas.style.cursor = cursor(under(event)?.part);
    } else if (drag.pointer === event.pointerId) {
      const now = drag.handle.at.back(position(event));
      const step = [now[0] - drag.start[0], now[1] - drag.start[1]];
      hold(drag.handle.name, change(drag.handle.box, drag.handle.part, step, drag.handle.view));
    }
  });
  const release = (event) => {
    if (!drag || drag.pointer !== event.pointerId) return;
    drag = null;
    if (!inFlight) held = null;
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);

  canvas.addEventListener("keydown", (event) => {
    const all = handles();
    if (all.length > 1 && (event.key === "n" || event.key === "p")) {
      selected = (selected + (event.key === "n" ? 1 : all.length - 1)) % all.length;
      redraw();
    } else if (KEY_STEPS[event.key] && all[selected] && !event.ctrlKey && !event.metaKey) {
      const { name, box, view } = all[selected];
      const size = event.altKey ? 0.1 : 1;
      const step = KEY_STEPS[event.key].map((direction) => direction * size);
      const part = event.shiftKey ? [step[0] ? 1 : 0, step[1] ? 1 : 0] : [0, 0]; // the right or the lower edge
      hold(name, change(box, part, step, view));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });

  async function decode() {
    for (const [name, png] of Object.entries(model.get("images"))) {
      if (images.has(name)) continue;
      images.set(name, await createImageBitmap(new Blob([png], { type: "image/png" })));
      redraw();
    }
  }

  const themes = new MutationObserver(redraw);
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  const sizes = new ResizeObserver(redraw);
  sizes.observe(el);
  model.on("change:scene", redraw);
  model.on("change:images", decode);
  decode();
  paint();
  return () => {
    themes.disconnect();
    sizes.disconnect();
    model.off("change:scene", redraw);
    model.off("change:images", decode);
    clearTimeout(speech);
    cancelAnimationFrame(frame);
  };
}

export default { render };
