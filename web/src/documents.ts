// Documents from pasted text and files: a line each, between blank lines, JSON lines or a JSON array, CSV or TSV.

export interface Document {
  id: string;
  title: string; // "" where there is none
  text: string;
}

export type Format = "lines" | "paragraphs" | "jsonl" | "csv" | "tsv";

export const formatNames: Record<Format, string> = {
  lines: "a line each",
  paragraphs: "between blank lines",
  jsonl: "JSONL",
  csv: "CSV",
  tsv: "TSV",
};

export interface Parsed {
  documents: Document[];
  format: Format;
  problems: string[]; // what was left out, one line each, with its place
}

const idKeys = ["_id", "id", "docid", "doc_id"];
const textKeys = ["text", "contents", "content", "body", "passage", "document"];

// What the model reads of a document: its title, then its text.
export function wholeText(document: Document): string {
  return document.title ? `${document.title} ${document.text}` : document.text;
}

export function guessFormat(text: string, fileName = ""): Format {
  const ending = fileName.toLowerCase().split(".").pop();
  if (ending === "jsonl" || ending === "json" || ending === "ndjson") return "jsonl";
  if (ending === "csv" || ending === "tsv") return ending;
  const start = text.trimStart();
  if (start.startsWith('{"') || start.startsWith("[{") || start.startsWith('["') || /^\{\s*"/.test(start))
    return "jsonl";
  const head = start.split("\n", 1)[0] ?? "";
  for (const format of ["csv", "tsv"] as const) {
    const names = head.split(format === "csv" ? "," : "\t").map((name) => name.trim().toLowerCase());
    if (names.length > 1 && names.some((name) => textKeys.includes(name.replaceAll('"', "")))) return format;
  }
  return /\S[^\S\n]*\n[^\S\n]*\n+[^\S\n]*\S/.test(text) ? "paragraphs" : "lines";
}

export function parseDocuments(text: string, format: Format = guessFormat(text)): Parsed {
  const parsed: Parsed = { documents: [], format, problems: [] };
  const plain = text.replace(/^\uFEFF/, "").replaceAll("\r\n", "\n");
  if (format === "jsonl") parseJson(plain, parsed);
  else if (format === "csv" || format === "tsv") parseTable(plain, format === "csv" ? "," : "\t", parsed);
  else
    for (const piece of plain.split(format === "lines" ? "\n" : /\n[^\S\n]*\n/))
      if (piece.trim()) add(parsed, undefined, "", piece.trim());
  return parsed;
}

// The documents of several sources as one list: an id that comes twice, or is missing, becomes the place in the list.
export function joinDocuments(lists: Document[][]): Document[] {
  const seen = new Set<string>();
  return lists.flat().map((document, index) => {
    let id = document.id && !seen.has(document.id) ? document.id : String(index + 1);
    while (seen.has(id)) id += "'";
    seen.add(id);
    return { ...document, id };
  });
}

function add(parsed: Parsed, id: unknown, title: unknown, text: string): void {
  const name = typeof id === "string" || typeof id === "number" ? String(id).trim() : "";
  parsed.documents.push({ id: name, title: typeof title === "string" ? title.trim() : "", text });
}

function addRecord(parsed: Parsed, record: unknown, where: string): void {
  if (typeof record === "string") {
    add(parsed, undefined, "", record);
    return;
  }
  if (typeof record !== "object" || record === null || Array.isArray(record)) {
    parsed.problems.push(`${where} is neither a text nor an object`);
    return;
  }
  const fields = new Map(Object.entries(record));
  const first = (keys: string[]) => keys.map((key) => fields.get(key)).find((value) => value !== undefined);
  const text = first(textKeys);
  if (typeof text === "string") add(parsed, first(idKeys), fields.get("title"), text);
  else parsed.problems.push(`${where} has no text: expected a key "text"`);
}

function parseJson(text: string, parsed: Parsed): void {
  if (text.trimStart().startsWith("[")) {
    try {
      const list: unknown = JSON.parse(text);
      if (Array.isArray(list)) list.forEach((record, i) => addRecord(parsed, record, `Element ${i + 1}`));
      return;
    } catch {
      // not one array: read as lines
    }
  }
  text.split("\n").forEach((line, i) => {
    if (!line.trim()) return;
    try {
      addRecord(parsed, JSON.parse(line), `Line ${i + 1}`);
    } catch {
      parsed.problems.push(`Line ${i + 1} is no JSON`);
    }
  });
}

// Rows of RFC 4180, each with the line it begins in; a quoted field may hold line breaks.
export function tableRows(text: string, separator: string): { line: number; fields: string[] }[] {
  const rows: { line: number; fields: string[] }[] = [];
  let fields: string[] = [];
  let field = "";
  let line = 1;
  let begin = 1;
  let quoted = false;
  const endRow = () => {
    fields.push(field);
    if (fields.some((value) => value.trim())) rows.push({ line: begin, fields });
    fields = [];
    field = "";
    begin = line;
  };
  for (let i = 0; i < text.length; ++i) {
    const c = text.charAt(i);
    if (c === "\n") ++line;
    if (quoted) {
      if (c !== '"') field += c;
      else if (text.charAt(i + 1) === '"') field += text.charAt(++i);
      else quoted = false;
    } else if (c === '"' && !field) quoted = true;
    else if (c === separator) {
      fields.push(field);
      field = "";
    } else if (c === "\n") endRow();
    else field += c;
  }
  if (field || fields.length) endRow();
  return rows;
}

function parseTable(text: string, separator: string, parsed: Parsed): void {
  const rows = tableRows(text, separator);
  const head = rows[0]?.fields.map((name) => name.trim().toLowerCase()) ?? [];
  const column = (keys: string[]) => head.findIndex((name) => keys.includes(name));
  const named = column(textKeys) >= 0;
  const textColumn = named ? column(textKeys) : -1;
  const idColumn = named ? column(idKeys) : -1;
  const titleColumn = named ? column(["title"]) : -1;
  for (const row of named ? rows.slice(1) : rows) {
    // Without names the last column is the text, and the first of two or more the id.
    const value = row.fields.at(textColumn);
    const id = named ? row.fields[idColumn] : row.fields.length > 1 ? row.fields[0] : undefined;
    if (value?.trim()) add(parsed, id, row.fields[titleColumn], value.trim());
    else parsed.problems.push(`Row at line ${row.line} has no text`);
  }
}
