// The widget around the picture: native controls, one request in flight, a summary that is read out.
// keys.js and paint.js stand before it in one module.

const PATIENCE = 2000; // milliseconds before we say that the kernel is busy
const QUIET = 400; // milliseconds without news before the summary is announced
const BUSY = "Waiting for the kernel. It may be busy with another cell; after a restart, run this cell again.";
let views = 0;

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function makeSlider(control, id, changed) {
  const { min, max, step, value, digits, label } = control;
  const range = element("input", { type: "range", id, min, max, step, value });
  const shown = element("span", { class: "flowkit-value", "aria-hidden": "true" });
  const write = () => {
    shown.textContent = Number(range.value).toFixed(digits).replace("-", "\u2212");
    range.setAttribute("aria-valuetext", Number(range.value).toFixed(digits));
  };
  range.addEventListener("input", () => {
    write();
    changed();
  });
  write();
  const row = element("div", { class: "flowkit-control" }, element("label", { for: id }, label), range, shown);
  return { row, read: () => Number(range.value) };
}

function makeChoice(control, id, changed) {
  const options = control.options.map((text) => element("option", { value: text }, text));
  const select = element("select", { id }, ...options);
  select.value = control.value;
  select.addEventListener("change", changed);
  const row = element("div", { class: "flowkit-control" }, element("label", { for: id }, control.label), select);
  return { row, read: () => select.value };
}

function render({ model, el }) {
  const view = `flowkit-${++views}-${Math.random().toString(36).slice(2, 8)}`;
  const canvas = element("canvas", { role: "img", "aria-label": "A drawing" });
  const summary = element("p", { class: "flowkit-summary", "aria-live": "polite", "aria-atomic": "true" });
  const makers = { slider: makeSlider, choice: makeChoice };
  const controls = model.get("controls").map((control, k) => {
    return { name: control.name, ...makers[control.kind](control, `${view}-${k}`, ask) };
  });
  el.classList.add("flowkit-widget");
  keepKeys(el);
  el.append(...controls.map((control) => control.row), element("div", { class: "flowkit-picture" }, canvas), summary);

  let shown = null;
  let waiting = false;
  let stale = false;
  let scheduled = false;
  let impatient, quiet;

  function ask() {
    summary.setAttribute("aria-busy", "true");
    if (waiting) {
      stale = true;
      return;
    }
    waiting = true;
    stale = false;
    clearTimeout(impatient);
    impatient = setTimeout(giveUp, PATIENCE); // set first: sending fails when the kernel is gone
    const values = Object.fromEntries(controls.map((control) => [control.name, control.read()]));
    model.send({ view, values });
  }

  function giveUp() {
    waiting = false; // the next move asks again: an interrupted kernel does not answer
    tell(BUSY, true);
  }

  function tell(words, wrong) {
    if (summary.textContent !== words) summary.textContent = words;
    summary.classList.toggle("flowkit-wrong", wrong);
    clearTimeout(quiet);
    quiet = setTimeout(() => summary.setAttribute("aria-busy", "false"), QUIET);
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      if (shown && canvas.clientWidth) paint(canvas, shown, canvas.clientWidth);
    });
  }

  function receive(answer, buffers) {
    if (answer.error) {
      tell(`The picture could not be drawn. ${answer.error}`, true);
      return;
    }
    shown = { header: answer.header, buffers };
    canvas.setAttribute("aria-label", answer.header.picture);
    tell(answer.header.summary, false);
    schedule();
  }

  function onMessage(answer, buffers) {
    if (answer.view !== view) return;
    clearTimeout(impatient);
    waiting = false;
    if (stale) ask();
    receive(answer, buffers);
  }

  const first = model.get("first");
  receive(first, first.buffers);
  model.on("msg:custom", onMessage);
  const resized = new ResizeObserver(schedule);
  resized.observe(canvas);
  const themed = new MutationObserver(schedule);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  return () => {
    model.off("msg:custom", onMessage);
    resized.disconnect();
    themed.disconnect();
    clearTimeout(impatient);
    clearTimeout(quiet);
  };
}

export default { render };
