// The live tab: the server's queue, speed and latency over the last minutes, asked for once a second while it is shown.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { Failure } from "../failure";
import { quantileBetween, readHistogram, type Histogram } from "../metrics";
import { getJson, getText, type LiveFigures } from "../server";
import { duration } from "../words";
import { el, freshId } from "./dom";

const windowS = 300;
const chartHeight = 240;
const latencyOverS = 60;
const latencyName = "erank_http_request_seconds";

type Samples = (number | null)[];

interface Curve {
  label: string;
  colour: string; // a CSS variable
  values: Samples;
}

class Chart {
  readonly element: HTMLElement;
  private readonly place = el("div", { class: "plot" });
  private readonly caption: HTMLElement;
  private plot: uPlot | null = null;

  constructor(
    title: string,
    private readonly unit: string,
    private readonly curves: Curve[],
  ) {
    const id = freshId("chart");
    this.caption = el("p", { class: "hint", id: `${id}-words` });
    this.place.setAttribute("role", "img");
    this.place.setAttribute("aria-label", `${title}, ${unit}, over the last ${windowS / 60} minutes`);
    this.place.setAttribute("aria-describedby", `${id}-words`);
    this.element = el(
      "section",
      { class: "chart", "aria-labelledby": id },
      el(
        "header",
        {},
        el("h3", { id }, title),
        el(
          "p",
          { class: "keys-of-curves" },
          ...curves.map((curve) =>
            el("span", { class: `curve ${curve.colour.slice(2)}` }, curves.length > 1 ? curve.label : unit),
          ),
        ),
      ),
      this.place,
      this.caption,
    );
    new ResizeObserver(() => this.fit()).observe(this.place);
  }

  add(...values: Samples): void {
    this.curves.forEach((curve, i) => {
      curve.values.push(values[i] ?? null);
      if (curve.values.length > windowS) curve.values.shift();
    });
    const last = this.curves.map((curve, i) => `${curve.label} ${this.inUnit(values[i] ?? null)}`);
    const known = this.curves[0]?.values.filter((value) => value !== null) ?? [];
    const most = known.length ? Math.max(...known) : null;
    this.caption.textContent = `Now: ${last.join(", ")}. Most so far: ${this.inUnit(most)}.`;
  }

  draw(times: number[]): void {
    const data: uPlot.AlignedData = [times, ...this.curves.map((curve) => curve.values)];
    if (this.plot) this.plot.setData(data);
    else if (this.place.clientWidth > 0) this.make(data);
    const now = times[times.length - 1] ?? 0;
    this.plot?.setScale("x", { min: now - windowS, max: now });
  }

  // Colours are read when a plot is made.
  forget(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  private inUnit(value: number | null): string {
    if (value === null) return "none";
    return this.unit === "seconds" ? duration(value) : `${Math.round(value).toLocaleString("en")} ${this.unit}`;
  }

  private make(data: uPlot.AlignedData): void {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis: uPlot.Axis = {
      stroke: colour("--muted"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
      font,
      labelFont: font,
    };
    this.plot = new uPlot(
      {
        width: this.place.clientWidth,
        height: chartHeight,
        pxAlign: 1,
        cursor: { show: false },
        legend: { show: false },
        scales: {
          x: { time: false },
          y: { range: (_plot, _low, high) => [0, Math.max(1e-3, (high ?? 0) * 1.15 || 1)] },
        },
        axes: [
          {
            ...axis,
            label: "time ago",
            labelSize: 18,
            size: 24,
            values: (plot, ticks) => {
              const now = plot.scales["x"]?.max ?? 0;
              return ticks.map((tick) => (now - tick < 1 ? "now" : `${Math.round((now - tick) / 60)} min`));
            },
            splits: (plot) => {
              const now = plot.scales["x"]?.max ?? 0;
              return [5, 4, 3, 2, 1, 0].map((minutes) => now - minutes * 60);
            },
          },
          { ...axis, label: this.unit, labelSize: 18, size: 44 },
        ],
        series: [
          {},
          ...this.curves.map((curve) => ({
            label: curve.label,
            stroke: colour(curve.colour),
            width: 2,
            points: { show: false },
            spanGaps: false,
          })),
        ],
      },
      data,
      this.place,
    );
  }

  private fit(): void {
    if (this.place.clientWidth > 0) this.plot?.setSize({ width: this.place.clientWidth, height: chartHeight });
  }
}

export class LiveView {
  private readonly status = el("p", { class: "live-status", role: "status" });
  private readonly figures = el("dl", { class: "figures" });
  private readonly queue = new Chart("Queue", "pairs", [{ label: "waiting", colour: "--accent", values: [] }]);
  private readonly speed = new Chart("Speed", "tokens/s", [{ label: "computed", colour: "--accent", values: [] }]);
  private readonly latency = new Chart("Latency of requests", "seconds", [
    { label: "p95", colour: "--down", values: [] },
    { label: "median", colour: "--accent", values: [] },
  ]);
  private readonly charts = [this.queue, this.speed, this.latency];
  private readonly times: number[] = [];
  private readonly histograms: { time: number; histogram: Histogram }[] = [];
  private timer: number | undefined;
  private reading = false;
  private shown = false;

  constructor(
    root: HTMLElement,
    private readonly key: () => string,
  ) {
    root.append(
      el("header", { class: "live-head" }, el("h2", {}, "The server now"), this.status),
      this.figures,
      el("div", { class: "charts" }, ...this.charts.map((chart) => chart.element)),
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    document.addEventListener("visibilitychange", () => this.set(this.shown));
  }

  // Asks the server only while the tab is shown and the page is in front.
  set(shown: boolean): void {
    this.shown = shown;
    window.clearInterval(this.timer);
    if (!shown || document.hidden) return;
    void this.read();
    this.timer = window.setInterval(() => void this.read(), 1000);
  }

  private redraw(): void {
    for (const chart of this.charts) {
      chart.forget();
      chart.draw(this.times);
    }
  }

  private async read(): Promise<void> {
    if (this.reading) return;
    this.reading = true;
    try {
      const live = await getJson<LiveFigures>("live", this.key());
      await this.readLatency();
      this.showFigures(live);
      this.add(live.queued_pairs ?? null, live.tokens_per_s ?? null);
      this.say("Asked every second", false);
    } catch (error) {
      this.add(null, null);
      this.say(error instanceof Failure ? `${error.title()}. Asking again every second` : String(error), true);
    } finally {
      this.reading = false;
    }
  }

  private say(words: string, trouble: boolean): void {
    if (this.status.textContent !== words) this.status.textContent = words;
    this.status.classList.toggle("trouble", trouble);
  }

  // /metrics may be closed to this page; then there is no latency to show.
  private async readLatency(): Promise<void> {
    const text = await getText("metrics", this.key()).catch(() => "");
    const time = performance.now() / 1000;
    this.histograms.push({ time, histogram: readHistogram(text, latencyName, "/rerank") });
    while (this.histograms.length > 1 && time - (this.histograms[0]?.time ?? 0) > latencyOverS) this.histograms.shift();
  }

  private add(queued: number | null, speed: number | null): void {
    this.times.push(performance.now() / 1000);
    if (this.times.length > windowS) this.times.shift();
    const before = this.histograms[0]?.histogram ?? new Map();
    const after = this.histograms[this.histograms.length - 1]?.histogram ?? new Map();
    this.queue.add(queued);
    this.speed.add(speed);
    this.latency.add(quantileBetween(before, after, 0.95), quantileBetween(before, after, 0.5));
    for (const chart of this.charts) chart.draw(this.times);
  }

  private showFigures(live: LiveFigures): void {
    const share = (value: number) => `${Math.round(value * 100)} %`;
    const rows: [string, string | undefined][] = [
      ["Pairs in the queue", live.queued_pairs?.toLocaleString("en")],
      ["Requests running", live.requests_running?.toLocaleString("en")],
      [
        "Tokens a second",
        live.tokens_per_s === undefined ? undefined : Math.round(live.tokens_per_s).toLocaleString("en"),
      ],
      ["Tokens shared, not computed", live.prefix_reuse === undefined ? undefined : share(live.prefix_reuse)],
      ["Answers from the cache", live.cache_hits?.toLocaleString("en")],
      ["Running for", live.uptime_s === undefined ? undefined : duration(live.uptime_s)],
    ];
    this.figures.replaceChildren(
      ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value ?? "–"))),
    );
  }
}
