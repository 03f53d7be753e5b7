// What went wrong with a request, in words for its reader.

export type FailureKind = "key" | "busy" | "unavailable" | "refused" | "unreachable" | "cut" | "broken";

export class Failure extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string, // the server's own words, or what was seen
    readonly status: number | null = null,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }

  title(): string {
    switch (this.kind) {
      case "key":
        return "The server asks for an API key";
      case "busy":
        return "The server has more work than it can take";
      case "unavailable":
        return "The server is not ready";
      case "refused":
        return "The server refused this request";
      case "unreachable":
        return "The server cannot be reached";
      case "cut":
        return "The connection ended too early";
      case "broken":
        return "The server failed";
    }
  }

  advice(): string {
    switch (this.kind) {
      case "key":
        return "Enter a key below the settings and rank again.";
      case "busy":
        return "It will take new requests when its queue is shorter.";
      case "unavailable":
        return "It is loading its model, or it is about to stop. Try again in a moment.";
      case "refused":
        return "Change what it names and rank again.";
      case "unreachable":
        return "Is `erank serve` still running, and is this machine connected?";
      case "cut":
        return "What had arrived is shown below; the ranking is not complete.";
      case "broken":
        return "Its log says more. Trying again may help.";
    }
  }

  // Whether the same request may succeed later.
  mayRetry(): boolean {
    return this.kind !== "key" && this.kind !== "refused";
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

// The message of an error body in any of its shapes: {"error": {"message"}}, {"error": "..."}, {"message"}, {"detail"}.
export function messageOf(body: unknown): string {
  if (!isRecord(body)) return "";
  const { error, message, detail } = body;
  if (isRecord(error) && typeof error["message"] === "string") return error["message"];
  for (const text of [error, message, detail]) if (typeof text === "string") return text;
  return "";
}

export function kindOf(status: number): FailureKind {
  if (status === 401 || status === 403) return "key";
  if (status === 429) return "busy";
  if (status === 503) return "unavailable";
  return status >= 500 ? "broken" : "refused";
}

// The body of an error event, which comes after status 200 was sent.
export function failureOfBody(body: unknown): Failure {
  const error = isRecord(body) ? body["error"] : undefined;
  const code = isRecord(error) && typeof error["code"] === "number" ? error["code"] : 500;
  return new Failure(kindOf(code), messageOf(body) || "The stream ended with an error.", code);
}

export async function failureOf(response: Response): Promise<Failure> {
  const text = await response.text().catch(() => "");
  let message = "";
  try {
    message = messageOf(JSON.parse(text));
  } catch {
    message = text.length < 300 && !text.trimStart().startsWith("<") ? text.trim() : "";
  }
  return new Failure(
    kindOf(response.status),
    message || `Status ${response.status} ${response.statusText}`.trim(),
    response.status,
    secondsOf(response.headers.get("Retry-After")),
  );
}

// Retry-After in seconds, or until a date; null where there is none that can be read.
export function secondsOf(header: string | null, now = Date.now()): number | null {
  if (!header) return null;
  if (/^\d+$/.test(header.trim())) return Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, Math.ceil((date - now) / 1000));
}
