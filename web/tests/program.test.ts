// A visit to the real program with the default model: ERANK_PROGRAM=PATH names it, or ERANK_URL a running server.
import { spawn, type ChildProcess } from "node:child_process";
import { axeFindings, expect, scores, test } from "./visit";

const program = process.env["ERANK_PROGRAM"];

test.describe("erank serve", () => {
  test.skip(!program && !process.env["ERANK_URL"], "neither ERANK_PROGRAM nor ERANK_URL is set");
  test.setTimeout(180_000);
  let server: ChildProcess | null = null;
  let url = process.env["ERANK_URL"] ?? "";

  test.beforeAll(async () => {
    test.setTimeout(180_000);
    if (url || !program) return;
    server = spawn(program, ["serve", "--port", "0"], { stdio: ["ignore", "ignore", "pipe"] });
    url = await new Promise<string>((resolve, reject) => {
      let said = "";
      server?.stderr?.on("data", (piece: Buffer) => {
        said += piece.toString();
        const found = /at (http:\/\/\S+)/.exec(said)?.[1];
        if (found) resolve(`${found.replace(/\/$/, "")}/`);
      });
      server?.on("exit", () => reject(new Error(`erank serve ended: ${said}`)));
    });
  });
  test.afterAll(() => server?.kill("SIGTERM"));

  test("a visit: the sample is ranked, explained and compared", async ({ page }) => {
    const response = await page.goto(`${url}#compare=1&explain=2&b.mode=direct&b.top=3`);
    expect(response?.headers()["content-security-policy"]).toContain("script-src 'self'");
    await expect(page.locator("#served")).toContainText("erank-135m");
    await expect(page.locator("#settings-a .quoted")).toHaveText("Given a query, retrieval relevant passage.");
    await page.locator("#empty .samples button").first().click();
    await expect(page.locator(".run[data-status=done]")).toHaveCount(2, { timeout: 120_000 });
    const numbers = await scores(page);
    expect(numbers).toHaveLength(12);
    expect([...numbers].sort((x, y) => y - x)).toEqual(numbers);
    expect(await scores(page, 1)).toHaveLength(3);
    await expect(page.locator(".run").first().locator("rect.bar")).toHaveCount(12 * 11);
    const reasoning = page.locator(".run").first().locator("details.reasoning:visible");
    await expect(reasoning).toHaveCount(2);
    await reasoning.first().locator("summary").click();
    await expect(reasoning.first().locator("mark").first()).toBeVisible();
    expect(await axeFindings(page)).toEqual([]);
    // The direct answers of the second run are those of the first, from the cache.
    await expect(page.locator(".run").nth(1).locator(".line")).toContainText("12 documents in");

    await page.getByRole("tab", { name: "Live" }).click();
    await expect(page.locator(".figures")).toContainText("Answers from the cache");
    await expect(page.locator(".chart").nth(2)).toContainText("Latency of requests");
  });

  test("a cancelled run frees the server at once", async ({ page }) => {
    await page.goto(`${url}#mode=think&q=why+is+the+sky+blue`);
    const documents = Array.from({ length: 400 }, (_, i) => `Note ${i}: the sky above hill ${i} was blue and wide.`);
    await page.getByRole("textbox", { name: "Documents" }).fill(documents.join("\n"));
    await page.getByRole("button", { name: "Rank 400 documents" }).click();
    await expect(page.locator(".card[data-state=scored]")).not.toHaveCount(0, { timeout: 60_000 });
    await page.getByRole("button", { name: "Cancel" }).click();
    await expect(page.locator(".run")).toHaveAttribute("data-status", "cancelled");
    const queued = async () => ((await (await fetch(`${url}live`)).json()) as { queued_pairs: number }).queued_pairs;
    await expect.poll(queued, { timeout: 30_000 }).toBe(0);
  });
});
