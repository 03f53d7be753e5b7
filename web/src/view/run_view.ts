// A run as a column: its progress, what went wrong, its list, its files.
import type { Document } from "../documents";
import { saveAs, copyText, toCurl, toJsonl, toTrec } from "../export";
import type { Place, Run } from "../run";
import { inWords } from "../settings";
import { count, duration, queryStems } from "../words";
import { Card } from "./card";
import { button, el, freshId } from "./dom";
import { failurePanel } from "./failure_panel";
import { arrange } from "./moving_list";

const step = 50; // results that are shown at a time

export interface RunActions {
  retry: () => void;
  toKey: () => void;
  hasKey: () => boolean;
}

export class RunView {
  readonly element: HTMLElement;
  private readonly title = el("h2", { id: freshId("run") });
  private readonly bar = el("progress", { max: 1, value: 0 });
  private readonly line = el("p", { class: "line" });
  private readonly tools = el("div", { class: "tools", role: "group", "aria-label": "Copy and save" });
  private readonly trouble = el("div");
  private readonly list = el("ol", { class: "cards" });
  private readonly more: HTMLButtonElement;
  private readonly cards = new Map<number, Card>(); // of the documents that were shown so far
  private readonly stems: Set<string>;
  private numShown = step;
  private showCut = false;
  private shownFailure: unknown = null;
  private other: Run | null = null;

  constructor(
    readonly run: Run,
    readonly name: string, // "A", "B" or ""
    private readonly actions: RunActions,
  ) {
    this.stems = queryStems(run.query);
    this.bar.setAttribute("aria-labelledby", this.title.id);
    this.title.append(name ? el("span", { class: "badge" }, name) : "", name ? inWords(run.settings) : "Ranking");
    this.more = button("", () => this.showMore(), { class: "more" });
    this.tools.append(
      this.copyButton(),
      button("Save JSONL", () => saveAs(this.fileName("jsonl"), "application/jsonl", toJsonl(run))),
      button("Save TREC run", () => saveAs(this.fileName("run"), "text/plain", toTrec(run))),
    );
    this.element = el(
      "section",
      { class: "run", "aria-labelledby": this.title.id },
      el("header", { class: "run-head" }, this.title, this.line, this.bar, this.tools),
      this.trouble,
      this.list,
      this.more,
    );
  }

  compareWith(other: Run): void {
    this.other = other;
  }

  update(): void {
    const { run } = this;
    const busy = run.status === "waiting" || run.status === "running";
    const { done, total } = run.progress;
    const arrived = run.items.filter((item) => item && !item.provisional).length;
    this.element.dataset["status"] = run.status;
    this.bar.hidden = !busy;
    if (run.status === "running") {
      this.bar.max = Math.max(1, total);
      this.bar.value = Math.max(done, Math.min(arrived, total));
    }
    this.line.textContent = this.words(arrived);
    this.tools.hidden = run.numScored() === 0 || busy;
    if (run.failure !== this.shownFailure) {
      this.shownFailure = run.failure;
      this.trouble.replaceChildren(
        ...(run.failure ? [failurePanel(run.failure, this.actions.retry, this.actions.toKey)] : []),
      );
    }
    this.showList();
  }

  private words(arrived: number): string {
    const { run } = this;
    const { progress } = run;
    const scored = count(run.numScored(), "document");
    switch (run.status) {
      case "waiting":
        return "Waits for the first run, so that times compare";
      case "running": {
        const words = [`${Math.max(progress.done, Math.min(arrived, progress.total))} of ${progress.total}`];
        if (progress.tokens) words.push(count(progress.tokens, "token"));
        if (progress.tokens_per_s) words.push(`${Math.round(progress.tokens_per_s).toLocaleString("en")} tokens/s`);
        if (progress.eta_s) words.push(`about ${duration(progress.eta_s)} left`);
        return words.join(" · ");
      }
      case "done": {
        const words = [`${scored} in ${duration(run.seconds)}`];
        if (run.tokens()) words.push(count(run.tokens(), "token"));
        if (run.model) words.push(run.model);
        return words.join(" · ");
      }
      case "cancelled":
        if (!run.seconds) return "Not begun";
        return `Cancelled after ${duration(run.seconds)}: ${scored} scored`;
      case "failed":
        return arrived ? `Failed after ${duration(run.seconds)}: ${scored} scored` : "";
    }
  }

  private showList(): void {
    const { run } = this;
    let places = run.places();
    const ended = run.status === "failed" || run.status === "cancelled";
    if (ended && run.numScored() === 0) places = [];
    const cut = places.filter((place) => place.state === "cut").length;
    if (!this.showCut) places = places.filter((place) => place.state !== "cut");
    const shown = places.slice(0, this.numShown);
    const others = this.otherRanks();
    const cards = shown.map((place) => this.card(place.index));
    shown.forEach((place, i) => cards[i]?.update(run, place, others(place)));
    arrange(
      this.list,
      cards.map((card) => card.element),
    );
    const hidden = places.length - shown.length;
    this.more.hidden = hidden === 0 && (cut === 0 || this.showCut);
    this.more.textContent = hidden
      ? `Show ${Math.min(step, hidden)} more of ${hidden}`
      : `Show the ${cut} below the cut`;
  }

  private card(index: number): Card {
    let card = this.cards.get(index);
    if (!card) {
      card = new Card(this.run.documents[index] as Document, index, this.stems);
      this.cards.set(index, card);
    }
    return card;
  }

  // "A 3": the rank of the same document in the other run.
  private otherRanks(): (place: Place) => string | null {
    if (!this.other) return () => null;
    const ranks = new Map(this.other.places().map((place) => [place.index, place.rank]));
    const name = this.name === "A" ? "B" : "A";
    return (place) => {
      const rank = ranks.get(place.index);
      return place.rank !== null && rank ? `${name} ${rank}` : null;
    };
  }

  private showMore(): void {
    if (this.run.places().length > this.numShown) this.numShown += step;
    else this.showCut = true;
    this.update();
  }

  private copyButton(): HTMLButtonElement {
    const made = button("Copy as curl", () => {
      void copyText(toCurl(this.run, location.href, this.actions.hasKey())).then((copied) => {
        made.textContent = copied ? "Copied" : "Copying is not allowed here";
        setTimeout(() => (made.textContent = "Copy as curl"), 2000);
      });
    });
    return made;
  }

  private fileName(ending: string): string {
    return `erank${this.name ? `-${this.name.toLowerCase()}` : ""}.${ending}`;
  }
}
