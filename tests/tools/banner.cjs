// Shows the banner on a brand's page in Chromium, from standard input: {tidings, script}. The page is one of another origin,
// with a Content-Security-Policy that allows no inline style, and an image, a heading and a link of its own. In each
// language, narrow and wide, by day and by night axe-core looks at it; then: nothing scrolls sideways, the region has a
// name, the keyboard reaches link and button and shows where it is, nothing is kept in the browser, nothing but the script
// and the feed is asked for, nothing is written to the console. Also where nothing may be shown: another placement, an
// unknown brand, an origin that is not the brand's, a feed that is broken; and after it was closed. Writes {said: {name: words
// of the banner or null}, findings: [text]}. With SHOTS naming a folder it keeps pictures there.
'use strict';
const fs = require('fs');
const path = require('path');
const { launch } = require('./chromium.cjs');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const VIEWS = { narrow: { width: 320, height: 568 }, wide: { width: 1280, height: 900 } };
const STYLE = 'body{margin:0;font-family:serif}main{padding:1rem}@media(prefers-color-scheme:dark){body{background:#111;color:#eee}a{color:#9cf}}';

function shop(script, { lang = 'en', brand = 'acme', place = 'homepage' }) {
  return `<!DOCTYPE html><html lang="${lang}" dir="${lang === 'ar' ? 'rtl' : 'ltr'}"><head><meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1"><title>Shop</title><link rel="stylesheet" href="/style.css">
    <script src="${script}" data-brand="${brand}" data-placement="${place}" defer></script></head>
    <body><main><h1>Shop</h1><p>Shoes and <a href="/hats">hats</a>.</p></main></body></html>`;
}

async function main() {
  const { tidings, script } = JSON.parse(fs.readFileSync(0, 'utf8'));
  const findings = [];
  const said = {};
  // Or it would ask a person whether the page may reach this very machine.
  const browser = await launch('--disable-features=LocalNetworkAccessChecks');

  // Opens a page of this origin; gives it and what it asked Tidings for.
  const open = async (origin, what, { broken = false, view = VIEWS.wide, colorScheme = 'light' } = {}) => {
    const context = await browser.newContext({ viewport: view, colorScheme, reducedMotion: 'reduce' });
    const asked = [];
    await context.route('**/*', async (route) => {
      const url = new URL(route.request().url());
      if (url.origin === tidings) {
        asked.push(url.pathname);
        return broken && url.pathname.endsWith('.json') ? route.fulfill({ status: 200, headers: { 'access-control-allow-origin': '*' }, body: '{"notices":' }) : route.continue();
      }
      if (url.origin !== origin) {
        findings.push(`asks for ${url}`);
        return route.abort();
      }
      if (url.pathname === '/style.css') return route.fulfill({ contentType: 'text/css', body: STYLE });
      const policy = `default-src 'none'; script-src ${tidings}; connect-src ${tidings}; style-src 'self'`;
      return route.fulfill({ contentType: 'text/html', headers: { 'content-security-policy': policy }, body: shop(script, what) });
    });
    const page = await context.newPage();
    const console_ = [];
    page.on('console', (message) => console_.push(message.text()));
    page.on('pageerror', (error) => console_.push(String(error)));
    await page.goto(`${origin}/`, { waitUntil: 'networkidle' });
    return { context, page, asked, console_ };
  };
  const words = (page) => page.evaluate(() => document.querySelector('[role=region]')?.textContent ?? null);

  for (const lang of ['en', 'de', 'ar']) {
    for (const [width, view] of Object.entries(VIEWS)) {
      for (const colorScheme of ['light', 'dark']) {
        const note = (what) => findings.push(`${lang} ${width} ${colorScheme}: ${what}`);
        const { context, page, asked, console_ } = await open('http://localhost:3000', { lang }, { view, colorScheme });
        said[lang] = await words(page);
        if (process.env.SHOTS) await page.screenshot({ path: path.join(process.env.SHOTS, `banner-${lang}-${width}-${colorScheme}.png`) });
        for (const what of console_) note(`console: ${what}`);
        if (asked.join() !== '/notices/banner.js,/notices/current.json') note(`asked for ${asked}`);
        if (!said[lang]) {
          note('no banner');
          await context.close();
          continue;
        }
        // Past the policy of the page, which allows no script of the judge's.
        const cdp = await context.newCDPSession(page);
        await cdp.send('Runtime.evaluate', { expression: axe });
        for (const found of await page.evaluate(violations)) note(found);
        for (const found of await page.evaluate(measures)) note(found);
        for (const found of await keyboard(page)) note(found);
        const kept = await page.evaluate(() => document.cookie.length + localStorage.length + sessionStorage.length);
        if (kept || (await context.cookies()).length) note('something is kept in the browser');
        await page.getByRole('button').click({ timeout: 3000 });
        said.dismissed = await words(page);
        await context.close();
      }
    }
  }
  const nowhere = {
    elsewhere: ['http://localhost:3000', { place: 'checkout' }],
    'unknown brand': ['http://localhost:3000', { brand: 'nobody' }],
    'foreign origin': ['http://localhost:4000', {}],
    'broken feed': ['http://localhost:3000', {}, { broken: true }],
  };
  for (const [name, [origin, what, how]] of Object.entries(nowhere)) {
    const { context, page, console_ } = await open(origin, what, how);
    said[name] = await words(page);
    if (console_.some((text) => !/Failed to load resource|CORS policy/.test(text))) findings.push(`${name}: ${console_}`);
    await context.close();
  }
  await browser.close();
  process.stdout.write(JSON.stringify({ said, findings }));
}

async function violations() {
  const found = await window.axe.run(document, { resultTypes: ['violations'], rules: { 'target-size': { enabled: true } } });
  return found.violations.map((rule) => `${rule.id}: ${rule.nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary.slice(0, 200)}`).join(' | ')}`);
}

function measures() {
  const found = [];
  const box = document.querySelector('[role=region]');
  if (!box.getAttribute('aria-label')) found.push('the region has no name');
  if (document.scrollingElement.scrollWidth > window.innerWidth) found.push('scrolls sideways');
  if (document.body.firstElementChild !== box) found.push('does not stand first');
  const style = getComputedStyle(box);
  if (style.paddingTop === '0px') found.push('has no style');
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const light = style.backgroundColor === 'rgb(255, 255, 255)';
  if (dark === light) found.push(`is ${style.backgroundColor} ${dark ? 'by night' : 'by day'}`);
  if (style.direction !== (document.documentElement.dir || 'ltr')) found.push(`runs ${style.direction}`);
  return found;
}

async function keyboard(page) {
  const found = [];
  // A link for each change, then the button.
  const links = await page.evaluate(() => document.querySelectorAll('[role=region] a').length);
  if (!links) found.push('no link');
  for (const name of [...Array(links).fill('A'), 'BUTTON']) {
    await page.keyboard.press('Tab');
    const seen = await page.evaluate(() => ({ name: document.activeElement.tagName, inside: !!document.activeElement.closest('[role=region]'), outline: getComputedStyle(document.activeElement).outlineStyle }));
    if (seen.name !== name || !seen.inside) found.push(`Tab reaches ${seen.name}`);
    if (seen.outline === 'none') found.push(`focus cannot be seen on ${seen.name}`);
  }
  return found;
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
