// What the tests of the page share.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { expect, test as base, type Page } from "@playwright/test";
import { MockServer } from "./mock_server";

export { expect };

// `mock` is a server of the test's own; `page` fails the test for a blocked script, an error or a request elsewhere.
export const test = base.extend<{ mock: MockServer }>({
  mock: async ({}, use) => {
    const mock = await MockServer.start();
    await use(mock);
    await mock.stop();
  },
  page: async ({ page }, use) => {
    const troubles: string[] = [];
    page.on("pageerror", (error) => troubles.push(`error: ${error.message}`));
    page.on("console", (message) => {
      // A refused request is logged by the browser itself; the tests provoke those.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
        troubles.push(`console: ${message.text()}`);
    });
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "blob:" && url.hostname !== "127.0.0.1") troubles.push(`request: ${url.href}`);
    });
    await use(page);
    expect(troubles).toEqual([]);
  },
});

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Every rule of axe, the best practices too. Returns what it found, a line each.
export async function axeFindings(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    const axe = (window as unknown as { axe: typeof import("axe-core") }).axe;
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.flatMap((found) =>
      found.nodes.map((node) => `${found.id}: ${node.target.join(" ")}: ${node.failureSummary ?? ""}`),
    );
  });
}

export const titles = (page: Page, run = 0): Promise<string[]> =>
  page.locator(".run").nth(run).locator(".card .name strong").allTextContents();

export const scores = async (page: Page, run = 0): Promise<number[]> =>
  (await page.locator(".run").nth(run).locator(".card .score strong").allTextContents()).map(Number);

export async function rankDocuments(page: Page, query: string, documents: string): Promise<void> {
  await page.getByLabel("Query", { exact: true }).fill(query);
  await page.getByRole("textbox", { name: "Documents" }).fill(documents);
  await page.getByRole("button", { name: /^Rank [\d,]+ document/ }).click();
}
