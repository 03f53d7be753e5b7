// The results' side of the page: one run, or two beside each other and how far they agree.
import { Run, rankAgreement } from "../run";
import { byId, el, wantsStillness } from "./dom";
import { RunView, type RunActions } from "./run_view";

const announceEveryMs = 4000;
const drawEveryMs = 80;

export class Outcome {
  private readonly runs = byId("runs", HTMLDivElement);
  private readonly empty = byId("empty", HTMLDivElement);
  private readonly agreement = byId("agreement", HTMLDivElement);
  private readonly announcer = byId("announce", HTMLParagraphElement);
  private views: RunView[] = [];
  private announced = 0;
  private drawing: number | undefined;
  private drawn = 0;

  constructor(private readonly actions: RunActions) {}

  show(runs: Run[]): void {
    this.views = runs.map((run, i) => new RunView(run, runs.length > 1 ? "AB".charAt(i) : "", this.actions));
    const [a, b] = runs;
    if (a && b) {
      this.views[0]?.compareWith(b);
      this.views[1]?.compareWith(a);
    }
    this.empty.hidden = true;
    this.runs.classList.toggle("two", runs.length > 1);
    this.runs.replaceChildren(...this.views.map((view) => view.element));
    this.draw();
    const outcome = byId("outcome", HTMLElement);
    if (outcome.getBoundingClientRect().top > innerHeight * 0.6)
      outcome.scrollIntoView({ behavior: wantsStillness() ? "auto" : "smooth", block: "start" });
  }

  // Many events become one drawing.
  changed(): void {
    if (this.drawing !== undefined) return;
    const wait = Math.max(0, this.drawn + drawEveryMs - performance.now());
    this.drawing = window.setTimeout(() => this.draw(), wait);
  }

  private draw(): void {
    window.clearTimeout(this.drawing);
    this.drawing = undefined;
    this.drawn = performance.now();
    for (const view of this.views) view.update();
    this.showAgreement();
    this.announce();
  }

  private showAgreement(): void {
    const [a, b] = this.views.map((view) => view.run);
    const both = a && b && a.numScored() > 1 && b.numScored() > 1;
    this.agreement.hidden = !both;
    if (!both) return;
    const tau = rankAgreement(a.places(), b.places());
    const first = (run: Run, most: number) =>
      new Set(
        run
          .places()
          .filter((p) => p.rank && p.rank <= most)
          .map((p) => p.index),
      );
    const most = Math.min(5, a.documents.length);
    const inA = first(a, most);
    const common = [...first(b, most)].filter((index) => inA.has(index)).length;
    this.agreement.replaceChildren(
      el("span", {}, el("strong", {}, `${common} of the first ${most}`), " are the same"),
      el("span", {}, "Kendall’s tau ", el("strong", {}, tau === null ? "–" : tau.toFixed(2))),
    );
  }

  private announce(): void {
    const running = this.views.find(({ run }) => run.status === "running" || run.status === "waiting");
    const now = performance.now();
    if (running && now - this.announced < announceEveryMs) return;
    this.announced = now;
    const words = this.views.map(({ run, name }) => {
      const who = name ? `${name}: ` : "";
      if (run.status === "running") return `${who}${run.progress.done} of ${run.progress.total} done`;
      const best = run.places()[0];
      const title = best?.rank === 1 ? run.documents[best.index] : undefined;
      if (run.status === "done")
        return `${who}Ranking complete. First: ${title?.title || title?.text.slice(0, 80) || "none"}`;
      return run.status === "cancelled" ? `${who}Cancelled` : "";
    });
    const text = words.filter(Boolean).join(". ");
    if (this.announcer.textContent !== text) this.announcer.textContent = text;
  }
}
