// What needs no browser: readers, the settings' fragment, events, marks, quantiles, files.
import { execFileSync } from "node:child_process";
import { expect, test } from "@playwright/test";
import { guessFormat, joinDocuments, parseDocuments, tableRows, wholeText } from "../src/documents";
import { toCurl, toJsonl, toTrec } from "../src/export";
import { failureOfBody, kindOf, messageOf, secondsOf } from "../src/failure";
import { quantileBetween, readHistogram } from "../src/metrics";
import { Run, rankAgreement, type Place } from "../src/run";
import { defaults, fromFragment, instructionOf, inWords, toFragment } from "../src/settings";
import { serverEvents } from "../src/sse";
import { duration, markedPieces, queryStems } from "../src/words";

const texts = (text: string) => parseDocuments(text).documents.map((document) => document.text);

test("documents are read in the form that they have", () => {
  expect(texts("one\n\n")).toEqual(["one"]);
  expect(texts("one\ntwo\n  \n")).toEqual(["one", "two"]);
  expect(texts("first line\nsecond line\n\nanother")).toEqual(["first line\nsecond line", "another"]);
  expect(texts('{"text": "a"}\r\n{"contents": "b"}\r\n')).toEqual(["a", "b"]);
  expect(texts('["a", {"text": "b"}]')).toEqual(["a", "b"]);
  expect(texts("id,text\n1,a\n2,b\n")).toEqual(["a", "b"]);
  expect(texts("_id\ttext\n1\ta, b\n")).toEqual(["a, b"]);
  expect(texts("[1] A note, not JSON\nand more")).toEqual(["[1] A note, not JSON", "and more"]);
  expect(guessFormat("x", "a.CSV")).toBe("csv");
  expect(texts("\uFEFFone")).toEqual(["one"]);
});

test("ids and titles are kept; an id that comes twice becomes the place", () => {
  const { documents } = parseDocuments(
    '{"_id":"a","title":"T","text":"x"}\n{"_id":"a","text":"y"}\n{"id":7,"text":"z"}',
  );
  const joined = joinDocuments([documents]);
  expect(joined.map((document) => document.id)).toEqual(["a", "2", "7"]);
  expect(joined.map(wholeText)).toEqual(["T x", "y", "z"]);
  const clash = joinDocuments([[{ id: "2", title: "", text: "p" }], [{ id: "", title: "", text: "q" }]]);
  expect(new Set(clash.map((document) => document.id)).size).toBe(2);
});

test("what cannot be read is named with its line", () => {
  expect(parseDocuments('{"text":"a"}\n{oops}\n{"title":"b"}\n4').problems).toEqual([
    "Line 2 is no JSON",
    'Line 3 has no text: expected a key "text"',
    "Line 4 is neither a text nor an object",
  ]);
  expect(parseDocuments("id,text\n1,a\n2,\n").problems).toEqual(["Row at line 3 has no text"]);
});

test("quotes of CSV hold commas, line breaks and quotes", () => {
  expect(tableRows('a,"b, ""c""\nd"\n"",e\n', ",")).toEqual([
    { line: 1, fields: ["a", 'b, "c"\nd'] },
    { line: 3, fields: ["", "e"] },
  ]);
  expect(parseDocuments("d1,some text\nd2,more", "csv").documents).toEqual([
    { id: "d1", title: "", text: "some text" },
    { id: "d2", title: "", text: "more" },
  ]);
});

async function eventsOf(...pieces: string[]): Promise<string[]> {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(encoder.encode(piece));
      controller.close();
    },
  });
  const events: string[] = [];
  for await (const event of serverEvents(body)) events.push(`${event.name}=${event.data}`);
  return events;
}

test("events are the same however the network cuts them", async () => {
  const stream = 'event: start\r\ndata: {"é": 1}\r\n\r\n: a comment\ndata: x\ndata:y\n\nevent: late\ndata: z';
  const expected = ['start={"é": 1}', "message=x\ny"];
  expect(await eventsOf(stream)).toEqual(expected);
  expect(await eventsOf(...stream)).toEqual(expected);
});

test("a fragment gives back the state that it was made of", () => {
  const state = {
    query: "a & b = #c?",
    a: {
      ...defaults,
      mode: "think" as const,
      budget: 48,
      temperature: 0,
      samples: 4,
      preset: "own",
      instruction: "x=y&z",
    },
    b: { ...defaults, explainTop: 3, temperature: 0.7, longDocs: "cut" as const, topN: 5 },
    compare: true,
    tab: "live" as const,
  };
  expect(fromFragment(`#${toFragment(state)}`)).toEqual(state);
  expect(fromFragment("", "think").a.mode).toBe("think");
  expect(fromFragment("#mode=direct", "think").a.mode).toBe("direct");
  expect(fromFragment("#think=-3&top=x&mode=odd&temperature=-1&samples=1.5").a).toEqual(defaults);
  expect(fromFragment("#temperature=").a).toEqual(defaults);
});

test("settings are told in words, those that count", () => {
  expect(inWords({ ...defaults, mode: "think", budget: 48, temperature: 0.7, samples: 4 })).toBe(
    "Thinks first, at most 48 tokens, 4 times, temperature 0.7",
  );
  expect(inWords({ ...defaults, temperature: 0.7 })).toBe("Direct");
  expect(inWords({ ...defaults, temperature: 0.7, explainTop: 3 })).toBe(
    "Direct, explains the first 3, temperature 0.7",
  );
});

test("the instruction is a preset's, the user's own or none", () => {
  const presets = [{ name: "P", text: "preset text" }];
  expect(instructionOf({ ...defaults, preset: "P" }, presets)).toBe("preset text");
  expect(instructionOf({ ...defaults, preset: "own", instruction: " mine " }, presets)).toBe("mine");
  expect(instructionOf({ ...defaults, preset: "own", instruction: " " }, presets)).toBeUndefined();
  expect(instructionOf(defaults, presets)).toBeUndefined();
});

test("the query's words are marked in their forms, others are not", () => {
  const stems = queryStems("How can newborns be protected?");
  const marked = (text: string) =>
    markedPieces(text, stems)
      .filter((piece) => piece.marked)
      .map((piece) => piece.text);
  expect(marked("A newborn is Protected; how? protecting newborns can")).toEqual([
    "newborn",
    "Protected",
    "protecting",
    "newborns",
  ]);
  const text = "Ein Newborn – « süß »";
  expect(
    markedPieces(text, stems)
      .map((piece) => piece.text)
      .join(""),
  ).toBe(text);
  expect(markedPieces("", stems)).toEqual([]);
});

test("quantiles are of what came between two readings", () => {
  const text = (a: number, b: number, c: number) =>
    `# TYPE t histogram\nt_bucket{route="/v1/rerank",le="1"} ${a}\nt_bucket{route="/v1/rerank",le="2"} ${b}\n` +
    `t_bucket{route="/v1/rerank",le="+Inf"} ${c}\nt_bucket{route="/live",le="1"} 900\nt_count 9\n`;
  const before = readHistogram(text(10, 10, 10), "t", "rerank");
  const after = readHistogram(text(12, 20, 20), "t", "rerank");
  expect(after.get(1)).toBe(12);
  expect(quantileBetween(before, after, 0.5)).toBeCloseTo(1 + (5 - 2) / 8, 12);
  expect(quantileBetween(before, after, 0.1)).toBeCloseTo(0.5, 12);
  expect(quantileBetween(before, readHistogram(text(10, 10, 30), "t", "rerank"), 0.5)).toBe(2);
  expect(quantileBetween(before, before, 0.5)).toBeNull();
  expect(quantileBetween(new Map(), new Map(), 0.5)).toBeNull();
});

test("failures are told apart and keep the server's words", () => {
  expect([401, 403, 429, 503, 500, 504, 413, 422, 404].map(kindOf)).toEqual([
    "key",
    "key",
    "busy",
    "unavailable",
    "broken",
    "broken",
    "refused",
    "refused",
    "refused",
  ]);
  expect(messageOf({ error: { message: "m" } })).toBe("m");
  expect(messageOf({ error: "e", error_type: "Validation" })).toBe("e");
  expect(messageOf({ detail: "d" })).toBe("d");
  expect(messageOf(null)).toBe("");
  expect(failureOfBody({ error: { message: "late", code: 504 } })).toMatchObject({ status: 504, message: "late" });
  expect(secondsOf("7")).toBe(7);
  expect(secondsOf(new Date(10_500).toUTCString(), 5000)).toBe(5);
  expect(secondsOf(null)).toBeNull();
  expect(secondsOf("soon")).toBeNull();
});

test("agreement is Kendall's tau of what both rank", () => {
  const order = (...indices: number[]): Place[] => indices.map((index, i) => ({ index, rank: i + 1, state: "scored" }));
  expect(rankAgreement(order(0, 1, 2), order(0, 1, 2))).toBe(1);
  expect(rankAgreement(order(0, 1, 2), order(2, 1, 0))).toBe(-1);
  expect(rankAgreement(order(0, 1, 2, 3), order(0, 1, 3))).toBeCloseTo(1, 12);
  expect(rankAgreement(order(0, 1, 2), order(1, 0, 2))).toBeCloseTo(1 / 3, 12);
  expect(rankAgreement(order(0), order(0))).toBeNull();
});

function finishedRun(): Run {
  const documents = [
    { id: "a b", title: "", text: 'it\'s $HOME `id` "q"' },
    { id: "c", title: "T", text: "JSON\nsecond" },
  ];
  const run = new Run("what's $PATH?", documents, defaults, undefined);
  run.items = [
    { index: 0, relevance_score: 0.25, score: 2.5000000000000004, arrivedS: 1 },
    { index: 1, relevance_score: 0.5, score: 5, arrivedS: 1 },
  ];
  run.status = "done";
  return run;
}

test("a TREC run has six fields a line and every digit", () => {
  expect(toTrec(finishedRun())).toBe("1 Q0 c 1 5 erank\n1 Q0 a_b 2 2.5000000000000004 erank\n");
});

test("a line has the probability of relevance where it is known", () => {
  const run = finishedRun();
  const [, known] = run.items;
  if (known) known.relevance = 0.25;
  const lines = toJsonl(run)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines[0]).toMatchObject({ docid: "c", relevance: 0.25 });
  expect(lines[1]).not.toHaveProperty("relevance");
});

test("a shell reads the curl command as it was meant", () => {
  const command = toCurl(finishedRun(), "http://127.0.0.1:1/x/?y#z", true);
  const shown = execFileSync("bash", ["-c", `curl() { printf '%s\\n' "$@"; cat; }\nERANK_API_KEY=k\n${command}`], {
    encoding: "utf8",
  });
  const [address, , type, , key, , , ...body] = shown.split("\n");
  expect(address).toBe("http://127.0.0.1:1/x/v1/rerank");
  expect(type).toBe("Content-Type: application/json");
  expect(key).toBe("Authorization: Bearer k");
  expect(JSON.parse(body.join("\n"))).toMatchObject({
    query: "what's $PATH?",
    documents: ['it\'s $HOME `id` "q"', "T JSON\nsecond"],
  });
});

test("times are short", () => {
  expect([0.004, 0.5, 1.23, 59, 600, 5400, 9e5].map(duration)).toEqual([
    "0.01 s",
    "0.50 s",
    "1.2 s",
    "59.0 s",
    "10 min",
    "1.5 h",
    "10 days",
  ]);
});
