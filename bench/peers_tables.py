"""The tables of bench/peers.py, {shape: {program: {setting: {figure: [values]}}}}, as text and as Markdown, and what it
shares with bench/grpo_speed.py."""
import contextlib
import datetime
import os
import statistics
import subprocess
import sys

from peers_programs import ROOT, Unavailable

# figure: part, heading, more is better, digits
FIGURES = {
    "prefill": ("prefill", "prefill, tokens/s", True, 0),
    "decode_1": ("decode", "decode 1, tokens/s", True, 1),
    "decode_8": ("decode", "decode 8, tokens/s", True, 0),
    "decode_64": ("decode", "decode 64, tokens/s", True, 0),
    "direct": ("direct", "direct, pairs/s", True, 2),
    "direct_whole": ("direct", "direct with load, pairs/s", True, 2),
    "memory": ("direct", "peak memory, MB", False, 0),
    "think": ("think", "think, pairs/s", True, 2),
    "think_bound": ("think", "think, bound, pairs/s", True, 2),
    "start": ("start", "start, s", False, 2),
}
RATES = [figure for figure in FIGURES if FIGURES[figure][2] and figure != "direct_whole"]


def best_of(settings, figure):
    """(median, setting, values) of the best setting of a contestant, or None."""
    better = max if FIGURES[figure][2] else min
    found = [(statistics.median(values[figure]), setting, values[figure])
             for setting, values in settings.items() if values.get(figure)]
    if figure in ("memory", "direct_whole"):  # of the setting that was fastest, not of one that saves memory
        fastest = best_of(settings, "direct")
        found = [row for row in found if row[1] == fastest[1]] or found if fastest else found
    return better(found) if found else None


def summary(results, shape):
    """Rows of a table: a heading, a row a contestant, and erank's shares of the best peer."""
    contestants = results[shape]
    figures = [f for f in FIGURES if f != "start" and any(best_of(s, f) for s in contestants.values())]
    rows = [["program", *(FIGURES[f][1] for f in figures)]]
    cells = {name: {f: best_of(settings, f) for f in figures} for name, settings in contestants.items()}
    for name, found in cells.items():
        rows.append([name, *(f"{found[f][0]:.{FIGURES[f][3]}f}" if found[f] else "" for f in figures)])
    peers = [found for name, found in cells.items() if not name.startswith("erank")]
    for name, found in cells.items():
        if not name.startswith("erank"):
            continue
        row = [f"{name} : best peer"]
        for f in figures:
            better = max if FIGURES[f][2] else min
            of_peers = [peer[f][0] for peer in peers if peer[f]]
            # A bound is what a peer could reach at most: erank's measured rate is held against it.
            mine = found["think"] if f == "think_bound" and "think" in found else found[f]
            row.append(f"{mine[0] / better(of_peers):.2f}" if mine and of_peers else "")
        rows.append(row)
    return rows


def aligned(rows, num_names=1):
    """Columns side by side, the first `num_names` flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ([cell.ljust(w) if i < num_names else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
             for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(rows):
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def details(results, shape):
    rows = [["figure", "program", "setting", "median", "least", "most", "times"]]
    for figure, (_, heading, _, digits) in FIGURES.items():
        for name, settings in results[shape].items():
            for setting, values in settings.items():
                if v := values.get(figure):
                    rows.append([heading, name, setting, f"{statistics.median(v):.{digits}f}", f"{min(v):.{digits}f}",
                                 f"{max(v):.{digits}f}", str(len(v))])
    return aligned(rows, 3)


def agreement(bench):
    """How often a peer's first answer token is erank's answer's first digit: that both read the same thing."""
    lines = []
    for (shape, name), answers in bench.answers.items():
        own = next((a for (s, n), a in bench.answers.items() if s == shape and n.startswith("erank")), None)
        if own is None or name.startswith("erank") or shape != "smollm2-135m":
            continue
        same = sum(str(mine)[0] == theirs.strip()[:1] for mine, theirs in zip(own, answers))
        lines.append(f"{name}: the first digit of erank's answer in {same} of {len(answers)} pairs")
    return lines


def machine_facts():
    words = ["PATH" if "/" in word else word for word in sys.argv[1:]]
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), os.uname().machine)
    memory = int(open("/proc/meminfo", encoding="utf-8").readline().split()[1])
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()
    return {"processor": cpu, "memory_gb": round(memory / 1e6), "system": " ".join(os.uname()[0:3:2]),
            "date": datetime.date.today().isoformat(), "commit": commit or "unknown",
            "command": " ".join(["bench/" + os.path.basename(sys.argv[0]), *words])}


def facts(bench, seconds):
    versions = {}
    with contextlib.suppress(Unavailable):
        folder = bench.llama("llama-bench").parent.parent
        versions["llama.cpp"] = f"ggml {(folder / 'ggml_version').read_text().strip()}"
    for name in ("transformers", "openvino"):
        with contextlib.suppress(Unavailable):
            versions[name] = bench.python(name).parent.parent.name.split("-", 1)[1]
    gemm = {name: round(max(filter(None, values))) for name, values in bench.gemm.items() if any(values)}
    return {**machine_facts(), "threads": bench.threads, "load_before": bench.load_before,
            "load_after": round(os.getloadavg()[0], 2), "minutes": round(seconds / 60, 1), "versions": versions,
            "repeats": bench.args.repeats, "pairs": bench.num_pairs, "pairs_of_a_query": bench.per_query,
            "quick": bench.args.quick,
            "gemm_gflops": gemm}


def facts_line(f):
    versions = "; ".join(f"{name} {version}" for name, version in f["versions"].items())
    gemm = ", ".join(f"{name} {value}" for name, value in f["gemm_gflops"].items())
    gemm = f"; GEMM peak of `erank bench`, GFLOP/s: {gemm}" if gemm else ""
    return (f"`{f['command']}`: {f['processor']}, {f['threads']} threads, {f['memory_gb']} GB; {f['date']}, commit {f['commit']}, load "
            f"before the run {f['load_before']}; --repeats {f['repeats']}; {versions}{gemm}")


def update_docs(path, text, mark="<!-- peers table -->"):
    """Writes `text` between the marks of `path`; None only sees whether they are there."""
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    if whole.count(mark) != 2:
        sys.exit(f"peers: {path} has {whole.count(mark)} lines '{mark}', expected 2")
    if text is None:
        return
    before, _, after = whole.split(mark)
    path.write_text(f"{before}{mark}\n{text}\n{mark}{after}", encoding="utf-8")
