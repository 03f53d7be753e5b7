// Pictures of the page at two widths in both colour schemes, for people to look at:
//   PICTURES=FOLDER npx playwright test pictures
// of the mock server, or with ERANK_URL of a running `erank serve`.
import { test, type Page } from "@playwright/test";
import { MockServer } from "./mock_server";

const folder = process.env["PICTURES"];
const address = process.env["ERANK_URL"];

async function sample(page: Page, number = 0): Promise<void> {
  await page.locator("#empty .samples button").nth(number).click();
  await page.locator(".run[data-status=done]").first().waitFor({ timeout: 60_000 });
  await page.waitForTimeout(600);
}

test.describe("pictures", () => {
  test.skip(!folder, "PICTURES names no folder");
  let mock: MockServer | null = null;
  let url = "";
  test.beforeAll(async () => {
    if (!address) mock = await MockServer.start();
    url = address ?? mock?.url ?? "";
  });
  test.afterAll(() => mock?.stop());

  for (const colorScheme of ["light", "dark"] as const)
    for (const width of [360, 1400]) {
      const name = (what: string) => `${folder}/${what}-${width}-${colorScheme}.png`;
      test.describe(`${width} ${colorScheme}`, () => {
        test.use({ colorScheme, viewport: { width, height: width < 500 ? 780 : 900 } });

        test("ranking", async ({ page }) => {
          await page.goto(url);
          await page.screenshot({ path: name("empty"), fullPage: width < 500 });
          await page.locator("#settings-a").getByLabel("Gives reasons for the first").fill("3");
          await sample(page);
          await page.locator("details.reasoning:visible summary").first().click();
          await page.evaluate(() => scrollTo(0, 0));
          await page.screenshot({ path: name("ranking") });
          await page.locator("#outcome").evaluate((outcome) => outcome.scrollIntoView());
          await page.screenshot({ path: name("results") });
        });

        test("comparison", async ({ page }) => {
          await page.goto(`${url}#compare=1`);
          await sample(page);
          await page.locator(".run[data-status=done]").nth(1).waitFor({ timeout: 60_000 });
          await page.locator("#outcome").evaluate((outcome) => outcome.scrollIntoView());
          await page.screenshot({ path: name("comparison") });
        });

        test("under way and failures", async ({ page }) => {
          test.skip(!mock, "needs the mock server");
          if (!mock) return;
          mock.behaviour.delayMs = 150;
          await page.goto(url);
          await page.locator("#empty .samples button").first().click();
          await page.locator(".card[data-state=scored]").nth(4).waitFor();
          await page.screenshot({ path: name("under-way") });
          await page.getByRole("button", { name: "Cancel" }).click();
          mock.behaviour.delayMs = 15;
          mock.behaviour.refuse = {
            status: 429,
            message: "the queue is full: 4,096 pairs",
            headers: { "Retry-After": "8" },
          };
          await page.locator("#start").click();
          await page.locator(".failure").waitFor();
          await page.screenshot({ path: name("busy") });
          mock.behaviour.refuse = null;
        });

        test("live", async ({ page }) => {
          await page.goto(`${url}#tab=live`);
          await page.waitForTimeout(mock ? 12_000 : 4000);
          await page.screenshot({ path: name("live"), fullPage: true });
        });
      });
    }
});
