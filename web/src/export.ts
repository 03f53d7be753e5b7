// A ranking as files, and the request as a command.
import type { Run } from "./run";
import { rerankPath } from "./server";

export const queryId = "1"; // the page has one query, and it has no id

// Lines as `erank rerank --format jsonl` writes them.
export function toJsonl(run: Run): string {
  return run
    .places()
    .filter((place) => place.rank !== null || place.state === "failed")
    .map(({ index, rank }, i) => {
      const item = run.items[index];
      const failed = item?.error != null;
      return `${JSON.stringify({
        qid: queryId,
        docid: run.documents[index]?.id,
        rank: rank ?? i + 1,
        score: failed ? null : (item?.score ?? item?.relevance_score),
        integer: failed ? null : (item?.integer ?? null),
        probability: failed ? null : (item?.probability ?? null),
        distribution: failed ? null : (item?.distribution ?? null),
        ...(item?.relevance !== undefined && { relevance: item.relevance }),
        first_stage_score: item?.first_stage_score ?? null,
        reasoning: item?.reasoning ?? "",
        finish: failed ? null : (item?.finish ?? null),
        flags: item?.flags ?? [],
        ...(item?.window && { window: item.window }),
        prompt_tokens: item?.prompt_tokens ?? 0,
        new_tokens: item?.new_tokens ?? 0,
        ...(failed && { error: item?.error }),
      })}\n`;
    })
    .join("");
}

// "qid Q0 docid rank score tag". A run's fields are separated by white space, so an id has none.
export function toTrec(run: Run): string {
  return run
    .places()
    .filter((place) => place.rank !== null)
    .map(({ index, rank }) => {
      const item = run.items[index];
      const name = (run.documents[index]?.id ?? "").replace(/\s+/g, "_");
      return `${queryId} Q0 ${name} ${rank} ${item?.score ?? item?.relevance_score} erank\n`;
    })
    .join("");
}

// For a POSIX shell. The key is a variable's, never written out.
export function toCurl(run: Run, pageAddress: string, withKey: boolean): string {
  const body = JSON.stringify(run.body(), null, 1);
  const address = new URL(rerankPath, pageAddress.replace(/[?#].*$/, "")).href;
  return [
    `curl '${address.replaceAll("'", "%27")}' \\`,
    "  -H 'Content-Type: application/json' \\",
    ...(withKey ? ['  -H "Authorization: Bearer $ERANK_API_KEY" \\'] : []),
    "  --data-binary @- <<'JSON'",
    body,
    "JSON",
    "",
  ].join("\n");
}

export function saveAs(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// False where the browser has no clipboard for this page (plain http from another machine).
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
