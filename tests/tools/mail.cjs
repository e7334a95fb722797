// Judges the HTML of mail in Chromium, from standard input: {mails: [{name, html}], images: {url: base64}}. Each is shown
// narrow and wide, by day and by night; once more without its images, and once more without its <style>, as some
// programs show it. axe-core looks at each; nothing may scroll sideways, load from elsewhere or lose its words. Writes
// {looks, findings: [text]}. With SHOTS naming a folder it keeps pictures there.
'use strict';
const fs = require('fs');
const path = require('path');
const { launch } = require('./chromium.cjs');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const ORIGIN = 'http://mail.test';
const WIDTHS = [320, 1280];
const COLOURS = ['light', 'dark'];
// A message is shown inside of a page that has landmarks and a heading of its own. The footer sets each of its properties
// with !important, its spacing too, so that no template hides it; a reader's own style sheet still comes before it.
const LEFT_OUT = ['region', 'landmark-one-main', 'page-has-heading-one', 'avoid-inline-spacing'];

async function main() {
  const { mails, images } = JSON.parse(fs.readFileSync(0, 'utf8'));
  const findings = [];
  let looks = 0;
  let html = '';
  let note = () => {};
  let withImages = true;
  const browser = await launch();
  const context = await browser.newContext({ reducedMotion: 'reduce' });
  await context.route('**/*', (route) => {
    const url = route.request().url();
    if (url.startsWith(`${ORIGIN}/`)) return route.fulfill({ contentType: 'text/html; charset=utf-8', body: html });
    if (!(url in images)) note(`asks for ${url}`);
    else if (withImages) return route.fulfill({ contentType: 'image/png', body: Buffer.from(images[url], 'base64') });
    return route.abort();
  });
  const page = await context.newPage();
  for (const mail of mails) {
    const bare = mail.html.replace(/<style[\s\S]*?<\/style>/g, '');
    const ways = [['whole', mail.html, true], ['unseen', mail.html, false], ['bare', bare, true]];
    let words = null;
    if (process.env.SHOTS) fs.writeFileSync(path.join(process.env.SHOTS, `mail-${mail.name}.html`), mail.html);
    for (const [way, source, shown] of ways) {
      [html, withImages] = [source, shown];
      note = (what) => findings.push(`${mail.name} ${way}: ${what}`);
      await page.setViewportSize({ width: 320, height: 640 });
      await page.goto(`${ORIGIN}/`);
      await page.evaluate(axe);
      const seen = await page.evaluate(() => document.body.innerText.replace(/\s+/g, ' ').trim());
      words ??= seen;
      if (seen !== words) note(`says ${seen} instead of ${words}`);
      for (const width of way === 'unseen' ? [320] : WIDTHS) {
        for (const colorScheme of way === 'unseen' ? ['light'] : COLOURS) {
          await page.setViewportSize({ width, height: 640 });
          await page.emulateMedia({ colorScheme });
          looks += 1;
          const at = (what) => note(`${width} ${colorScheme}: ${what}`);
          for (const found of await page.evaluate(violations, LEFT_OUT)) at(found);
          for (const found of await page.evaluate(measures, shown)) at(found);
          if (process.env.SHOTS) {
            const file = `mail-${mail.name}-${way}-${width}-${colorScheme}.png`;
            await page.screenshot({ path: path.join(process.env.SHOTS, file), fullPage: true });
          }
        }
      }
    }
  }
  await browser.close();
  process.stdout.write(JSON.stringify({ looks, findings }));
}

async function violations(left) {
  const rules = Object.fromEntries(left.map((rule) => [rule, { enabled: false }]));
  rules['target-size'] = { enabled: true };
  const found = await window.axe.run(document, { resultTypes: ['violations'], rules });
  return found.violations.map((rule) => `${rule.id}: ${rule.nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary.slice(0, 240)}`).join(' | ')}`);
}

function measures(shown) {
  const found = [];
  const { scrollWidth } = document.scrollingElement;
  if (scrollWidth > window.innerWidth) found.push(`scrolls sideways: ${scrollWidth}`);
  for (const image of document.images) {
    if (shown && image.naturalWidth === 0) found.push(`does not show ${image.src}`);
    if (!image.hasAttribute('alt')) found.push(`has no words for ${image.src}`);
  }
  if (document.scripts.length > 0) found.push('has a script');
  return found;
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
