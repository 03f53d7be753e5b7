import "./page.css";
import samples from "virtual:samples";
import { Failure } from "./failure";
import { Run } from "./run";
import { getJson, type Info } from "./server";
import { fromFragment, instructionOf, toFragment, type PageState } from "./settings";
import { DocumentsField } from "./view/documents_field";
import { byId, button, el, on } from "./view/dom";
import { LiveView } from "./view/live_view";
import { Outcome } from "./view/outcome";
import { SettingsForm } from "./view/settings_form";
import { Tabs, type TabName } from "./view/tabs";
import { count } from "./words";

const keyName = "erank-api-key";

const query = byId("query", HTMLTextAreaElement);
const keyField = byId("key", HTMLInputElement);
const startButton = byId("start", HTMLButtonElement);
const cancelButton = byId("cancel", HTMLButtonElement);
const compare = byId("compare", HTMLDetailsElement);
const served = byId("served", HTMLParagraphElement);

let info: Info = {};
let tab: TabName = "rank";
let numDocuments = 0;
let running: AbortController | null = null;
let saving: number | undefined;

const key = () => keyField.value.trim();
const settingsA = new SettingsForm("Settings", saveState);
const settingsB = new SettingsForm("Settings to compare with", saveState);
byId("settings-a", HTMLDivElement).append(settingsA.element);
byId("settings-b", HTMLDivElement).append(settingsB.element);
const field = new DocumentsField((number) => {
  numDocuments = number;
  showStart();
});
const outcome = new Outcome({ retry: () => void start(), toKey: openKey, hasKey: () => key() !== "" });
const live = new LiveView(byId("panel-live", HTMLDivElement), key);
const tabs = new Tabs((name) => {
  tab = name;
  live.set(name === "live");
  saveState();
});

function state(): PageState {
  return { query: query.value, a: settingsA.value(), b: settingsB.value(), compare: compare.open, tab };
}

function writeState(): void {
  window.clearTimeout(saving);
  const fragment = toFragment(state());
  history.replaceState(null, "", `#${fragment}`);
}

function saveState(): void {
  window.clearTimeout(saving);
  saving = window.setTimeout(writeState, 250);
}

function showState(next: PageState): void {
  query.value = next.query;
  settingsA.set(next.a);
  settingsB.set(next.b);
  compare.open = next.compare;
  tabs.show(next.tab);
  window.clearTimeout(saving); // nothing has changed
}

function openKey(): void {
  const box = keyField.closest("details");
  if (box) box.open = true;
  keyField.focus();
}

function showStart(): void {
  startButton.textContent = running ? "Ranking…" : numDocuments ? `Rank ${count(numDocuments, "document")}` : "Rank";
}

function showRunning(controller: AbortController | null): void {
  running = controller;
  cancelButton.hidden = controller === null;
  startButton.setAttribute("aria-disabled", String(controller !== null));
  showStart();
}

// What is missing is asked for where it is to be entered.
function askForMissing(): boolean {
  const texts = byId("documents", HTMLTextAreaElement);
  const missing = !query.value.trim() ? query : field.documents().length === 0 ? texts : null;
  for (const input of [query, texts]) input.setAttribute("aria-invalid", String(input === missing));
  missing?.focus();
  return missing !== null;
}

async function start(): Promise<void> {
  if (running || askForMissing()) return;
  const documents = field.documents();
  const chosen = compare.open ? [settingsA.value(), settingsB.value()] : [settingsA.value()];
  const presets = info.instructions ?? [];
  const runs = chosen.map((one) => new Run(query.value.trim(), documents, one, instructionOf(one, presets)));
  const controller = new AbortController();
  showRunning(controller);
  outcome.show(runs);
  const changed = () => outcome.changed();
  for (const run of runs) {
    const before = runs.find((one) => one.failure);
    if (controller.signal.aborted || before) run.cancelWaiting();
    else await run.start(key(), controller.signal, changed);
  }
  showRunning(null);
  changed();
}

function cancel(): void {
  if (!running) return;
  running.abort();
  startButton.focus();
}

async function readInfo(): Promise<void> {
  try {
    info = await getJson<Info>("info", key());
    served.classList.remove("trouble");
    served.textContent = [info.model_id, info.model_dtype].filter(Boolean).join(" · ");
    field.most = info.max_documents ?? null;
    for (const form of [settingsA, settingsB]) form.setServer(info);
    // What the fragment names, a preset for example, may be known only now.
    showState({ ...fromFragment(location.hash, info.default_mode), query: query.value, tab });
  } catch (error) {
    const failure = error instanceof Failure ? error : new Failure("broken", String(error));
    served.classList.add("trouble");
    served.textContent = failure.title();
  }
}

function rankSample(sample: (typeof samples)[number]): void {
  query.value = sample.query;
  field.set(sample.documents.map(({ _id, title, text }) => ({ id: _id, title: title ?? "", text })));
  byId("samples-menu", HTMLDetailsElement).open = false;
  saveState();
  cancel();
  void start();
}

function showSamples(): void {
  for (const list of document.querySelectorAll("ul.samples"))
    list.append(
      ...samples.map((sample) =>
        el(
          "li",
          {},
          button(sample.query, () => rankSample(sample)),
        ),
      ),
    );
}

on(byId("ask", HTMLFormElement), "submit", (event) => {
  event.preventDefault();
  void start();
});
on(cancelButton, "click", cancel);
on(byId("skip", HTMLAnchorElement), "click", (event) => {
  event.preventDefault(); // the fragment holds the settings
  byId("outcome", HTMLElement).focus();
});
on(document.body, "keydown", (event) => {
  if (event.key === "Escape") cancel();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    void start();
  }
});
on(query, "input", saveState);
on(compare, "toggle", saveState);
on(keyField, "input", () => {
  if (key()) sessionStorage.setItem(keyName, key());
  else sessionStorage.removeItem(keyName);
});
on(keyField, "change", () => {
  writeState();
  void readInfo();
});
window.addEventListener("hashchange", () => showState(fromFragment(location.hash)));

keyField.value = sessionStorage.getItem(keyName) ?? "";
showSamples();
showState(fromFragment(location.hash));
void readInfo();
