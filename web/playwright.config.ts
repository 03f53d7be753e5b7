import { defineConfig } from "@playwright/test";

// The browser is the system's own: CHROMIUM, else Debian's. Nothing is downloaded.
export default defineConfig({
  testDir: "tests",
  testMatch: "*.test.ts",
  timeout: 60_000,
  workers: 1,
  reporter: [["list"]],
  outputDir: "test-results",
  use: {
    launchOptions: {
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    },
    viewport: { width: 1400, height: 900 },
    permissions: ["clipboard-read", "clipboard-write"],
  },
});
