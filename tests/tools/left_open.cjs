// Opens pages in Chromium with scripts allowed, does what a person did on them, and leaves all of them open at once:
// scrolling, moving the pointer, hovering over buttons. Reports every request that was made meanwhile, and what on each
// page could have made one.
//
// Reads {pages: [{name, url or html, acts}], seconds} on standard input; `acts` is "", "once" (the first button), "scope"
// (then another scope) or "undo" (then the undo).
const { launch } = require("./chromium.cjs");

async function act(page, acts) {
  if (acts === "" || acts === "before") return;
  const press = async (button) => {
    await Promise.all([page.waitForLoadState("load"), button.click()]);
    await page.waitForSelector("h1");
  };
  await press(page.locator("form button").first());
  if (acts === "scope") {
    await press(page.locator("form:has([name=scope]) button").first());
  }
  if (acts === "undo") {
    await press(page.locator("form:has([name=undo]):not(:has([name=scope])) button").first());
  }
}

async function main() {
  const { pages, seconds } = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const browser = await launch();
  const open = [];
  for (const { name, url, html, acts } of pages) {
    const context = await browser.newContext({ viewport: { width: 900, height: 400 } });
    const page = await context.newPage();
    const requests = [];
    page.on("request", (request) => requests.push(`${request.method()} ${request.url()}`));
    if (html === undefined) await page.goto(url);
    else await page.setContent(html);
    await act(page, acts);
    const origin = url === undefined ? "" : new URL(url).origin;
    open.push({ name, page, requests, origin, before: requests.length });
  }
  const since = Date.now();
  for (let round = 0; Date.now() - since < seconds * 1000; round += 1) {
    for (const { page } of open) {
      await page.mouse.move(50 + (round * 37) % 800, 40 + (round * 23) % 340);
      await page.mouse.wheel(0, round % 6 < 3 ? 150 : -150);
      const buttons = page.locator("button, a");
      const count = await buttons.count();
      if (count > 0) await buttons.nth(round % count).hover({ timeout: 2000 }).catch(() => {});
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const left = Math.floor((Date.now() - since) / 1000);
  const report = [];
  for (const { name, page, requests, origin, before } of open) {
    const found = await page.evaluate(() => ({
      scripts: document.scripts.length + document.querySelectorAll("iframe, object, embed, [href^='javascript:' i]").length,
      handlers: [...document.querySelectorAll("*")].flatMap((e) => [...e.attributes].map((a) => a.name))
        .filter((attribute) => attribute.startsWith("on")),
      refresh: document.querySelectorAll("meta[http-equiv=refresh i]").length,
    }));
    const foreign = requests.map((request) => request.split(" ")[1]).filter((to) => origin !== "" && !to.startsWith(origin));
    report.push({ name, ...found, foreign, requests_while_open: requests.slice(before), left_for: Math.min(left, seconds) });
  }
  await browser.close();
  process.stdout.write(JSON.stringify({ pages: report }));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
