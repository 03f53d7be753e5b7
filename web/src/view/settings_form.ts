// The controls of one run's settings. There are two of them when settings are compared.
import type { Info } from "../server";
import { ownInstruction, type Settings } from "../settings";
import { el, freshId, on } from "./dom";

type Preset = NonNullable<Info["instructions"]>[number];

export class SettingsForm {
  readonly element: HTMLElement;
  private readonly preset = el("select", { id: freshId("preset") });
  private readonly own = el("textarea", { id: freshId("own"), rows: 3, "aria-label": "Own instruction" });
  private readonly presetText = el("p", { class: "hint quoted" });
  private readonly direct: HTMLInputElement;
  private readonly think: HTMLInputElement;
  private readonly budget = number("its own");
  private readonly budgetRow: HTMLElement;
  private readonly temperature = number("its own", { min: 0, step: 0.1, inputmode: "decimal" });
  private readonly temperatureRow: HTMLElement;
  private readonly samples = number("its own");
  private readonly samplesRow: HTMLElement;
  private readonly explainTop = number("none");
  private readonly explainRow: HTMLElement;
  private readonly longDocs = el(
    "select",
    { id: freshId("long") },
    el("option", { value: "windows" }, "in windows"),
    el("option", { value: "cut" }, "beginning only"),
  );
  private readonly topN = number("all");
  private presets: Preset[] = [];
  private modelsOwn = "";
  private ownTemperature = 0;

  constructor(legend: string, changed: () => void) {
    const group = freshId("mode");
    const radio = (value: string) => el("input", { type: "radio", name: group, value, id: freshId(value) });
    this.direct = radio("direct");
    this.think = radio("think");
    this.budgetRow = row("Thinks for at most", this.budget, "tokens");
    this.temperatureRow = row("Thinks at a temperature of", this.temperature, "");
    this.samplesRow = row("Thinks about each", this.samples, "times");
    this.explainRow = row("Gives reasons for the first", this.explainTop, "results");
    this.element = el(
      "fieldset",
      { class: "settings" },
      el("legend", { class: "hidden" }, legend),
      el("div", { class: "field" }, el("label", { for: this.preset.id }, "Instruction"), this.preset, this.own),
      this.presetText,
      el(
        "div",
        { class: "segments", role: "radiogroup", "aria-label": `Mode of ${legend.toLowerCase()}` },
        this.direct,
        el("label", { for: this.direct.id }, "Direct ", el("small", {}, "answers at once")),
        this.think,
        el("label", { for: this.think.id }, "Think ", el("small", {}, "writes its reasons first")),
      ),
      this.explainRow,
      this.budgetRow,
      this.temperatureRow,
      this.samplesRow,
      row("Reads long documents", this.longDocs, null),
      row("Returns", this.topN, "results"),
    );
    this.setServer({});
    on(this.element, "input", () => {
      this.arrange();
      changed();
    });
  }

  // What the server offers, and what it does where nothing is set.
  setServer(info: Info): void {
    const chosen = this.preset.value;
    const presets = info.instructions ?? [];
    this.presets = presets;
    this.modelsOwn = info.default_instruction ?? "";
    this.ownTemperature = info.default_temperature ?? 0;
    for (const [input, own, most] of [
      [this.budget, info.default_max_think_tokens, info.max_think_tokens],
      [this.temperature, info.default_temperature, undefined],
      [this.samples, info.default_samples, info.max_samples],
    ] as const) {
      input.placeholder = own?.toString() ?? "its own";
      input.max = most?.toString() ?? "";
    }
    this.preset.replaceChildren(
      el("option", { value: "" }, "The model's own"),
      ...presets.map((preset) => el("option", { value: preset.name }, preset.name)),
      el("option", { value: ownInstruction }, "In my own words…"),
    );
    this.preset.value = chosen;
    if (this.preset.selectedIndex < 0) this.preset.value = "";
    this.arrange();
  }

  value(): Settings {
    const preset = this.preset.value;
    const mode = this.think.checked ? "think" : "direct";
    return {
      preset,
      instruction: preset === ownInstruction ? this.own.value : "",
      mode,
      budget: positive(this.budget),
      temperature: amount(this.temperature),
      samples: this.draws() ? positive(this.samples) : null,
      explainTop: mode === "direct" ? positive(this.explainTop) : null,
      longDocs: this.longDocs.value === "cut" ? "cut" : "windows",
      topN: positive(this.topN),
    };
  }

  set(settings: Settings): void {
    this.preset.value = settings.preset;
    if (this.preset.selectedIndex < 0) this.preset.value = "";
    this.own.value = settings.instruction;
    this.direct.checked = settings.mode === "direct";
    this.think.checked = settings.mode === "think";
    this.budget.value = settings.budget?.toString() ?? "";
    this.temperature.value = settings.temperature?.toString() ?? "";
    this.samples.value = settings.samples?.toString() ?? "";
    this.explainTop.value = settings.explainTop?.toString() ?? "";
    this.longDocs.value = settings.longDocs;
    this.topN.value = settings.topN?.toString() ?? "";
    this.arrange();
  }

  private reasons(): boolean {
    return this.think.checked || positive(this.explainTop) !== null;
  }
  // Without a temperature all samples would be one.
  private draws(): boolean {
    return this.reasons() && (amount(this.temperature) ?? this.ownTemperature) > 0;
  }

  // What does not apply is hidden, what is over a limit of the server is at it.
  private arrange(): void {
    const preset = this.preset.value;
    this.own.hidden = preset !== ownInstruction;
    const text = this.presets.find((one) => one.name === preset)?.text ?? (preset ? "" : this.modelsOwn);
    this.presetText.textContent = text;
    this.presetText.hidden = !text;
    this.explainRow.hidden = this.think.checked;
    this.budgetRow.hidden = this.temperatureRow.hidden = !this.reasons();
    this.samplesRow.hidden = !this.draws();
    for (const input of [this.budget, this.samples])
      if (input.max && Number(input.value) > Number(input.max)) input.value = input.max;
  }
}

function positive(input: HTMLInputElement): number | null {
  const value = Number(input.value);
  return Number.isInteger(value) && value > 0 ? value : null;
}

function amount(input: HTMLInputElement): number | null {
  const value = input.value === "" ? NaN : Number(input.value);
  return Number.isFinite(value) && value >= 0 ? value : null;
}

function number(placeholder: string, more = {}): HTMLInputElement {
  const plain = { type: "number", id: freshId("number"), min: 1, step: 1, inputmode: "numeric", placeholder };
  return el("input", { ...plain, ...more });
}

// `unit`: "" leaves room for one, null does not.
function row(label: string, control: HTMLElement, unit: string | null): HTMLElement {
  return el(
    "div",
    { class: "row setting" },
    el("label", { for: control.id }, label, unit ? el("span", { class: "hidden" }, ` so many ${unit}`) : null),
    control,
    unit === null ? null : el("span", { class: "unit", "aria-hidden": "true" }, unit),
  );
}
