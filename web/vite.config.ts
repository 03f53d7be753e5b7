import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

// The samples that the page offers: queries of the demo's collection with what BM25 finds for each, best first.
const samples = [
  ["vac-q2", "vac-08 vac-07 aid-09 vac-06 vac-09 law-01 vac-04 vac-01 bird-05 aid-07 aid-06 vac-02"],
  ["bread-q1", "bread-04 bread-01 bread-06 bread-07 bread-05 bread-02 bread-03 tax-04 ice-01 batt-08"],
  ["sort-q1", "sort-04 sort-01 sort-02 sort-05 law-08 law-10 sleep-05 bird-07 ice-01 sort-09"],
] as const;

function demoRecords(name: string): Map<string, Record<string, string>> {
  const text = readFileSync(new URL(`../examples/demo/${name}`, import.meta.url), "utf8");
  const records = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, string>);
  return new Map(records.map((record) => [record["_id"] ?? "", record]));
}

function samplesModule(): Plugin {
  return {
    name: "samples",
    resolveId: (id) => (id === "virtual:samples" ? id : undefined),
    load(id) {
      if (id !== "virtual:samples") return undefined;
      const queries = demoRecords("queries.jsonl");
      const corpus = demoRecords("corpus.jsonl");
      const found = samples.map(([query, documents]) => ({
        query: queries.get(query)?.["text"],
        documents: documents.split(" ").map((name) => corpus.get(name)),
      }));
      return `export default ${JSON.stringify(found)};`;
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [samplesModule()],
  // `npm run dev` beside a running `erank serve`; ERANK_URL names another.
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/info", "/live", "/metrics", "/version"].map((path) => [
        path,
        process.env["ERANK_URL"] ?? "http://127.0.0.1:8080",
      ]),
    ),
  },
  build: {
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    rolldownOptions: { output: { entryFileNames: "app.js", assetFileNames: "app[extname]" } },
  },
});
