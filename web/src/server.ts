// The server's routes as this page uses them. Paths are relative, so that the page works under a proxy's prefix.
import { Failure, failureOf, failureOfBody } from "./failure";
import { serverEvents } from "./sse";

export interface Info {
  model_id?: string;
  model_dtype?: string;
  max_documents?: number;
  max_think_tokens?: number;
  max_samples?: number;
  default_mode?: "direct" | "think";
  default_max_think_tokens?: number;
  default_temperature?: number;
  default_samples?: number;
  default_instruction?: string;
  instructions?: { name: string; text: string }[];
}

export interface ResultItem {
  index: number;
  relevance_score: number;
  score?: number;
  integer?: number | null;
  probability?: number | null;
  relevance?: number; // probability of relevance, where the server has a calibration for such scores
  distribution?: number[] | null;
  reasoning?: string | null;
  flags?: string[] | null;
  finish?: string | null;
  prompt_tokens?: number;
  new_tokens?: number;
  first_stage_score?: number | null;
  window?: { number: number; of: number } | null;
  provisional?: boolean;
  error?: { kind: string; message: string } | null;
}

export interface Start {
  id?: string;
  model?: string;
  mode?: string;
  total?: number;
}

export interface Progress {
  done: number;
  total: number;
  tokens?: number;
  tokens_per_s?: number;
  eta_s?: number | null;
}

export interface Ranking extends Start {
  results: ResultItem[];
}

export interface RerankBody {
  query: string;
  documents: string[];
  instruction?: string;
  mode: "direct" | "think";
  max_think_tokens?: number;
  temperature?: number;
  samples?: number;
  explain_top?: number;
  long_docs: "windows" | "cut";
  top_n?: number;
  return_reasoning: boolean;
  return_distribution: boolean;
  return_documents: boolean;
}

export type RerankEvent =
  | { kind: "start"; start: Start }
  | { kind: "result"; item: ResultItem }
  | { kind: "progress"; progress: Progress }
  | { kind: "ranking"; ranking: Ranking };

export interface LiveFigures {
  queued_pairs?: number;
  requests_running?: number;
  tokens_per_s?: number;
  prefix_reuse?: number;
  cache_hits?: number;
  uptime_s?: number;
}

export const rerankPath = "v1/rerank";

function headers(key: string): Record<string, string> {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function request(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { ...init, cache: "no-store" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Failure("unreachable", "No answer came.");
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

export async function getJson<T>(path: string, key: string, signal?: AbortSignal): Promise<T> {
  const response = await request(path, { headers: headers(key), ...(signal && { signal }) });
  return (await response.json()) as T;
}

export async function getText(path: string, key: string): Promise<string> {
  return (await request(path, { headers: headers(key) })).text();
}

// The events of one call of /v1/rerank, the last a ranking. Throws Failure, or AbortError when `signal` says so.
export async function* rerank(body: RerankBody, key: string, signal: AbortSignal): AsyncGenerator<RerankEvent> {
  const response = await request(rerankPath, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream", ...headers(key) },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  if (!response.body) throw new Failure("cut", "The answer has no body.");
  let complete = false;
  try {
    for await (const event of serverEvents(response.body)) {
      const data: unknown = JSON.parse(event.data);
      if (event.name === "start") yield { kind: "start", start: data as Start };
      else if (event.name === "result") yield { kind: "result", item: data as ResultItem };
      else if (event.name === "progress") yield { kind: "progress", progress: data as Progress };
      else if (event.name === "ranking") {
        complete = true;
        yield { kind: "ranking", ranking: data as Ranking };
      } else if (event.name === "error") throw failureOfBody(data);
    }
  } catch (error) {
    if (signal.aborted) throw new DOMException("cancelled", "AbortError");
    if (error instanceof Failure) throw error;
    throw new Failure("cut", error instanceof SyntaxError ? "An event could not be read." : "The network failed.");
  }
  if (!complete) throw new Failure("cut", "The stream ended without a ranking.");
}
