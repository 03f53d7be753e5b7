// One ranking on its way: events in, what the page shows out.
import type { Document } from "./documents";
import { wholeText } from "./documents";
import { Failure } from "./failure";
import { rerank, type Progress, type RerankBody, type ResultItem } from "./server";
import type { Settings } from "./settings";

export interface Scored extends ResultItem {
  arrivedS: number; // seconds after the start
}

export type RunStatus = "waiting" | "running" | "done" | "cancelled" | "failed";

// Where a document is in the list.
export interface Place {
  index: number;
  rank: number | null; // from 1; null while it waits, has failed or is below the cut
  state: "pending" | "scored" | "cut" | "failed" | "unscored";
}

export class Run {
  status: RunStatus = "waiting";
  items: (Scored | undefined)[];
  progress: Progress;
  model = "";
  seconds = 0;
  failure: Failure | null = null;
  private ranked: number[] | null = null; // the final order, as the server gave it
  private began = 0;

  constructor(
    readonly query: string,
    readonly documents: Document[],
    readonly settings: Settings,
    readonly instruction: string | undefined,
  ) {
    this.items = documents.map(() => undefined);
    this.progress = { done: 0, total: documents.length };
  }

  body(): RerankBody {
    const { mode, budget, temperature, samples, explainTop, longDocs, topN } = this.settings;
    const reasons = mode === "think" || explainTop !== null;
    return {
      query: this.query,
      documents: this.documents.map(wholeText),
      ...(this.instruction !== undefined && { instruction: this.instruction }),
      mode,
      ...(reasons && budget !== null && { max_think_tokens: budget }),
      ...(reasons && temperature !== null && { temperature }),
      ...(reasons && samples !== null && { samples }),
      ...(mode === "direct" && explainTop !== null && { explain_top: explainTop }),
      long_docs: longDocs,
      ...(topN !== null && { top_n: topN }),
      return_reasoning: reasons,
      return_distribution: true,
      return_documents: false,
    };
  }

  // Ends when the ranking is complete, has failed or was cancelled; never throws. Calls `changed` after every event.
  async start(key: string, signal: AbortSignal, changed: () => void): Promise<void> {
    this.status = "running";
    this.began = performance.now();
    changed();
    try {
      for await (const event of rerank(this.body(), key, signal)) {
        this.seconds = (performance.now() - this.began) / 1000;
        if (event.kind === "start") {
          this.model = event.start.model ?? "";
          this.progress.total = event.start.total ?? this.progress.total;
        } else if (event.kind === "progress") this.progress = event.progress;
        else if (event.kind === "result") this.take(event.item);
        else {
          for (const item of event.ranking.results) this.take(item);
          this.ranked = event.ranking.results.map((item) => item.index);
          this.model = event.ranking.model ?? this.model;
          this.progress.done = this.progress.total;
          this.status = "done";
        }
        changed();
      }
    } catch (error) {
      this.seconds = (performance.now() - this.began) / 1000;
      if (signal.aborted) this.status = "cancelled";
      else {
        this.status = "failed";
        this.failure = error instanceof Failure ? error : new Failure("broken", String(error));
      }
      changed();
    }
  }

  // In place of start().
  cancelWaiting(): void {
    this.status = "cancelled";
  }

  tokens(): number {
    return this.items.reduce((sum, item) => sum + (item?.prompt_tokens ?? 0) + (item?.new_tokens ?? 0), 0);
  }

  numScored(): number {
    return this.items.filter((item) => item && !item.error).length;
  }

  // All documents as they are to be listed: scored ones best first, then what is cut off, failed or still waits.
  places(): Place[] {
    const scored = this.items.flatMap((item) => (item && !item.error ? [item] : []));
    scored.sort((x, y) => y.relevance_score - x.relevance_score || x.index - y.index);
    const failed = this.items.flatMap((item) => (item?.error ? [item.index] : []));
    const order = this.ranked ?? scored.map((item) => item.index);
    const ranked = order.filter((index) => !this.items[index]?.error);
    const inside = new Set(ranked);
    const pending = this.status === "waiting" || this.status === "running" ? "pending" : "unscored";
    return [
      ...ranked.map((index, i): Place => ({ index, rank: i + 1, state: "scored" })),
      ...scored
        .filter((item) => !inside.has(item.index))
        .map(({ index }): Place => ({ index, rank: null, state: "cut" })),
      ...failed.map((index): Place => ({ index, rank: null, state: "failed" })),
      ...this.items.flatMap((item, index): Place[] => (item ? [] : [{ index, rank: null, state: pending }])),
    ];
  }

  private take(item: ResultItem): void {
    if (item.index < 0 || item.index >= this.items.length) return;
    const before = this.items[item.index];
    // The final ranking says again what was known; the time is that of the first word.
    const arrivedS = before && !before.provisional ? before.arrivedS : this.seconds;
    this.items[item.index] = { ...item, arrivedS };
  }
}

// Kendall's tau of the documents that both rank: pairs in the same order less those in opposite order, as a share of
// all pairs; null for fewer than two documents.
export function rankAgreement(a: Place[], b: Place[]): number | null {
  const rankIn = (places: Place[]) =>
    new Map(places.flatMap((place) => (place.rank === null ? [] : [[place.index, place.rank] as const])));
  const first = rankIn(a);
  const second = rankIn(b);
  const common = [...first.keys()].filter((index) => second.has(index));
  let sum = 0;
  let pairs = 0;
  for (let i = 0; i < common.length; ++i)
    for (let j = i + 1; j < common.length; ++j) {
      const [x, y] = [common[i] as number, common[j] as number];
      const sameWay = (first.get(x)! - first.get(y)!) * (second.get(x)! - second.get(y)!) > 0;
      sum += sameWay ? 1 : -1;
      ++pairs;
    }
  return pairs ? sum / pairs : null;
}
