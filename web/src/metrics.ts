// Quantiles of a latency from Prometheus histograms, of what was counted between two readings.

// Upper bounds in seconds and how many requests were at most so long, summed over all label sets.
export type Histogram = Map<number, number>;

// The buckets of `name` in a text exposition; with `label` of those lines alone that hold it.
export function readHistogram(text: string, name: string, label = ""): Histogram {
  const histogram: Histogram = new Map();
  for (const line of text.split("\n")) {
    if (!line.startsWith(`${name}_bucket{`) || !line.includes(label)) continue;
    const bound = /[{,]le="([^"]+)"/.exec(line)?.[1];
    const value = Number(
      line
        .slice(line.lastIndexOf("}") + 1)
        .trim()
        .split(" ")[0],
    );
    if (bound === undefined || !Number.isFinite(value)) continue;
    const le = bound === "+Inf" ? Infinity : Number(bound);
    histogram.set(le, (histogram.get(le) ?? 0) + value);
  }
  return histogram;
}

// The q-quantile of what came between the readings, by linear interpolation in its bucket as Prometheus'
// histogram_quantile does; null when nothing came. In the last bucket: its lower bound.
export function quantileBetween(before: Histogram, after: Histogram, q: number): number | null {
  const bounds = [...after.keys()].sort((x, y) => x - y);
  const came = (bound: number) => (after.get(bound) ?? 0) - (before.get(bound) ?? 0);
  const all = bounds.length ? came(bounds[bounds.length - 1] as number) : 0;
  if (all <= 0) return null;
  const wanted = q * all;
  let low = 0;
  let below = 0;
  for (const bound of bounds) {
    const here = came(bound);
    if (here >= wanted) {
      if (bound === Infinity) return low;
      return here === below ? bound : low + ((bound - low) * (wanted - below)) / (here - below);
    }
    low = bound;
    below = here;
  }
  return low;
}
