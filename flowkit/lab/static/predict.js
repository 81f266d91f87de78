// A question with radio buttons. The guess is kept in the model as its value.
// keys.js stands before it in one module.

const NOTED = "Your guess is noted: run the next cell to see.";
let questions = 0;

function render({ model, el }) {
  const name = `flowkit-question-${++questions}-${Math.random().toString(36).slice(2, 8)}`;
  const fields = document.createElement("fieldset");
  const legend = document.createElement("legend");
  const noted = document.createElement("p");
  legend.textContent = model.get("question");
  noted.className = "flowkit-summary";
  noted.setAttribute("aria-live", "polite");
  fields.append(legend);
  const radios = model.get("choices").map((text) => {
    const radio = Object.assign(document.createElement("input"), { type: "radio", name, value: text });
    radio.addEventListener("change", () => {
      model.set("value", text);
      model.save_changes();
    });
    const label = document.createElement("label");
    label.append(radio, ` ${text}`);
    fields.append(label);
    return radio;
  });
  function update() {
    const value = model.get("value");
    for (const radio of radios) radio.checked = radio.value === value;
    noted.textContent = value === null ? "" : NOTED;
  }
  el.classList.add("flowkit-widget");
  keepKeys(el);
  el.append(fields, noted);
  update();
  model.on("change:value", update);
  return () => model.off("change:value", update);
}

export default { render };
