// Which words of a text are the query's, and flags in words.

const stopWords = new Set(
  (
    "a about all also an and any are as at be because been but by can could did do does for from had has have how i " +
    "if in into is it its just may me more most my no not of on one only or other our out over own same should so " +
    "some such than that the their them then there these they this those to too up very was we were what when where which " +
    "while who why will with without would you your"
  ).split(" "),
);

const wordPattern = /[\p{L}\p{N}]+/gu;

// Endings of English that say little: "newborns" is marked for "newborn", "rising" for "rise". Only for marking.
function stem(word: string): string {
  const lower = word.toLowerCase();
  for (const ending of ["ings", "ing", "ies", "ied", "es", "ed", "s", "e", "y"])
    if (lower.length - ending.length >= 3 && lower.endsWith(ending)) return lower.slice(0, -ending.length);
  return lower;
}

export function queryStems(query: string): Set<string> {
  const words = query.match(wordPattern) ?? [];
  return new Set(words.filter((word) => word.length > 1 && !stopWords.has(word.toLowerCase())).map(stem));
}

// The text in pieces, in order; `marked` where a piece is one of the query's words.
export function markedPieces(text: string, stems: Set<string>): { text: string; marked: boolean }[] {
  const pieces: { text: string; marked: boolean }[] = [];
  let end = 0;
  for (const match of text.matchAll(wordPattern)) {
    if (!stems.has(stem(match[0]))) continue;
    if (match.index > end) pieces.push({ text: text.slice(end, match.index), marked: false });
    pieces.push({ text: match[0], marked: true });
    end = match.index + match[0].length;
  }
  if (end < text.length) pieces.push({ text: text.slice(end), marked: false });
  return pieces;
}

const flagWords: Record<string, string> = {
  query_truncated: "the query was cut",
  document_truncated: "only its beginning was read",
  empty_document: "empty document",
  binary_document: "control characters or broken text",
  unformatted: "no readable answer",
  low_answer_mass: "the model hardly answers as asked",
  constant_scores: "all documents score alike",
  deadline: "past the deadline, best score known",
  no_reasoning: "reasoning failed, direct score kept",
  forced: "thinking budget used up, answer asked for",
  clipped: "context full, answer asked for",
};

export function flagInWords(flag: string): string {
  return flagWords[flag] ?? flag.replaceAll("_", " ");
}

export function count(number: number, noun: string): string {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function duration(seconds: number): string {
  if (seconds < 0.995) return `${Math.max(0.01, seconds).toFixed(2)} s`;
  if (seconds < 99.5) return `${seconds.toFixed(1)} s`;
  if (seconds < 3570) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}
