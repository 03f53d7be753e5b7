// Tabs after the pattern of the ARIA Authoring Practices: one stop of the Tab key, arrows move among them.
import { byId, on } from "./dom";

export type TabName = "rank" | "live";
const names: TabName[] = ["rank", "live"];

export class Tabs {
  constructor(private readonly chosen: (name: TabName) => void) {
    for (const [i, name] of names.entries()) {
      const tab = byId(`tab-${name}`, HTMLButtonElement);
      on(tab, "click", () => this.show(name));
      on(tab, "keydown", (event) => {
        const way = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
        const next = names[(i + way + names.length) % names.length];
        if (way === 0 || next === undefined) return;
        event.preventDefault();
        this.show(next);
        byId(`tab-${next}`, HTMLButtonElement).focus();
      });
    }
  }

  show(name: TabName): void {
    for (const other of names) {
      const tab = byId(`tab-${other}`, HTMLButtonElement);
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
      byId(`panel-${other}`, HTMLDivElement).hidden = other !== name;
    }
    this.chosen(name);
  }
}
