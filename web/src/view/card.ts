// A document in the list of results: its place, its text, what the model said of it.
import type { Document } from "../documents";
import type { Place, Run, Scored } from "../run";
import { count, duration, flagInWords, markedPieces } from "../words";
import { distribution, percent } from "./distribution";
import { button, el, freshId } from "./dom";

const longText = 230; // characters; what is longer is folded to three lines

function withMarks(text: string, stems: Set<string>): (Node | string)[] {
  return markedPieces(text, stems).map((piece) => (piece.marked ? el("mark", {}, piece.text) : piece.text));
}

// "up 3" as an arrow for the eye and in words for the ear.
function movement(was: number, rank: number): HTMLElement {
  const by = was - rank;
  const way = by > 0 ? "up" : by < 0 ? "down" : "same";
  const sign = by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "=";
  const words = by === 0 ? `as before, ${was}` : `${way} ${Math.abs(by)}, was ${was}`;
  return el(
    "span",
    { class: `move ${way}`, title: words },
    el("span", { "aria-hidden": "true" }, sign),
    el("span", { class: "hidden" }, words),
  );
}

export class Card {
  readonly element: HTMLLIElement;
  private readonly place = el("div", { class: "place" });
  private readonly verdict = el("div", { class: "verdict" });
  private readonly facts = el("p", { class: "facts" });
  private readonly reasoning = el("details", { class: "reasoning" });
  private readonly reasoningTitle = el("summary");
  private readonly reasoningText = el("p");
  private shown: Scored | undefined;
  private shownPlace = "";

  constructor(
    readonly document: Document,
    readonly index: number,
    private readonly stems: Set<string>,
  ) {
    const text = el("p", { class: "text", id: freshId("text") }, ...withMarks(document.text, stems));
    const main = el("div", { class: "body" });
    main.append(
      el(
        "p",
        { class: "name" },
        document.title ? el("strong", {}, ...withMarks(document.title, stems)) : null,
        el("span", { class: "docid" }, document.id),
      ),
      text,
    );
    if (document.text.length > longText) {
      text.classList.add("folded");
      const unfold = button(
        "Whole text",
        () => {
          const folded = text.classList.toggle("folded");
          unfold.textContent = folded ? "Whole text" : "Less text";
          unfold.setAttribute("aria-expanded", String(!folded));
        },
        { class: "link", "aria-expanded": "false", "aria-controls": text.id },
      );
      main.append(unfold);
    }
    this.reasoning.append(this.reasoningTitle, this.reasoningText);
    this.reasoning.hidden = true;
    main.append(this.reasoning, this.facts);
    this.element = el("li", { class: "card", "data-index": index }, this.place, main, this.verdict);
  }

  update(run: Run, place: Place, otherRank: string | null): void {
    const item = run.items[place.index];
    const key = `${place.state} ${place.rank} ${otherRank}`;
    if (key !== this.shownPlace) {
      this.shownPlace = key;
      this.element.dataset["state"] = place.state;
      this.place.replaceChildren(
        ...(place.rank === null
          ? [el("span", { class: "rank none" }, place.state === "pending" ? String(this.index + 1) : "–")]
          : [
              el("span", { class: "rank" }, el("span", { class: "hidden" }, "Rank "), String(place.rank)),
              movement(this.index + 1, place.rank),
            ]),
        ...(otherRank ? [el("span", { class: "other" }, otherRank)] : []),
      );
    }
    if (item !== this.shown || !item) {
      this.shown = item;
      this.showVerdict(run, item, place);
      this.showReasoning(item);
    }
    this.element.classList.toggle("provisional", Boolean(item?.provisional));
  }

  private showVerdict(run: Run, item: Scored | undefined, place: Place): void {
    this.verdict.replaceChildren();
    this.facts.replaceChildren();
    if (!item) {
      const words = place.state === "pending" ? "waiting" : "not scored";
      this.verdict.append(el("span", { class: "waiting" }, words));
      return;
    }
    if (item.error) {
      this.verdict.append(el("span", { class: "waiting" }, "no score"));
      this.facts.append(el("span", { class: "flag" }, item.error.message));
      return;
    }
    const answers = item.distribution ?? [];
    const most = answers.length > 1 ? answers.length - 1 : 10;
    const score = item.score ?? item.relevance_score * most;
    this.verdict.append(
      el(
        "p",
        { class: "score" },
        el("span", { class: "hidden" }, "Score "),
        el("strong", {}, score.toFixed(2)),
        el("span", { class: "of" }, ` of ${most}`),
        item.relevance === undefined
          ? null
          : el(
              "span",
              { class: "relevance", title: "Probability of relevance, by the server's calibration" },
              `${percent(item.relevance)} relevant`,
            ),
      ),
    );
    if (answers.length > 1) this.verdict.append(distribution(answers, score));
    const facts: string[] = [];
    if (item.provisional) facts.push("provisional");
    if (item.window && item.window.of > 1) facts.push(`best part: ${item.window.number} of ${item.window.of}`);
    const tokens = (item.prompt_tokens ?? 0) + (item.new_tokens ?? 0);
    if (tokens) facts.push(count(tokens, "token"));
    if (run.status !== "waiting") facts.push(`after ${duration(item.arrivedS)}`);
    const flags = [
      ...(item.flags ?? []),
      ...(item.finish === "forced" || item.finish === "clipped" ? [item.finish] : []),
    ];
    this.facts.append(
      ...[...new Set(flags)].map((flag) => el("span", { class: "flag" }, flagInWords(flag))),
      ...facts.map((fact) => el("span", {}, fact)),
    );
  }

  private showReasoning(item: Scored | undefined): void {
    const text = item?.reasoning?.trim() ?? "";
    this.reasoning.hidden = !text;
    if (!text) return;
    const words = item?.integer === undefined || item.integer === null ? "" : ` · answer ${item.integer}`;
    this.reasoningTitle.replaceChildren("Reasoning", el("span", { class: "of" }, words));
    this.reasoningText.replaceChildren(...withMarks(text, this.stems));
  }
}
