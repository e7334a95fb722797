// Unsubscribes and takes it back with the keyboard alone, in Chromium without JavaScript, as `argv[2]` shows the page.
// Writes the headings of the pages it came by and the last button's words.
'use strict';
const { launch } = require('./chromium.cjs');

async function main() {
  const browser = await launch();
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 320, height: 568 } });
  const page = await context.newPage();
  const headings = [];
  const press = async (tabs) => {
    for (let n = 0; n < tabs; n += 1) await page.keyboard.press('Tab');
    const [answer] = await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
    headings.push(`${answer.status()} ${await page.locator('h1').innerText()}`);
  };
  const first = await page.goto(process.argv[2]);
  headings.push(`${first.status()} ${await page.locator('h1').innerText()}`);
  await press(1);
  // Past the narrower scopes to the undo.
  await press(await page.locator('button').count());
  await press(1);
  const cookies = (await context.cookies()).length;
  await browser.close();
  process.stdout.write(JSON.stringify({ headings, cookies }));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
