// Judges pages in Chromium, from standard input: {pages: [{name, lang, status, headers, body, button}], images: {path: base64}}.
// Each is shown as the browser would get it, headers and all, narrow and wide, by day and by night, and looked at by
// axe-core, with every rule once and each time with those that width or colours can change; then: no scrolling sideways
// (also with the text spacing of WCAG 1.4.12, with text of twice the size and at 400 % zoom, which is 320 px), nothing cut,
// quotation marks and stops on the line of the name beside them, the page's one button in the first view of a small
// telephone, controls large enough, focus visible, buttons that can be told apart in forced colours, dark ink on paper,
// nothing loaded from elsewhere, nothing moving. Writes {looks, findings: [text]}. With SHOTS naming a folder it keeps
// pictures there.
'use strict';
const fs = require('fs');
const path = require('path');
const { launch } = require('./chromium.cjs');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const ORIGIN = 'http://pages.test';
const NARROW = { width: 320, height: 568 };
const WIDE = { width: 1280, height: 900 };
// What can differ between widths, and what between colours; of the rest once is enough.
const OF_COLOUR = ['color-contrast', 'link-in-text-block'];
const OF_WIDTH = [...OF_COLOUR, 'target-size', 'scrollable-region-focusable', 'css-orientation-lock'];
// Pages looked at side by side; pictures of several at once would run into one another.
const SIDE_BY_SIDE = process.env.SHOTS ? 1 : 3;

async function main() {
  const given = JSON.parse(fs.readFileSync(0, 'utf8'));
  const findings = [];
  let looks = 0;
  const browser = await launch();
  const context = await browser.newContext({ viewport: NARROW, reducedMotion: 'reduce' });
  await context.route('**/*', (route) => {
    const url = new URL(route.request().url());
    if (url.origin !== ORIGIN) {
      findings.push(`${route.request().frame().url()} asks for ${url.origin}`);
      return route.abort();
    }
    if (url.pathname in given.images) {
      return route.fulfill({ contentType: 'image/png', body: Buffer.from(given.images[url.pathname], 'base64') });
    }
    const shown = /^\/\d+$/.test(url.pathname) && given.pages[url.pathname.slice(1)];
    return shown ? route.fulfill({ status: shown.status, headers: shown.headers, body: shown.body }) : route.fulfill({ status: 404, body: '' });
  });

  let next = 0;
  const judge = async () => {
    const page = await context.newPage();
    let note = null;
    page.on('console', (message) => {
      if (message.type() === 'error' && !/favicon|Failed to load resource/.test(message.text())) note(message.text());
    });
    while (next < given.pages.length) {
      const n = next;
      next += 1;
      const one = given.pages[n];
      note = (what) => findings.push(`${one.name} ${one.lang}: ${what}`);
      const taken = await look(page, n, one, note);
      looks += taken;
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, judge));
  await browser.close();
  process.stdout.write(JSON.stringify({ looks, findings }));
}

// Looks at one page in every way; returns how many looks axe took.
async function look(page, n, one, note) {
  let looks = 0;
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
      const first = view === NARROW ? null : OF_WIDTH;
      for (const found of await page.evaluate(violations, colorScheme === 'light' ? first : OF_COLOUR)) note(`${view.width} ${colorScheme}: ${found}`);
      await picture(page, `${one.name}-${one.lang}-${view.width}-${colorScheme}`);
    }
    for (const found of await page.evaluate(measures)) note(`${view.width}: ${found}`);
    for (const [how, style] of Object.entries(OTHERWISE)) {
      // The embedded mailbox is a tool for large screens; WCAG asks for no more than one of the two.
      if (how === LARGE && view === NARROW && one.name.startsWith('mailbox')) continue;
      for (const found of await page.evaluate(styled, style)) note(`${view.width}: ${found} ${how}`);
    }
  }
  await page.setViewportSize(NARROW);
  // Browsers print as by day.
  await page.emulateMedia({ media: 'print', colorScheme: 'light' });
  for (const found of await page.evaluate(printed)) note(found);
  await picture(page, `${one.name}-${one.lang}-print`);
  await page.emulateMedia({ media: null, forcedColors: 'active' });
  for (const found of await page.evaluate(forced)) note(found);
  await picture(page, `${one.name}-${one.lang}-forced`);
  await page.emulateMedia({ forcedColors: null });
  for (const found of await focusable(page)) note(found);
  return looks;
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
    const within = control.matches('p a, span a, article a');
    if (!within && (width < 24 || height < 24)) found.push(`too small to hit: ${control.outerHTML.slice(0, 80)}`);
  }
  if (document.scripts.length > 0) found.push('has a script');
  const moved = performance.getEntriesByType('layout-shift').length;
  if (moved > 0) found.push('moves while it loads');
  const at = (node, from) => {
    const range = document.createRange();
    range.setStart(node, from);
    range.setEnd(node, from + 1);
    return range.getClientRects()[0];
  };
  for (const name of document.querySelectorAll('main bdi')) {
    const inside = name.firstChild;
    // One longer than a line is broken wherever a line is full.
    if ((inside?.length ?? 0) > 24) continue;
    const [before, after] = [name.previousSibling, name.nextSibling];
    const beside = [];
    if (before?.nodeType === 3 && /\S$|[\u00a0\u202f]$/.test(before.data)) beside.push([at(before, before.length - 1), at(inside, 0)]);
    if (after?.nodeType === 3 && /^\S|^[\u00a0\u202f]/.test(after.data)) beside.push([at(after, 0), at(inside, inside.length - 1)]);
    for (const [mark, letter] of beside) {
      if (mark && letter && (mark.bottom <= letter.top || letter.bottom <= mark.top)) found.push(`breaks a line beside ${name.outerHTML}`);
    }
    if (name.matches('.whole') && at(inside, 0).bottom <= at(inside, inside.length - 1).top) found.push(`breaks ${name.outerHTML}`);
  }
  return found;
}

// How readers may set texts: WCAG 1.4.12 and 1.4.4. Nothing is lost or cut by it.
const LARGE = 'when its text is twice as large';
const OTHERWISE = {
  'when its text is spaced out': '*{line-height:1.5!important;letter-spacing:.12em!important;word-spacing:.16em!important}p{margin-bottom:2em!important}',
  [LARGE]: 'html{font-size:200%!important}',
};

function styled(style) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(style);
  const before = [...document.adoptedStyleSheets];
  document.adoptedStyleSheets = [sheet];
  const found = [];
  const { scrollWidth } = document.scrollingElement;
  if (scrollWidth > window.innerWidth) found.push(`scrolls sideways (${scrollWidth})`);
  for (const box of document.querySelectorAll('main, header, p, h1, h2, li, button')) {
    const style = getComputedStyle(box);
    const cut = style.overflow !== 'visible' && box.scrollHeight > box.clientHeight + 1 && style.textOverflow !== 'ellipsis';
    if (cut) found.push(`cuts ${box.tagName}`);
  }
  document.adoptedStyleSheets = before;
  return found;
}

// Paper can be read and not pressed.
function printed() {
  const found = [];
  const { scrollWidth } = document.scrollingElement;
  if (scrollWidth > window.innerWidth) found.push(`prints beyond the paper: ${scrollWidth}`);
  for (const words of document.querySelectorAll('h1, h2, p, li, header')) {
    const { color } = getComputedStyle(words);
    const [red, green, blue] = color.match(/[\d.]+/g).map(Number);
    if (0.2126 * red + 0.7152 * green + 0.0722 * blue > 0x90) found.push(`prints ${words.tagName} in ${color}`);
  }
  // The mailbox's are small and beside what is read.
  for (const button of document.querySelectorAll('button.big, button.quiet')) {
    if (button.checkVisibility()) found.push(`prints ${button.outerHTML}`);
  }
  return found;
}

// Where the reader chooses all colours, what fills a button is gone: its border must say that it is one.
function forced() {
  const found = [];
  for (const button of document.querySelectorAll('button')) {
    const style = getComputedStyle(button);
    if (style.borderTopStyle === 'none' || style.borderTopColor === style.backgroundColor) found.push(`forced colours hide ${button.outerHTML}`);
  }
  return found;
}

// Tab reaches each control in the order of the page, and shows where it is.
async function focusable(page) {
  const found = [];
  const all = await page.evaluate(() => document.querySelectorAll('a[href], button, summary, select, input:not([type=hidden]), pre[tabindex]').length);
  for (let n = 0; n < all; n += 1) {
    await page.keyboard.press('Tab');
    const seen = await page.evaluate(() => {
      const controls = [...document.querySelectorAll('a[href], button, summary, select, input:not([type=hidden]), pre[tabindex], iframe')];
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
