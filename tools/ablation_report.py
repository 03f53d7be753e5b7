"""What tools/ablations measured, as a table in Markdown and a plot of the differences."""
import html
import random

DRAWS = 10000


def mean(values):
    return sum(values) / len(values)


def averaged(values):
    """{qid: mean over seeds} of [{qid: value} of a seed]."""
    return {qid: mean([v[qid] for v in values]) for qid in values[0]}


def weights_of(qids, sets):
    """Of a query in the mean over sets, in which every set counts alike however many queries it has."""
    present = [s for s in sets if any(q.startswith(s + "-") for q in qids)]
    size = {s: sum(q.startswith(s + "-") for q in qids) for s in present}
    return {q: 1 / len(present) / size[s] for s in present for q in qids if q.startswith(s + "-")}


def bootstrap(terms, draw):
    """95 % interval of the sum of a study's weighted differences, [[of a set's queries]], queries drawn within sets."""
    sums = sorted(sum(mean(draw.choices(s, k=len(s))) * len(s) for s in terms) for _ in range(DRAWS))
    return sums[DRAWS // 40], sums[DRAWS - DRAWS // 40 - 1]


def randomisation(terms, draw):
    """Two-sided p of the sum, signs of the queries drawn."""
    flat = [t for s in terms for t in s if t]
    least = abs(sum(flat)) - 1e-12
    extreme = sum(abs(sum(t if draw.random() < 0.5 else -t for t in flat)) >= least for _ in range(DRAWS))
    return (extreme + 1) / (DRAWS + 1)


def holm(ps):
    order, adjusted, highest = sorted(range(len(ps)), key=ps.__getitem__), [0] * len(ps), 0
    for rank, i in enumerate(order):
        highest = max(highest, min(1, ps[i] * (len(ps) - rank)))
        adjusted[i] = highest
    return adjusted


def compare(rows, sets):
    """Of each [(arm, mode, [values of a seed], [choosing queries' of a seed])]: means of the sets, their mean, and but
    for the first difference, interval and corrected p. nDCG times 100."""
    if not rows:
        return []
    base = averaged(rows[0][2])
    weight = weights_of(base, sets)
    out = []
    for arm, mode, values, dev in rows:
        own = averaged(values)
        if own.keys() != base.keys():
            raise SystemExit(f"ablations: {arm} was measured on other queries than {rows[0][0]}; delete its run")
        of_set = {s: 100 * mean([own[q] for q in own if q.startswith(s + "-")]) for s in sets
                  if any(q.startswith(s + "-") for q in own)}
        terms = [[100 * weight[q] * (own[q] - base[q]) for q in own if q.startswith(s + "-")] for s in of_set]
        out.append({"arm": arm, "mode": mode, "seeds": len(values), "dev": 100 * mean(dev), "sets": of_set,
                    "mean": mean(list(of_set.values())), "difference": sum(map(sum, terms)),
                    "interval": bootstrap(terms, random.Random(1)), "p": randomisation(terms, random.Random(2))})
    for row, p in zip(out[1:], holm([row["p"] for row in out[1:]])):
        row["p"] = p
    return out


def table(study, rows, sets):
    head = ["arm", "answers", "seeds", "dev", *sets, "mean", f"difference to {rows[0]['arm']}", "p"]
    body = []
    for n, row in enumerate(rows):
        low, high = row["interval"]
        body.append([row["arm"], row["mode"], str(row["seeds"]), f"{row['dev']:.2f}",
                     *(f"{row['sets'][s]:.2f}" for s in sets if s in row["sets"]), f"{row['mean']:.2f}",
                     f"{row['difference']:+.2f} ({low:+.2f} to {high:+.2f})" if n else "",
                     f"{row['p']:.3f}" if n else ""])
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |" for line in [head, *body]]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return f"### {study}\n\n" + "\n".join(lines) + "\n"


def plot(study, rows):
    """A study's differences with their intervals, as an SVG."""
    first, rows = rows[0]["arm"], rows[1:]
    low = min(0, *(r["interval"][0] for r in rows))
    high = max(0, *(r["interval"][1] for r in rows))
    span = (high - low) or 1
    width, left, top, line = 640, 150, 44, 30
    height = top + line * len(rows) + 52

    def x(value):
        return left + (value - low) / span * (width - left - 30)

    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if span / s <= 8)
    ticks = [k * step for k in range(int(low // step), int(high // step) + 2) if low - 1e-9 <= k * step <= high + 1e-9]
    bottom = top + line * len(rows)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
             f'aria-label="{html.escape(study)}: differences of nDCG@10" font-family="sans-serif" font-size="13">',
             "<style>text{fill:#222}.g{stroke:#ccc}.z{stroke:#666}.m{fill:#1f5fa8;stroke:#1f5fa8}"
             "@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.z{stroke:#999}"
             ".m{fill:#7db3f0;stroke:#7db3f0}}</style>",
             f'<text x="{left}" y="22" font-size="15">{html.escape(study)}: difference to {html.escape(first)}</text>']
    for tick in ticks:
        parts.append(f'<line class="{"z" if abs(tick) < 1e-9 else "g"}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" '
                     f'y2="{bottom}"/><text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{f"{tick:+g}" if abs(tick) > 1e-9 else "0"}</text>')
    for n, row in enumerate(rows):
        y = top + line * (n + 0.5)
        name = row["arm"] + (" (think)" if row["mode"] == "think" else "")
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{html.escape(name)}</text>'
                     f'<line class="m" stroke-width="2" x1="{x(row["interval"][0]):.1f}" x2="{x(row["interval"][1]):.1f}" '
                     f'y1="{y:.1f}" y2="{y:.1f}"/><circle class="m" cx="{x(row["difference"]):.1f}" cy="{y:.1f}" r="4"/>')
    parts.append(f'<text x="{(left + width - 30) / 2:.0f}" y="{height - 10}" text-anchor="middle">nDCG@10 points, mean over '
                 "the report sets, 95 % interval</text></svg>\n")
    return "\n".join(parts)


def write_report(out, study, measured, sets):
    rows = compare(measured, sets)
    if len(rows) < 2:
        print(f"{study}: {len(rows)} measured, nothing to compare yet")
        return
    text = table(study, rows, [s for s in sets if s in rows[0]["sets"]])
    print(text)
    (out / f"{study}.md").write_text(text, encoding="utf-8")
    (out / f"{study}.svg").write_text(plot(study, rows), encoding="utf-8")
