// Judges pages in Chromium, from standard input: {pages: [{name, lang, status, headers, body, button}], images: {path: base64}}.
// Each is shown as the browser would get it, headers and all, narrow and wide, by day and by night, and looked at by
// axe-core, with every rule once and each time with those that width or colours can change; then: no scrolling sideways (also with the text spacing of WCAG 1.4.12 and at 400 % zoom), the
// page's one button in the first view of a small telephone, controls large enough, focus visible, nothing loaded from
// elsewhere, nothing moving. Writes {looks, findings: [text]}. With SHOTS naming a folder it keeps pictures there.
'use strict';
const fs = require('fs');
const path = require('path');
const { chromium } = require('playwright-core');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const ORIGIN = 'http://pages.test';
const NARROW = { width: 320, height: 568 };
const WIDE = { width: 1280, height: 900 };
// What can differ between widths and colours; of the rest once is enough.
const SEEN = ['color-contrast', 'target-size', 'link-in-text-block', 'scrollable-region-focusable', 'css-orientation-lock'];
const LAUNCH = {
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
};

async function main() {
  const given = JSON.parse(fs.readFileSync(0, 'utf8'));
  const findings = [];
  let looks = 0;
  const browser = await chromium.launch(LAUNCH);
  const context = await browser.newContext({ viewport: NARROW, reducedMotion: 'reduce' });
  let shown = null;
  await context.route('**/*', (route) => {
    const url = new URL(route.request().url());
    if (url.origin !== ORIGIN) {
      findings.push(`${shown.name} ${shown.lang}: asks for ${url.origin}`);
      return route.abort();
    }
    if (url.pathname in given.images) {
      return route.fulfill({ contentType: 'image/png', body: Buffer.from(given.images[url.pathname], 'base64') });
    }
    if (/^\/\d+$/.test(url.pathname)) {
      return route.fulfill({ status: shown.status, headers: shown.headers, body: shown.body });
    }
    return route.fulfill({ status: 404, body: '' });
  });
  const page = await context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error' && !/favicon|Failed to load resource/.test(message.text())) {
      findings.push(`${shown.name} ${shown.lang}: ${message.text()}`);
    }
  });

  for (const [n, one] of given.pages.entries()) {
    shown = one;
    const note = (what) => findings.push(`${one.name} ${one.lang}: ${what}`);
    await page.setViewportSize(NARROW);
    await page.emulateMedia({ colorScheme: 'light' });
    await page.goto(`${ORIGIN}/${n}`);
    await page.evaluate(axe);
    if (one.button) {
      const bottom = await page.evaluate(() => document.querySelector('button.big').getBoundingClientRect().bottom);
      if (bottom > NARROW.height) note(`the button ends at ${bottom} px of ${NARROW.height}`);
    }
    for (const view of [NARROW, WIDE]) {
      await page.setViewportSize(view);
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        looks += 1;
        const first = view === NARROW && colorScheme === 'light';
        for (const found of await page.evaluate(violations, first ? null : SEEN)) note(`${view.width} ${colorScheme}: ${found}`);
        await picture(page, `${one.name}-${one.lang}-${view.width}-${colorScheme}`);
      }
      for (const found of await page.evaluate(measures)) note(`${view.width}: ${found}`);
    }
    await page.setViewportSize(NARROW);
    for (const found of await page.evaluate(spaced)) note(found);
    for (const found of await focusable(page)) note(found);
  }
  await browser.close();
  process.stdout.write(JSON.stringify({ looks, findings }));
}

async function picture(page, name) {
  if (process.env.SHOTS) await page.screenshot({ path: path.join(process.env.SHOTS, `${name}.png`), fullPage: true });
}

// Every rule that axe has, those of its experiments and AAA left out, or only these; frames hold mail, which is judged
// elsewhere.
async function violations(only) {
  const found = await window.axe.run(document, {
    ...(only && { runOnly: only }),
    iframes: false,
    resultTypes: ['violations'],
    rules: { 'target-size': { enabled: true }, 'frame-tested': { enabled: false } },
  });
  return found.violations.map((rule) => `${rule.id}: ${rule.nodes.map((node) => `${node.html.slice(0, 120)} ${node.failureSummary.slice(0, 200)}`).join(' | ')}`);
}

function measures() {
  const found = [];
  const { scrollWidth } = document.scrollingElement;
  if (scrollWidth > window.innerWidth) found.push(`scrolls sideways: ${scrollWidth}`);
  for (const control of document.querySelectorAll('a, button, input:not([type=hidden])')) {
    const { width, height } = control.getBoundingClientRect();
    const within = control.matches('p a, span a');
    if (!within && (width < 24 || height < 24)) found.push(`too small to hit: ${control.outerHTML.slice(0, 80)}`);
  }
  if (document.scripts.length > 0) found.push('has a script');
  const moved = performance.getEntriesByType('layout-shift').length;
  if (moved > 0) found.push('moves while it loads');
  return found;
}

// WCAG 1.4.12: nothing is lost or cut when a reader spaces the text out.
function spaced() {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync('*{line-height:1.5!important;letter-spacing:.12em!important;word-spacing:.16em!important}p{margin-bottom:2em!important}');
  const before = document.adoptedStyleSheets;
  document.adoptedStyleSheets = [sheet];
  const found = [];
  if (document.scrollingElement.scrollWidth > window.innerWidth) found.push('scrolls sideways when its text is spaced out');
  for (const box of document.querySelectorAll('main, header, p, h1, h2, li, button')) {
    const style = getComputedStyle(box);
    const cut = style.overflow !== 'visible' && box.scrollHeight > box.clientHeight + 1 && style.textOverflow !== 'ellipsis';
    if (cut) found.push(`cuts ${box.tagName} when its text is spaced out`);
  }
  document.adoptedStyleSheets = before;
  return found;
}

// Tab reaches each control in the order of the page, and shows where it is.
async function focusable(page) {
  const found = [];
  const all = await page.evaluate(() => document.querySelectorAll('a[href], button, input:not([type=hidden]), pre[tabindex]').length);
  for (let n = 0; n < all; n += 1) {
    await page.keyboard.press('Tab');
    const seen = await page.evaluate(() => {
      const controls = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), pre[tabindex], iframe')];
      const style = getComputedStyle(document.activeElement);
      return {
        at: controls.filter((control) => control.tagName !== 'IFRAME').indexOf(document.activeElement),
        frame: document.activeElement.tagName === 'IFRAME',
        html: document.activeElement.outerHTML.slice(0, 80),
        outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
      };
    });
    if (seen.frame) break;
    if (seen.at !== n) found.push(`Tab ${n + 1} reaches ${seen.html}`);
    if (!seen.outline) found.push(`focus cannot be seen on ${seen.html}`);
  }
  return found;
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
