// One explorer, two homes: as an anywidget (render, below) and as plain HTML (mount, called by a line of script).
// `spec` says what there is to move; `source.at(positions, state)` gives {image, error, sentence}, now or as a promise.

const PLAY_MS = 125;
const SPEAK_AFTER_MS = 400;
const PATIENCE_MS = 4000;
const PAD_FIELD_INSET = 16;
const PAD_AND_GAP = 230;
const NEAR = /^(localhost|127[.].*|\[::1\])$/.test(location.hostname);

function make(tag, className, attributes = {}, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

export function mount(host, spec, source) {
  const positions = spec.controls.map((control) => control.start);
  const root = make("div", "cmog", { role: "group", "aria-label": spec.label || "explorer" });
  // Both are needed: JupyterLab takes arrow keys, Home and End for itself otherwise.
  root.dataset.lmSuppressShortcuts = "true";
  root.dataset.kind = spec.live ? "live" : "scrubbed";
  root.addEventListener("keydown", (event) => event.stopPropagation());

  const rows = make("div", "cmog-rows");
  const body = make("div", "cmog-body");
  const view = make("div", "cmog-view");
  const card = make("div", "cmog-card", { style: `aspect-ratio: ${spec.size[0]} / ${spec.size[1]}` });
  const picture = make("div", "cmog-picture", { role: "img" });
  const alarm = make("div", "cmog-error", { role: "alert", hidden: "" });
  const status = make("div", "cmog-status", { role: "status", hidden: "" });
  const changing = make("div", "cmog-changing");
  picture.append(...(source.base ? [source.base] : []), changing);
  card.append(picture, alarm, status);
  view.append(card);
  const words = sentenceBelow(spec);
  view.append(...words.nodes);
  if (spec.note) view.append(make("p", "cmog-note", {}, spec.note));

  let wanted = null;
  let busy = false;
  const controls = spec.controls.map((control, index) => {
    const own = (control.axes ? pad : slider)(control, positions[index], (position) => {
      if (position === positions[index]) return;
      positions[index] = position;
      wanted = positions.slice();
      if (!busy) run();
    }, () => busy);
    (control.axes ? body : rows).append(own.node);
    return own;
  });
  body.append(view);
  const pads = spec.controls.filter((control) => control.axes).length;
  const sheet = make("div", "cmog-sheet", { style: `--cmog-width: ${spec.size[0] + pads * PAD_AND_GAP}px` });
  if (spec.label) sheet.append(make("p", "cmog-caption", { "aria-hidden": "true" }, spec.label));
  if (rows.childNodes.length) sheet.append(rows);
  sheet.append(body);
  root.append(sheet);
  host.replaceChildren(root);
  // A page may hold many explorers: each loads its pictures when its reader comes near.
  const near = new IntersectionObserver((seen) => {
    if (!seen.some((each) => each.isIntersecting)) return;
    near.disconnect();
    source.preload?.();
  }, { rootMargin: "100% 0px" });
  near.observe(root);

  // At most one picture is under way; when it comes, the newest wish is sent and the older ones are forgotten.
  async function run() {
    busy = true;
    while (wanted) {
      const at = wanted;
      wanted = null;
      const waiting = setTimeout(() => say("Waiting for the kernel …"), PATIENCE_MS);
      let found;
      try {
        const reply = source.at(at, stateAt(at));
        if (reply instanceof Promise) markBusy();
        found = await reply;
        if (found.image && !found.image.complete) {
          markBusy();
          await found.image.decode();
        }
      } catch (error) {
        found = { error: String(error), sentence: "" };
      }
      clearTimeout(waiting);
      say("");
      picture.removeAttribute("aria-busy");
      paint(found, stateAt(at));
    }
    busy = false;
  }

  const stateAt = (at) => at.reduce((state, position, k) => state * spec.controls[k].count + position, 0);
  const markBusy = () => picture.setAttribute("aria-busy", "true");
  const say = (text) => { status.textContent = text; status.hidden = !text; };

  function paint({ image, error, sentence }, state) {
    if (image) changing.replaceChildren(image);
    picture.hidden = Boolean(error);
    alarm.hidden = !error;
    alarm.textContent = "";
    if (error) alarm.append(make("strong", "", {}, "This position could not be drawn"), make("span", "", {}, error));
    picture.setAttribute("aria-label", sentence);
    words.set(sentence);
    root.dataset.state = state;
    root.dispatchEvent(new CustomEvent("cmog-shown", { bubbles: true, detail: { state } }));
  }

  wanted = positions.slice();
  run();
  return () => { near.disconnect(); controls.forEach((control) => control.stop()); root.remove(); };
}

// The sentence stands below the picture where the author wrote one, and is spoken once the hand has come to rest.
function sentenceBelow(spec) {
  const spoken = make("div", "cmog-spoken", { "aria-live": "polite" });
  const box = make("div", "cmog-words", { "aria-hidden": "true" });
  const shown = make("p", spec.sentences ? "" : "cmog-clamped");
  box.append(shown);
  if (spec.sentences) {
    const longest = spec.sentences.reduce((a, b) => (b.length > a.length ? b : a), "");
    box.append(make("p", "cmog-sizer", {}, longest));
  }
  let timer;
  let first = true;
  const set = (sentence) => {
    shown.textContent = sentence;
    clearTimeout(timer);
    if (first) first = false;
    else timer = setTimeout(() => { spoken.textContent = sentence; }, SPEAK_AFTER_MS);
  };
  return { nodes: spec.sentencesGiven ? [box, spoken] : [spoken], set };
}

function slider(control, start, changed, isBusy) {
  const node = make("div", "cmog-row");
  const last = control.count - 1;
  const play = make("button", "cmog-play", { type: "button" });
  const label = make("span", "cmog-label", { "aria-hidden": "true" }, control.label);
  const range = make("input", "cmog-range", { type: "range", min: 0, max: last, step: 1, "aria-label": control.label });
  const width = Math.max(...control.texts.map((text) => text.length));
  const value = make("output", "cmog-value", { "aria-hidden": "true", style: `min-width: ${width + 0.5}ch` });
  node.append(play, label, range, value);

  const write = () => {
    const position = Number(range.value);
    value.textContent = control.texts[position];
    range.setAttribute("aria-valuetext", control.texts[position]);
    const share = last ? position / last : 0;
    range.style.setProperty("--cmog-at", `calc(${share} * (100% - 22px) + 11px)`);
  };
  const go = (position) => { range.value = position; write(); changed(position); };

  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    delete play.dataset.playing;
    play.setAttribute("aria-label", `Play ${control.label}`);
  };
  const tick = () => {
    if (!node.isConnected) return stop();
    if (isBusy()) return;
    go(Number(range.value) + 1);
    if (Number(range.value) === last) stop();
  };
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(range.value) === last) go(0);
    play.dataset.playing = "";
    play.setAttribute("aria-label", `Pause ${control.label}`);
    timer = setInterval(tick, PLAY_MS);
  });
  range.addEventListener("input", () => { stop(); write(); changed(Number(range.value)); });
  range.value = start;
  stop();
  write();
  return { node, stop };
}

function pad(control, start, changed) {
  const [xs, ys] = control.axes;
  const node = make("div", "cmog-pad");
  const head = make("div", "cmog-label", { "aria-hidden": "true" }, control.label);
  const value = make("div", "cmog-value", { "aria-hidden": "true" });
  const plane = make("div", "cmog-plane", {
    role: "slider", tabindex: 0, "aria-label": control.label, "aria-roledescription": "point in the plane",
    "aria-valuemin": 0, "aria-valuemax": control.count - 1,
  });
  const field = make("div", "cmog-field");
  const knob = make("div", "cmog-knob");
  const across = make("div", "cmog-across", { style: `bottom: ${control.cross[1] * 100}%` });
  const up = make("div", "cmog-up", { style: `left: ${control.cross[0] * 100}%` });
  field.append(across, up, knob);
  plane.append(field,
    make("span", "", { style: `right: 5px; bottom: calc(16px + ${control.cross[1]} * (100% - 32px) + 4px)` }, control.names[0]),
    make("span", "", { style: `top: 5px; left: calc(16px + ${control.cross[0]} * (100% - 32px) + 5px)` }, control.names[1]));
  node.append(head, plane, value);

  let column = start % xs.length;
  let row = Math.floor(start / xs.length);
  const clamp = (k, n) => Math.min(Math.max(k, 0), n - 1);
  const write = () => {
    knob.style.left = `${(column / (xs.length - 1)) * 100}%`;
    knob.style.top = `${(1 - row / (ys.length - 1)) * 100}%`;
    value.textContent = `(${xs[column]}, ${ys[row]})`;
    plane.setAttribute("aria-valuenow", row * xs.length + column);
    plane.setAttribute("aria-valuetext", `${control.names[0]} ${xs[column]}, ${control.names[1]} ${ys[row]}`);
  };
  const go = (c, r) => {
    column = clamp(c, xs.length);
    row = clamp(r, ys.length);
    write();
    changed(row * xs.length + column);
  };
  const follow = (event) => {
    const box = plane.getBoundingClientRect();
    const share = (at, from, length) => (at - from - PAD_FIELD_INSET) / (length - 2 * PAD_FIELD_INSET);
    go(Math.round(share(event.clientX, box.left, box.width) * (xs.length - 1)),
      Math.round((1 - share(event.clientY, box.top, box.height)) * (ys.length - 1)));
  };
  plane.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    plane.setPointerCapture(event.pointerId);
    plane.focus({ preventScroll: true });
    follow(event);
    event.preventDefault();
  });
  plane.addEventListener("pointermove", (event) => { if (plane.hasPointerCapture(event.pointerId)) follow(event); });
  const moves = {
    ArrowRight: () => go(column + 1, row), ArrowLeft: () => go(column - 1, row),
    ArrowUp: () => go(column, row + 1), ArrowDown: () => go(column, row - 1),
    Home: () => go(0, row), End: () => go(xs.length - 1, row),
    PageUp: () => go(column, ys.length - 1), PageDown: () => go(column, 0),
  };
  plane.addEventListener("keydown", (event) => {
    if (!moves[event.key]) return;
    moves[event.key]();
    event.preventDefault();
  });
  write();
  return { node, stop: () => {} };
}

function imageFrom(url) {
  const image = new Image();
  image.alt = "";
  image.decoding = "sync"; // The new picture stands where the old one stood, without a blank between them.
  image.src = url;
  return image;
}

// All pictures are at hand: what all states share, then what each lays over it. They load while nobody waits.
export function framesSource(spec, [base, ...urls]) {
  const images = [];
  const imageOf = (k) => (images[k] ??= imageFrom(urls[k]));
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  let next = 0;
  const preload = () => {
    for (let n = 0; n < 8 && next < urls.length; n++) imageOf(next++);
    if (next < urls.length) idle(preload);
  };
  return {
    preload: () => idle(preload),
    base: urls.length ? imageFrom(base) : null,
    at(_, state) {
      const k = spec.frameOf[state];
      return { image: k < 0 ? null : imageOf(k), error: spec.errors[state], sentence: spec.sentences[state] };
    },
  };
}

// Only the positions travel to the kernel; what comes back carries the number of the question.
function liveSource(model, start) {
  const view = Math.random().toString(36).slice(2);
  const open = new Map();
  let asked = 0;
  let url = null;
  const hear = (message, buffers) => {
    if (message.view !== view || !open.has(message.question)) return;
    if (url) URL.revokeObjectURL(url);
    url = buffers[0].byteLength ? URL.createObjectURL(new Blob([buffers[0]], { type: "image/webp" })) : null;
    open.get(message.question)({ image: url && imageFrom(url), error: message.error, sentence: message.sentence });
    open.delete(message.question);
  };
  model.on("msg:custom", hear);
  const ask = (positions) => new Promise((answer) => {
    open.set(++asked, answer);
    model.send({ view, question: asked, positions, near: NEAR });
  });
  return {
    at: (positions) => {
      const first = start;
      start = null;
      return first ?? ask(positions);
    },
    close() { model.off("msg:custom", hear); if (url) URL.revokeObjectURL(url); },
  };
}

function render({ model, el }) {
  const spec = model.get("spec");
  const bytes = model.get("frames");
  if (spec.live) {
    const image = bytes.byteLength ? imageFrom(URL.createObjectURL(new Blob([bytes], { type: "image/webp" }))) : null;
    const source = liveSource(model, { image, ...spec.first });
    const unmount = mount(el, spec, source);
    return () => { unmount(); source.close(); };
  }
  let from = 0;
  const urls = spec.lengths.map((length) => {
    const part = new Uint8Array(bytes.buffer, bytes.byteOffset + from, length);
    from += length;
    return URL.createObjectURL(new Blob([part], { type: "image/webp" }));
  });
  const unmount = mount(el, spec, framesSource(spec, urls));
  return () => { unmount(); urls.forEach((each) => URL.revokeObjectURL(each)); };
}

export default { render };
