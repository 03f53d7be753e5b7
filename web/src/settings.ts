// What a run is asked for, and its form in the URL's fragment. Documents and keys are never part of it.
import { count } from "./words";

export interface Settings {
  preset: string; // name of an instruction of the server, "" for the model's own, "own" for `instruction`
  instruction: string;
  mode: "direct" | "think";
  budget: number | null; // tokens of reasoning; null: the model's own
  temperature: number | null; // of the reasoning; null: the server's own
  samples: number | null; // reasonings of a pair; null: the server's own
  explainTop: number | null; // in direct mode: reasoning for the first so many
  longDocs: "windows" | "cut";
  topN: number | null; // null: all
}

export interface PageState {
  query: string;
  a: Settings;
  b: Settings;
  compare: boolean;
  tab: "rank" | "live";
}

export const defaults: Settings = {
  preset: "",
  instruction: "",
  mode: "direct",
  budget: null,
  temperature: null,
  samples: null,
  explainTop: null,
  longDocs: "windows",
  topN: null,
};

export const ownInstruction = "own";

// What is sent as `instruction`; undefined: the model's own.
export function instructionOf(settings: Settings, presets: { name: string; text: string }[]): string | undefined {
  if (settings.preset === ownInstruction) return settings.instruction.trim() || undefined;
  return presets.find((preset) => preset.name === settings.preset)?.text;
}

const names: [keyof Settings, string][] = [
  ["preset", "preset"],
  ["instruction", "instruction"],
  ["mode", "mode"],
  ["budget", "think"],
  ["temperature", "temperature"],
  ["samples", "samples"],
  ["explainTop", "explain"],
  ["longDocs", "long"],
  ["topN", "top"],
];

export function toFragment(state: PageState): string {
  const words = new URLSearchParams();
  if (state.tab === "live") words.set("tab", "live");
  if (state.query) words.set("q", state.query);
  const write = (settings: Settings, prefix: string) => {
    for (const [key, name] of names)
      if (key === "mode" || settings[key] !== defaults[key]) words.set(prefix + name, String(settings[key]));
  };
  write(state.a, "");
  if (state.compare) {
    words.set("compare", "1");
    write(state.b, "b.");
  }
  return words.toString();
}

// What the fragment does not say is as by default; `mode` is the server's own.
export function fromFragment(fragment: string, mode: Settings["mode"] = "direct"): PageState {
  const words = new URLSearchParams(fragment.replace(/^#/, ""));
  const whole = (text: string | null) => {
    const value = Number(text);
    return Number.isInteger(value) && value >= 1 ? value : null;
  };
  const amount = (text: string | null) => {
    const value = Number(text || NaN);
    return Number.isFinite(value) && value >= 0 ? value : null;
  };
  const read = (base: Settings, prefix: string): Settings => {
    const word = (name: string) => words.get(prefix + name);
    const mode = word("mode");
    const long = word("long");
    return {
      preset: word("preset") ?? base.preset,
      instruction: word("instruction") ?? base.instruction,
      mode: mode === "direct" || mode === "think" ? mode : base.mode,
      longDocs: long === "windows" || long === "cut" ? long : base.longDocs,
      budget: whole(word("think")),
      temperature: amount(word("temperature")),
      samples: whole(word("samples")),
      explainTop: whole(word("explain")),
      topN: whole(word("top")),
    };
  };
  return {
    query: words.get("q") ?? "",
    a: read({ ...defaults, mode }, ""),
    b: read({ ...defaults, mode: mode === "think" ? "direct" : "think" }, "b."),
    compare: words.get("compare") === "1",
    tab: words.get("tab") === "live" ? "live" : "rank",
  };
}

// "thinks first, at most 64 tokens; whole documents": in words, for a heading.
export function inWords(settings: Settings): string {
  const words = [settings.mode === "think" ? "Thinks first" : "Direct"];
  if (settings.mode === "think" && settings.budget) words.push(`at most ${settings.budget} tokens`);
  if (settings.mode === "direct" && settings.explainTop) words.push(`explains the first ${settings.explainTop}`);
  if (settings.mode === "think" || settings.explainTop) {
    if (settings.samples) words.push(count(settings.samples, "time"));
    if (settings.temperature !== null) words.push(`temperature ${settings.temperature}`);
  }
  if (settings.longDocs === "cut") words.push("cuts long documents");
  if (settings.preset === ownInstruction) words.push("own instruction");
  else if (settings.preset) words.push(`instruction of ${settings.preset}`);
  return words.join(", ");
}
