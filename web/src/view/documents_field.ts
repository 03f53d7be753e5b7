// Where documents come in: pasted, dropped as files or chosen, or a sample.
import { formatNames, guessFormat, joinDocuments, parseDocuments, type Document, type Format } from "../documents";
import { count } from "../words";
import { byId, button, el, on } from "./dom";

const mostProblems = 3; // that are named; the rest is counted

interface Source {
  name: string;
  documents: Document[];
  problems: string[];
}

export class DocumentsField {
  private readonly text = byId("documents", HTMLTextAreaElement);
  private readonly format = byId("format", HTMLSelectElement);
  private readonly field = byId("documents-field", HTMLFieldSetElement);
  private readonly picker = byId("file", HTMLInputElement);
  private readonly list = byId("files", HTMLUListElement);
  private readonly count = byId("documents-count", HTMLParagraphElement);
  private readonly files: Source[] = [];
  private pasted: Source = { name: "", documents: [], problems: [] };
  private reading: number | undefined;
  most: number | null = null; // documents that the server takes in one call

  constructor(private readonly changed: (numDocuments: number) => void) {
    this.format.append(
      el("option", { value: "" }, "what it looks like"),
      ...Object.entries(formatNames).map(([value, name]) => el("option", { value }, name)),
    );
    on(this.text, "input", () => {
      window.clearTimeout(this.reading);
      this.reading = window.setTimeout(() => this.read(), 150);
    });
    on(this.format, "input", () => this.read());
    on(byId("pick", HTMLButtonElement), "click", () => this.picker.click());
    on(this.picker, "change", () => {
      void this.take([...(this.picker.files ?? [])]);
      this.picker.value = "";
    });
    on(this.field, "dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.field.classList.add("over");
    });
    on(this.field, "dragleave", () => this.field.classList.remove("over"));
    on(this.field, "drop", (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.field.classList.remove("over");
      void this.take([...event.dataTransfer.files]);
    });
    this.read();
  }

  documents(): Document[] {
    if (this.reading !== undefined) this.read();
    return joinDocuments([this.pasted.documents, ...this.files.map((file) => file.documents)]);
  }

  // In place of all that was there.
  set(documents: Document[]): void {
    this.files.length = 0;
    this.format.value = "";
    this.text.value = documents
      .map(({ id, title, text }) => JSON.stringify({ _id: id, ...(title && { title }), text }))
      .join("\n");
    this.read();
  }

  private async take(files: File[]): Promise<void> {
    for (const file of files) {
      const text = await file.text().catch(() => "");
      const { documents, problems } = parseDocuments(text, guessFormat(text, file.name));
      this.files.push({ name: file.name, documents, problems });
    }
    this.read();
  }

  private read(): void {
    window.clearTimeout(this.reading);
    this.reading = undefined;
    const text = this.text.value;
    const chosen = this.format.value as Format | "";
    const { documents, problems, format } = parseDocuments(text, chosen || guessFormat(text));
    this.pasted = { name: "", documents, problems };
    this.showFiles();
    this.showCount(text.trim() && !chosen ? formatNames[format] : "");
    this.changed([this.pasted, ...this.files].reduce((sum, source) => sum + source.documents.length, 0));
  }

  private showFiles(): void {
    this.list.hidden = this.files.length === 0;
    this.list.replaceChildren(
      ...this.files.map((file) =>
        el(
          "li",
          {},
          el("span", { class: "file-name" }, file.name),
          el("span", { class: "of" }, count(file.documents.length, "document")),
          button("Remove", () => this.remove(file), { class: "link", "aria-label": `Remove ${file.name}` }),
        ),
      ),
    );
  }

  private remove(file: Source): void {
    this.files.splice(this.files.indexOf(file), 1);
    this.read();
    byId("pick", HTMLButtonElement).focus();
  }

  private showCount(format: string): void {
    const sources = [this.pasted, ...this.files];
    const number = sources.reduce((sum, source) => sum + source.documents.length, 0);
    const problems = sources.flatMap(({ name, problems }) =>
      problems.map((problem) => (name ? `${name}: ${problem.charAt(0).toLowerCase()}${problem.slice(1)}` : problem)),
    );
    const lines = [
      el("span", {}, number ? count(number, "document") + (format ? `, read as ${format}` : "") : "No documents yet"),
    ];
    if (this.most !== null && number > this.most)
      lines.push(el("span", { class: "trouble" }, `The server takes ${this.most} at a time`));
    for (const problem of problems.slice(0, mostProblems)) lines.push(el("span", { class: "trouble" }, problem));
    if (problems.length > mostProblems)
      lines.push(el("span", { class: "trouble" }, `and ${problems.length - mostProblems} more like these`));
    this.count.replaceChildren(...lines);
  }
}
