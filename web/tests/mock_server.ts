// A server that speaks erank's contract without a model: what the page is tested against. Scores come from the words
// that query and document share; `behaviour` says how it misbehaves.
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const types: Record<string, string> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
};
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'";

export interface Behaviour {
  delayMs: number; // before each result
  holdAfter: number | null; // results after which the stream waits until this is changed
  key: string; // that a request must bring; "": none
  refuse: { status: number; message: string; headers?: Record<string, string> } | null;
  cutAfter: number | null; // results after which the connection is cut
  errorAfter: number | null; // results after which the stream ends with an error event
  failIndex: number | null; // document that cannot be scored
  calibrated: boolean; // results have their probability of relevance
}

export interface Asked {
  body: Record<string, unknown>;
  headers: IncomingMessage["headers"];
  left: boolean; // the client went away before the ranking
}

interface Item {
  index: number;
  relevance_score: number;
  [key: string]: unknown;
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const words = (text: string) => new Set(text.toLowerCase().match(/[a-z]{4,}/g) ?? []);

// Eleven probabilities around `mean`: a discretised bell.
function bell(mean: number): number[] {
  const weights = Array.from({ length: 11 }, (_, answer) => Math.exp(-((answer - mean) ** 2) / 4.5));
  const sum = weights.reduce((x, y) => x + y, 0);
  return weights.map((weight) => weight / sum);
}

export class MockServer {
  behaviour: Behaviour = {
    delayMs: 15,
    holdAfter: null,
    key: "",
    refuse: null,
    cutAfter: null,
    errorAfter: null,
    failIndex: null,
    calibrated: false,
  };
  readonly asked: Asked[] = [];
  private polls = 0;
  private readonly server: Server;

  private constructor() {
    this.server = createServer((request, response) => {
      this.answer(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }

  static async start(port = 0): Promise<MockServer> {
    const mock = new MockServer();
    await new Promise<void>((resolve) => mock.server.listen(port, "127.0.0.1", resolve));
    return mock;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? "/").replace(/\?.*/, "");
    const name = path === "/" ? "index.html" : path.slice(1);
    const ending = name.split(".").pop() ?? "";
    if (request.method === "GET" && ending in types) {
      const body = readFileSync(new URL(`../dist/${name}`, import.meta.url));
      response.writeHead(200, { "Content-Type": types[ending], "Content-Security-Policy": policy }).end(body);
      return;
    }
    if (path === "/metrics") return this.metrics(response);
    if (this.behaviour.key && request.headers.authorization !== `Bearer ${this.behaviour.key}`)
      return refuse(response, 401, "an API key is needed: Authorization: Bearer KEY");
    if (path === "/info") return json(response, 200, info);
    if (path === "/live") return json(response, 200, this.live());
    if (path === "/v1/rerank" && request.method === "POST") return this.rerank(request, response);
    return refuse(response, 404, `there is no ${path}`);
  }

  private live(): object {
    const t = this.polls++;
    return {
      queued_pairs: Math.max(0, Math.round(60 + 50 * Math.sin(t / 9) + 12 * Math.sin(t))),
      requests_running: 3,
      tokens_per_s: 2100 + 300 * Math.sin(t / 5) + 90 * Math.sin(t * 2),
      prefix_reuse: 0.62,
      cache_hits: 40 + t,
      uptime_s: 5400 + t,
    };
  }

  private metrics(response: ServerResponse): void {
    const bounds = [0.1, 0.25, 0.5, 1, 2.5, 5];
    const share = [0.05, 0.3, 0.62, 0.85, 0.97, 1];
    const all = this.polls * 40;
    const label = 'route="/v1/rerank"';
    const drift = 1 - 0.1 * Math.sin(this.polls / 11) ** 2;
    const lines = bounds.map(
      (bound, i) =>
        `erank_http_request_seconds_bucket{${label},le="${bound}"} ${Math.round(all * (share[i] ?? 1) * drift)}`,
    );
    lines.push(`erank_http_request_seconds_bucket{${label},le="+Inf"} ${all}`);
    response.writeHead(200, { "Content-Type": "text/plain" }).end(`${lines.join("\n")}\n`);
  }

  private async rerank(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const body = JSON.parse(Buffer.concat(pieces).toString()) as Record<string, unknown>;
    const asked: Asked = { body, headers: request.headers, left: false };
    this.asked.push(asked);
    const { refuse: refusal } = this.behaviour;
    if (refusal) return refuse(response, refusal.status, refusal.message, refusal.headers);
    response.on("close", () => (asked.left = !response.writableFinished));
    await this.stream(body, asked, response);
  }

  private async stream(body: Record<string, unknown>, asked: Asked, response: ServerResponse): Promise<void> {
    const documents = body["documents"] as string[];
    const thinks = body["mode"] === "think";
    const explained = thinks ? 0 : Number(body["explain_top"] ?? 0);
    const total = documents.length + explained;
    let done = 0;
    let tokens = 0;
    const began = Date.now();
    const event = (name: string, data: object) => {
      if (!response.destroyed) response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
    };
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    event("start", { id: "mock-1", model: "mock-135m", mode: body["mode"], total });

    const items: Item[] = [];
    const send = async (item: Item, provisional: boolean): Promise<boolean> => {
      await wait(this.behaviour.delayMs);
      while (this.behaviour.holdAfter !== null && done >= this.behaviour.holdAfter && !asked.left) await wait(10);
      if (asked.left) return false;
      if (this.behaviour.cutAfter === done) {
        await wait(200); // what was sent is to arrive before the cut
        response.destroy();
        return false;
      }
      if (this.behaviour.errorAfter === done) {
        event("error", {
          error: { message: "the pass failed: no memory", type: "server_error", param: null, code: 500 },
        });
        response.end();
        return false;
      }
      event("result", provisional ? { ...item, provisional } : item);
      ++done;
      tokens += Number(item["prompt_tokens"] ?? 0) + Number(item["new_tokens"] ?? 0);
      const seconds = (Date.now() - began) / 1000;
      event("progress", {
        done,
        total,
        tokens,
        tokens_per_s: tokens / seconds,
        eta_s: (seconds / done) * (total - done),
      });
      return true;
    };

    // Not in order of input, as a batch of a real engine is not.
    const order = documents.map((_, index) => index).sort((x, y) => ((x * 7) % 11) - ((y * 7) % 11));
    for (const index of order) {
      const item = this.item(body, index, thinks);
      items.push(item);
      if (!(await send(item, false))) return;
    }
    items.sort(byScore);
    for (const item of items.slice(0, explained)) {
      const better = this.item(body, item.index, true);
      items[items.indexOf(item)] = better;
      if (!(await send(better, false))) return;
    }
    items.sort(byScore);
    const top = Number(body["top_n"] ?? items.length);
    event("ranking", { id: "mock-1", object: "rerank", model: "mock-135m", results: items.slice(0, top) });
    response.end();
  }

  private item(body: Record<string, unknown>, index: number, thinks: boolean): Item {
    const text = (body["documents"] as string[])[index] ?? "";
    if (this.behaviour.failIndex === index)
      return {
        index,
        relevance_score: 0,
        flags: [],
        error: { kind: "too_long", message: "query 1, document 3: the prompt has 9,000 tokens, the context 8,192" },
      };
    const asked = words(String(body["query"]));
    const has = [...words(text)].filter((word) => asked.has(word));
    const mean = Math.min(9.4, 0.8 + 8 * Math.sqrt(has.length / Math.max(1, asked.size)) + (thinks ? 0.4 : 0));
    const distribution = bell(mean);
    const score = distribution.reduce((sum, p, answer) => sum + p * answer, 0);
    const integer = distribution.indexOf(Math.max(...distribution));
    const prompt = 40 + Math.round(text.length / 4);
    return {
      index,
      relevance_score: score / 10,
      score,
      integer,
      probability: distribution[integer],
      ...(this.behaviour.calibrated && { relevance: (score / 10) ** 2 }),
      flags: text.length > 380 ? ["document_truncated"] : [],
      finish: thinks && has.length === 0 ? "forced" : "answered",
      prompt_tokens: prompt,
      new_tokens: thinks ? 30 + has.length : 0,
      distribution,
      ...(thinks && {
        reasoning: `Asked: ${[...asked].join(", ")}. It has ${has.join(", ") || "none of them"}.`,
      }),
    };
  }
}

function byScore(x: Item, y: Item): number {
  return (
    Number(Boolean(x["error"])) - Number(Boolean(y["error"])) ||
    y.relevance_score - x.relevance_score ||
    x.index - y.index
  );
}

function json(response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}): void {
  response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(body));
}

function refuse(response: ServerResponse, status: number, message: string, headers: Record<string, string> = {}): void {
  json(
    response,
    status,
    { error: { message, type: "error", param: null, code: status }, message, detail: message },
    headers,
  );
}

const info = {
  model_id: "mock-135m",
  model_dtype: "int8",
  default_mode: "direct",
  default_max_think_tokens: 64,
  default_temperature: 0,
  default_samples: 1,
  max_think_tokens: 32768,
  max_samples: 64,
  default_instruction: "Given a query, retrieval relevant passage.",
  model_type: { reranker: {} },
  max_documents: 1000,
  max_input_length: 8192,
  modes: ["direct", "think"],
  scale: "0-10",
  instructions: [
    { name: "BEIR and TREC DL", text: "Given a query, retrieval relevant passage." },
    {
      name: "FollowIR",
      text:
        "Retrieval the relevant passage for the given query. Be careful about the extra requirements about relevance " +
        "in the query.",
    },
    {
      name: "BRIGHT",
      text: "A document is relevant if it contains information that helps answer or address the query.",
    },
  ],
};
