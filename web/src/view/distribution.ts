// The probability of each answer as bars: the answers along the x axis, their probability upwards.
import { freshId, svg } from "./dom";

const barWidth = 15;
const gap = 3;
const left = 40;
const top = 6;
const height = 52;
const bottom = 15;

export const percent = (p: number): string => (p > 0 && p < 0.005 ? "<1 %" : `${Math.round(p * 100)} %`);

export function distributionInWords(answers: number[], score: number | undefined): string {
  const best = answers.indexOf(Math.max(...answers));
  const all = answers.map((p, answer) => `${answer}: ${percent(p)}`).join(", ");
  const expected = score === undefined ? "" : ` Score ${score.toFixed(2)}.`;
  return `Probability of each answer. Most likely ${best}, ${percent(answers[best] ?? 0)}.${expected} ${all}.`;
}

// The y axis ends at the next of these above the most likely answer.
function axisEnd(most: number): number {
  return [0.25, 0.5, 1].find((end) => most <= end) ?? 1;
}

export function distribution(answers: number[], score: number | undefined): SVGSVGElement {
  const end = axisEnd(Math.max(...answers));
  const right = left + answers.length * (barWidth + gap);
  const width = right + 2;
  const base = top + height;
  const id = freshId("distribution");
  const y = (p: number) => base - (p / end) * height;
  const chart = svg(
    "svg",
    { class: "distribution", viewBox: `0 0 ${width} ${base + bottom}`, role: "img", "aria-labelledby": id },
    svg("title", { id }, distributionInWords(answers, score)),
  );
  for (const p of [end / 2, end])
    chart.append(
      svg("line", { class: "grid", x1: left, x2: right, y1: y(p), y2: y(p) }),
      svg("text", { class: "tick", x: left - 5, y: y(p) + 3.2, "text-anchor": "end" }, percent(p)),
    );
  chart.append(svg("text", { class: "tick", x: left - 5, y: base + 11, "text-anchor": "end" }, "answer"));
  answers.forEach((p, answer) => {
    const x = left + answer * (barWidth + gap) + gap / 2;
    const tall = Math.max(p > 0 ? 0.75 : 0, base - y(p));
    chart.append(
      svg("rect", { class: "bar", x, y: base - tall, width: barWidth, height: tall, rx: 1.5 }),
      svg("text", { class: "tick", x: x + barWidth / 2, y: base + 11, "text-anchor": "middle" }, String(answer)),
    );
  });
  chart.append(svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
  if (score !== undefined && score <= answers.length - 1) {
    const x = left + (score + 0.5) * (barWidth + gap);
    chart.append(svg("line", { class: "mean", x1: x, x2: x, y1: top - 3, y2: base }));
  }
  return chart;
}
