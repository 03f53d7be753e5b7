// The page in a browser against the mock server: a whole visit, failures, a cancelled run, what a reload keeps.
import { readFile } from "node:fs/promises";
import { axeFindings, expect, rankDocuments, scores, test, titles } from "./visit";

const descending = (numbers: number[]) => numbers.every((x, i) => i === 0 || x <= (numbers[i - 1] ?? x));

test("a visit: sample, ranking, reasoning, files", async ({ page, mock }) => {
  mock.behaviour.holdAfter = 5;
  await page.goto(mock.url);
  await expect(page.locator("#served")).toHaveText("mock-135m · int8");
  await page.locator("#settings-a").getByLabel("Gives reasons for the first").fill("2");
  await page.locator("#empty .samples button").first().click();

  // Results come one by one, each at its place among those that are there.
  await expect(page.locator(".card[data-state=scored]")).toHaveCount(5);
  await expect(page.locator(".card[data-state=pending]")).toHaveCount(7);
  expect(descending(await scores(page))).toBe(true);
  await expect(page.locator(".run .line")).toContainText(/of 14 .*tokens\/s.*left/);
  await expect(page.locator("progress")).toBeVisible();
  mock.behaviour.holdAfter = null;

  await expect(page.locator(".run")).toHaveAttribute("data-status", "done");
  await expect(page.locator(".card")).toHaveCount(12);
  expect(descending(await scores(page))).toBe(true);
  await expect(page.locator(".run .line")).toContainText("12 documents in");
  await expect(page.locator("#announce")).toContainText("Ranking complete. First: Whole-cell");
  await expect(page.locator(".card .move.up").first()).toContainText(/up \d+, was \d+/);

  const chart = page.locator(".card").first().getByRole("img");
  await expect(chart).toHaveAccessibleName(/Most likely 7.*0: <?\d+ %.*10: <?\d+ %/);
  await expect(chart.locator("rect.bar")).toHaveCount(11);

  const reasoning = page.locator(".card").first().locator("details.reasoning");
  await reasoning.locator("summary").click();
  await expect(reasoning.locator("mark").first()).toHaveText("newborns");
  await expect(page.locator("details.reasoning:visible")).toHaveCount(2);
  await expect(page.locator(".flag").first()).toHaveText("only its beginning was read");

  const body = mock.asked[0]?.body ?? {};
  expect(body).toMatchObject({ mode: "direct", explain_top: 2, stream: true, return_distribution: true });
  expect(body["instruction"]).toBeUndefined();
  expect(body["top_n"]).toBeUndefined();

  await page.getByRole("button", { name: "Copy as curl" }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  expect(command).toContain(`curl '${mock.url}v1/rerank'`);
  expect(command).toContain('"explain_top": 2');

  const save = async (name: string) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name }).click()]);
    return (await readFile(await download.path(), "utf8")).trimEnd().split("\n");
  };
  const run = await save("Save TREC run");
  expect(run).toHaveLength(12);
  expect(run[0]).toMatch(/^1 Q0 vac-08 1 \d\.\d+ erank$/);
  const lines = (await save("Save JSONL")).map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines.map((line) => line["rank"])).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
  expect(lines[0]).toMatchObject({ qid: "1", docid: "vac-08", finish: "answered" });
  expect(lines[0]?.["distribution"]).toHaveLength(11);
});

test("two settings side by side, the second after the first", async ({ page, mock }) => {
  await page.goto(mock.url);
  await page.getByText("Compare with other settings").click();
  await page.locator("#settings-b").getByLabel("Thinks for at most").fill("32");
  await page.locator("#empty .samples button").nth(1).click();
  await expect(page.locator(".run[data-status=done]")).toHaveCount(2);
  await expect(page.getByRole("region", { name: /A\s*Direct/ })).toBeVisible();
  await expect(page.getByRole("region", { name: /B\s*Thinks first, at most 32 tokens/ })).toBeVisible();
  await expect(page.locator("#agreement")).toContainText(/of the first 5 are the same.*tau -?\d\.\d\d/);
  await expect(page.locator(".run").first().locator(".other").first()).toHaveText(/^B \d+$/);
  expect(mock.asked.map((asked) => asked.body["mode"])).toEqual(["direct", "think"]);
  expect(mock.asked[1]?.body["max_think_tokens"]).toBe(32);
});

test("how it thinks is sent as it is set, within the server's limits", async ({ page, mock }) => {
  mock.behaviour.calibrated = true;
  await page.goto(mock.url);
  await expect(page.locator("#served")).toHaveText("mock-135m · int8");
  const settings = page.locator("#settings-a");
  const temperature = settings.getByLabel("Thinks at a temperature of");
  const times = settings.getByLabel("Thinks about each");
  await expect(temperature).toBeHidden();
  await settings.getByText("Think", { exact: false }).first().click();
  await expect(temperature).toHaveAttribute("placeholder", "0");
  await expect(times).toBeHidden(); // without a temperature all would be one
  await temperature.fill("0.7");
  await times.fill("400");
  await expect(times).toHaveValue("64");
  await times.fill("4");
  await expect(page).toHaveURL(/temperature=0\.7&samples=4/);
  await page.reload();
  await expect(page.locator("#served")).toHaveText("mock-135m · int8");
  await expect(times).toHaveValue("4");
  await rankDocuments(page, "red apples", "red apples\nblue sky");
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
  expect(mock.asked[0]?.body).toMatchObject({ mode: "think", temperature: 0.7, samples: 4 });
  await expect(page.locator(".card .relevance").first()).toHaveText(/^\d+ % relevant$/);
  await page.getByRole("button", { name: "Copy as curl" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain('"samples": 4');

  mock.behaviour.calibrated = false;
  await temperature.fill("0");
  await expect(times).toBeHidden();
  await page.getByRole("button", { name: /^Rank 2/ }).click();
  await expect.poll(() => mock.asked.length).toBe(2);
  expect(mock.asked[1]?.body).toMatchObject({ temperature: 0 });
  expect(mock.asked[1]?.body).not.toHaveProperty("samples");
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
  await expect(page.locator(".relevance")).toHaveCount(0);
  await settings.getByText("Direct", { exact: false }).first().click();
  await page.getByRole("button", { name: /^Rank 2/ }).click();
  await expect.poll(() => mock.asked.length).toBe(3);
  expect(mock.asked[2]?.body).not.toHaveProperty("temperature");
});

test("instructions, cut and long documents are sent as they are set", async ({ page, mock }) => {
  await page.goto(mock.url);
  const settings = page.locator("#settings-a");
  await settings.getByLabel("Instruction", { exact: true }).selectOption("FollowIR");
  await expect(settings.locator(".quoted")).toContainText("extra requirements");
  await settings.getByLabel("Reads long documents").selectOption("cut");
  await settings.getByLabel("Returns").fill("2");
  await rankDocuments(page, "red apples", "red apples\nblue sky\nripe red apples here\ngreen grass");
  await expect(page.locator(".card")).toHaveCount(2);
  await page.getByRole("button", { name: "Show the 2 below the cut" }).click();
  await expect(page.locator(".card[data-state=cut]")).toHaveCount(2);

  await settings.getByLabel("Instruction", { exact: true }).selectOption("own");
  await settings.getByLabel("Own instruction").fill("Fruit only.");
  await page.getByRole("button", { name: /^Rank 4/ }).click();
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
  expect(mock.asked[0]?.body).toMatchObject({ long_docs: "cut", top_n: 2 });
  expect(mock.asked[0]?.body["instruction"]).toContain("Be careful about the extra requirements");
  expect(mock.asked[1]?.body["instruction"]).toBe("Fruit only.");
});

test("files come by drop and by choice, and say what is wrong in them", async ({ page, mock }) => {
  await page.goto(mock.url);
  await page.locator("#file").setInputFiles([
    {
      name: "a.jsonl",
      mimeType: "",
      buffer: Buffer.from('{"_id":"a1","text":"one"}\nno json\n{"_id":"a2","text":"two"}\n'),
    },
    { name: "b.csv", mimeType: "", buffer: Buffer.from('id,text\nb1,"three, with a comma"\n') },
  ]);
  await expect(page.locator("#documents-count")).toContainText("3 documents");
  await expect(page.locator("#documents-count")).toContainText("a.jsonl: line 2 is no JSON");
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File(["four\nfive\n"], "c.txt"));
    document
      .querySelector("#documents-field")
      ?.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
  });
  await expect(page.locator("#documents-count")).toContainText("5 documents");
  await page.getByRole("button", { name: "Remove a.jsonl" }).click();
  await expect(page.locator("#documents-count")).toHaveText("3 documents");
  await page.getByLabel("Query", { exact: true }).fill("three");
  await page.keyboard.press("Control+Enter");
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
  expect(mock.asked[0]?.body["documents"]).toEqual(["three, with a comma", "four", "five"]);
  await expect(page.locator(".docid").first()).toHaveText("b1");
});

test("a document that cannot be scored is last and says why", async ({ page, mock }) => {
  mock.behaviour.failIndex = 0;
  await page.goto(mock.url);
  await rankDocuments(page, "red apples", "red apples\nblue sky");
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
  await expect(page.locator(".card").last()).toContainText("the prompt has 9,000 tokens");
  await expect(page.locator(".card").last()).toHaveAttribute("data-state", "failed");
});

test("a cancelled run keeps what it has, and the server sees the client leave", async ({ page, mock }) => {
  mock.behaviour.holdAfter = 3;
  await page.goto(mock.url);
  await page.locator("#empty .samples button").first().click();
  await expect(page.locator(".card[data-state=scored]")).toHaveCount(3);
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.locator(".run")).toHaveAttribute("data-status", "cancelled");
  await expect(page.locator(".run .line")).toContainText(/Cancelled after .*: \d document/);
  await expect(page.locator(".card[data-state=unscored]").first()).toBeVisible();
  await expect.poll(() => mock.asked[0]?.left).toBe(true);
  await expect(page.locator("#start")).toBeFocused();
  await expect(page.locator(".failure")).toHaveCount(0);
  mock.behaviour.holdAfter = null;
  await page.keyboard.press("Enter");
  await expect(page.locator(".run")).toHaveAttribute("data-status", "done");
});

test("a server that wants a key gets it, and it is kept for this tab alone", async ({ page, mock, context }) => {
  mock.behaviour.key = "secret-1";
  await page.goto(mock.url);
  await expect(page.locator("#served")).toHaveText("The server asks for an API key");
  await rankDocuments(page, "red apples", "red apples\nblue sky");
  const panel = page.getByRole("alert");
  await expect(panel).toContainText("The server asks for an API key");
  await expect(panel).toContainText("status 401");
  await page.getByRole("button", { name: "Enter a key" }).click();
  await expect(page.getByLabel("API key")).toBeFocused();
  await page.keyboard.type("secret-1");
  await page.keyboard.press("Tab");
  await expect(page.locator("#served")).toHaveText("mock-135m · int8");
  await page.getByRole("button", { name: /^Rank 2/ }).click();
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
  await page.getByRole("button", { name: "Copy as curl" }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  expect(command).toContain("Bearer $ERANK_API_KEY");
  expect(command).not.toContain("secret-1");
  expect(page.url()).not.toContain("secret-1");
  await page.reload();
  await expect(page.locator("#key")).toHaveValue("secret-1");
  expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("secret-1");
  const other = await context.newPage();
  await other.goto(mock.url);
  await expect(other.locator("#key")).toHaveValue("");
});

test("a full queue says when to come back, and then takes the same request", async ({ page, mock }) => {
  mock.behaviour.refuse = { status: 429, message: "the queue is full", headers: { "Retry-After": "2" } };
  await page.goto(mock.url);
  await rankDocuments(page, "red apples", "red apples\nblue sky");
  await expect(page.getByRole("alert")).toContainText("more work than it can take");
  const again = page.getByRole("button", { name: /^Try again/ });
  await expect(again).toBeDisabled();
  await expect(again).toHaveText(/in [12] s/);
  mock.behaviour.refuse = null;
  await expect(again).toBeEnabled({ timeout: 4000 });
  await again.click();
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1);
});

for (const [status, words, retries] of [
  [503, "The server is not ready", 1],
  [413, "The server refused this request", 0],
  [422, "The server refused this request", 0],
  [500, "The server failed", 1],
] as const)
  test(`status ${status} is told in words`, async ({ page, mock }) => {
    mock.behaviour.refuse = { status, message: "why it is so" };
    await page.goto(mock.url);
    await rankDocuments(page, "red apples", "red apples\nblue sky");
    const panel = page.getByRole("alert");
    await expect(panel).toContainText(words);
    await expect(panel).toContainText("why it is so");
    await expect(page.getByRole("button", { name: "Try again" })).toHaveCount(retries);
  });

test("a cut connection, an error in the stream and a server that is gone", async ({ page, mock }) => {
  mock.behaviour.cutAfter = 2;
  await page.goto(mock.url);
  await rankDocuments(page, "red apples", "red apples\nblue sky\ngreen apples\nyellow sun");
  await expect(page.getByRole("alert")).toContainText("The connection ended too early");
  await expect(page.locator(".card[data-state=scored]")).toHaveCount(2);
  await expect(page.locator(".card[data-state=unscored]")).toHaveCount(2);

  mock.behaviour.cutAfter = null;
  mock.behaviour.errorAfter = 1;
  await page.getByRole("button", { name: "Try again" }).click();
  await expect(page.getByRole("alert")).toContainText("the pass failed: no memory");

  await mock.stop();
  await page.getByRole("button", { name: "Try again" }).click();
  await expect(page.getByRole("alert")).toContainText("The server cannot be reached");
});

test("a reload keeps settings, query and tab, but no documents", async ({ page, mock }) => {
  await page.goto(mock.url);
  const settings = page.locator("#settings-a");
  await page.getByLabel("Query", { exact: true }).fill("why & how = #1?");
  await page.getByRole("textbox", { name: "Documents" }).fill("private text");
  await settings.getByText("Think", { exact: false }).first().click();
  await settings.getByLabel("Thinks for at most").fill("48");
  await settings.getByLabel("Instruction", { exact: true }).selectOption("BRIGHT");
  await settings.getByLabel("Returns").fill("5");
  await expect(page).toHaveURL(/top=5/);
  expect(page.url()).not.toContain("private");
  await page.reload();
  await expect(page.locator("#served")).toHaveText("mock-135m · int8");
  await expect(page.getByLabel("Query", { exact: true })).toHaveValue("why & how = #1?");
  await expect(page.getByRole("textbox", { name: "Documents" })).toHaveValue("");
  await expect(settings.getByLabel("Thinks for at most")).toHaveValue("48");
  await expect(settings.getByLabel("Instruction", { exact: true })).toHaveValue("BRIGHT");
  await expect(settings.getByLabel("Returns")).toHaveValue("5");
  await page.getByRole("tab", { name: "Live" }).click();
  await expect(page).toHaveURL(/tab=live/);
  await page.reload();
  await expect(page.getByRole("tabpanel", { name: "Live" })).toBeVisible();
});

test("what is missing is asked for", async ({ page, mock }) => {
  await page.goto(mock.url);
  await page.getByRole("button", { name: "Rank", exact: true }).click();
  await expect(page.getByLabel("Query", { exact: true })).toBeFocused();
  await page.keyboard.type("red apples");
  await page.getByRole("button", { name: "Rank", exact: true }).click();
  await expect(page.getByRole("textbox", { name: "Documents" })).toBeFocused();
  await expect(page.getByRole("textbox", { name: "Documents" })).toHaveAttribute("aria-invalid", "true");
  expect(mock.asked).toHaveLength(0);
});

test("everything is reached by keyboard, and arrows move among the tabs", async ({ page, mock }) => {
  await page.goto(mock.url);
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "To the results" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("#outcome")).toBeFocused();
  await page.getByRole("tab", { name: "Rank" }).focus();
  await page.keyboard.press("ArrowRight");
  await expect(page.getByRole("tab", { name: "Live" })).toBeFocused();
  await expect(page.getByRole("tabpanel", { name: "Live" })).toBeVisible();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Tab");
  await expect(page.getByLabel("Query", { exact: true })).toBeFocused();
});

test("a card keeps its open reasoning and the focus while others move", async ({ page, mock }) => {
  mock.behaviour.holdAfter = 4;
  await page.goto(`${mock.url}#mode=think`);
  await page.locator("#empty .samples button").first().click();
  await expect(page.locator(".card[data-state=scored]")).toHaveCount(4);
  await page.locator("details.reasoning:visible summary").nth(3).click();
  const held = page.locator(".card:has(details[open])");
  const index = await held.getAttribute("data-index");
  mock.behaviour.holdAfter = null;
  await expect(page.locator(".run")).toHaveAttribute("data-status", "done");
  await expect(page.locator(`.card[data-index="${index}"] details.reasoning[open]`)).toHaveCount(1);
  await expect(page.locator(`.card[data-index="${index}"] summary`)).toBeFocused();
});

test("the live tab draws queue, speed and latency, and says when the server is gone", async ({ page, mock }) => {
  await page.goto(`${mock.url}#tab=live`);
  await expect(page.locator(".plot canvas")).toHaveCount(3);
  await expect(page.getByRole("img", { name: /^Queue, pairs/ })).toBeVisible();
  await expect(page.locator(".figures")).toContainText("Requests running");
  await expect(page.locator(".chart").nth(2)).toContainText(/median \d/, { timeout: 6000 });
  // The curves are there: some pixels have the accent's colour.
  const drawn = await page
    .locator(".plot canvas")
    .first()
    .evaluate((canvas: HTMLCanvasElement) => {
      const { data } = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height) ?? { data: [] };
      let count = 0;
      for (let i = 0; i < data.length; i += 4) if (data[i] === 14 && data[i + 1] === 107 && data[i + 2] === 92) ++count;
      return count;
    });
  expect(drawn).toBeGreaterThan(20);
  await mock.stop();
  await expect(page.getByText(/The server cannot be reached/)).toBeVisible({ timeout: 5000 });
});

test("without motion the results are at their places at once", async ({ page, mock }) => {
  await page.emulateMedia({ reducedMotion: "reduce" });
  mock.behaviour.holdAfter = 6;
  await page.goto(mock.url);
  await page.locator("#empty .samples button").first().click();
  await expect(page.locator(".card[data-state=scored]")).toHaveCount(6);
  expect(await page.evaluate(() => document.getAnimations().length)).toBe(0);
  await page.emulateMedia({ reducedMotion: "no-preference" });
  mock.behaviour.delayMs = 150;
  mock.behaviour.holdAfter = null;
  await expect.poll(() => page.evaluate(() => document.getAnimations().length)).toBeGreaterThan(0);
  await expect(page.locator(".run")).toHaveAttribute("data-status", "done");
});

test("a thousand documents are listed in steps", async ({ page, mock }) => {
  mock.behaviour.delayMs = 0;
  await page.goto(mock.url);
  const documents = Array.from({ length: 1000 }, (_, i) => `document ${i} about ${i % 7 ? "stones" : "apples"}`);
  await rankDocuments(page, "apples", documents.join("\n"));
  await expect(page.locator(".run[data-status=done]")).toHaveCount(1, { timeout: 30_000 });
  await expect(page.locator(".card")).toHaveCount(50);
  await page.getByRole("button", { name: "Show 50 more of 950" }).click();
  await expect(page.locator(".card")).toHaveCount(100);
  expect(await titles(page)).toHaveLength(0);
});

for (const colorScheme of ["light", "dark"] as const)
  for (const width of [360, 1400])
    test(`axe finds nothing: ${width} px, ${colorScheme}`, async ({ page, mock }) => {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width, height: 900 });
      await page.goto(mock.url);
      await expect(page.locator("#served")).toHaveText("mock-135m · int8");
      expect(await axeFindings(page)).toEqual([]);

      mock.behaviour.failIndex = 4;
      await page.goto(`${mock.url}#compare=1&explain=2`);
      await page.reload();
      await page.locator("#empty .samples button").first().click();
      await expect(page.locator(".run[data-status=done]")).toHaveCount(2);
      await page.locator("details.reasoning:visible summary").first().click();
      await page.getByText("API key", { exact: true }).first().click();
      expect(await axeFindings(page)).toEqual([]);
      // Nothing is wider than the window.
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);

      mock.behaviour.refuse = { status: 429, message: "the queue is full", headers: { "Retry-After": "9" } };
      await page.locator("#start").click();
      await expect(page.locator(".failure")).toBeVisible();
      expect(await axeFindings(page)).toEqual([]);

      await page.getByRole("tab", { name: "Live" }).click();
      await expect(page.locator(".plot canvas")).toHaveCount(3);
      expect(await axeFindings(page)).toEqual([]);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    });
